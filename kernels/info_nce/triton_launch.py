"""InfoNCE against a bank in Triton: what is launched, with which blocks and scratch memory.

Operations and bytes for R = P B queries, with e the size of an element: forward 4 R Q D operations;
ceil(R / BLOCK_M) Q D e bytes read, once from memory and then from the second-level cache, and for
each split of the bank R D sums written and read. The gradient of the queries reads no bank; one of
the bank takes another 4 R Q D operations.

float32 is multiplied on tensor cores as well: a number is split into two of tf32, and three of the
four products are added up, which is as exact as float32's own (2^-22 of a product is left out) at
a third of tf32's rate.
"""

from __future__ import annotations

import functools

import torch
import triton.language as tl
from torch import Tensor

from msclr.kernels._block_sizes import tunable
from msclr.kernels._triton import (
    ELEMENTS,
    Types,
    block_size,
    cdiv,
    check_dtype,
    column_pieces,
    multiprocessors,
    next_power_of_2,
    on_device,
    sum_dtype_of,
    wide_products,
)
from msclr.kernels.info_nce import triton_gradients as gradients
from msclr.kernels.info_nce import triton_kernels as programs
from msclr.kernels.info_nce.operator import MOST_COLUMNS, Arguments, misfit_of_triton

_WIDE = 512  # columns, beyond which tiles are the smallest and cut into pieces
_FEWEST_TILES, _OVERHEAD = 4, 2  # of the bank, see splits_of


def forward(*given) -> tuple[Tensor, ...]:
    """``msclr::info_nce_triton``: loss, distribution, log_sum_exp, nearest; and what is kept: mean,
    positive, largest and log_sum."""
    arguments = Arguments(*given)
    teacher, top_k, positives, mined = arguments[4:]
    if misfit := misfit_of_triton(arguments):
        raise ValueError(misfit)
    call = _Call(arguments)
    nearest = torch.empty((*call.shape, top_k), dtype=torch.int64, device=call.queries.device)
    mean = call.new_sums(*call.shape, call.dim)
    positive = call.new_sums(call.batch, call.dim)
    most, log_sum = call.new_sums(*call.shape), call.new_sums(*call.shape)
    log_sum_exp, loss = call.new_sums(*call.shape), call.new_sums(*call.shape)
    distribution = None if teacher is None else call.new_sums(*call.shape)
    if call.rows:
        with torch.cuda.device_of(call.queries):
            splits, parts = _stream(call, top_k)
            _combine(call, splits, parts, (mean, most, log_sum, log_sum_exp, nearest))
            listed = _Positives(positives, nearest if mined else None)
            programs.finish[(call.batch,)](
                call.queries, call.keys, call.bank, call.temperature, listed.tensor,
                mean, most, log_sum, positive, loss, distribution,
                call.views, call.batch, call.dim, call.bank_rows, call.bank_stride,
                *listed.layout, call.teacher,
                SUM=call.types["SUM"], BLOCK_D=call.columns, BLOCK_E=16, num_warps=4,
            )  # fmt: skip
    if distribution is None:
        distribution = call.new_sums(0)
    return loss, distribution, log_sum_exp, nearest, mean, positive, most, log_sum


def backward(*given) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``msclr::info_nce_triton_backward``: the gradients, empty tensors where unwanted."""
    grad_loss, grad_distribution, grad_log_sum_exp, *rest = given
    arguments, kept, wanted = Arguments(*rest[:8]), rest[8:13], rest[13:]
    queries, _, bank, temperature, teacher, _, positives, mined = arguments
    nearest, mean, positive, most, log_sum = kept
    want_queries, want_keys, want_bank, want_temperature = wanted
    call = _Call(arguments)
    upstream = (
        grad_loss.contiguous(),
        None if teacher is None else grad_distribution.contiguous(),
        grad_log_sum_exp.contiguous(),
    )
    none = queries.new_empty(0)
    dqueries, dkeys, dbank, dtemperature = none, none, none, none
    with torch.cuda.device_of(queries):
        if want_queries or want_temperature:
            made, products = _query_gradient(call, upstream, mean, positive)
            dqueries = made if want_queries else none
            if want_temperature:
                total = -(products.sum() / call.temperature)
                dtemperature = total.to(temperature).reshape(temperature.shape)
        if want_keys or (want_bank and bank is not None):
            listed = _Positives(positives, nearest if mined else None)
            made, *pulls = _pulls(call, upstream, listed, most, log_sum)
            dkeys = made if want_keys else none
            if want_bank and bank is not None:
                dbank = _bank_gradient(call, listed, most, *pulls)
    return dqueries, dkeys, dbank, dtemperature


class _Call:
    """The arguments of a call as the programs want them, and the sizes and types they imply."""

    def __init__(self, arguments: Arguments):
        queries, keys, bank, temperature, teacher, *_ = arguments
        check_dtype("queries", queries)
        self.views, self.batch, self.dim = queries.shape
        self.shape = self.views, self.batch
        self.rows = self.views * self.batch
        self.queries, self.keys = queries.contiguous(), keys.contiguous()
        bank = keys.new_empty(0, self.dim) if bank is None else bank
        self.bank = bank if bank.stride(1) == 1 else bank.contiguous()
        self.bank_rows, self.bank_stride = len(bank), self.bank.stride(0)
        self.teacher = teacher or 0
        self.columns = block_size(self.dim, MOST_COLUMNS)
        self.sum_dtype = sum_dtype_of(queries.dtype)
        self.temperature = on_device(temperature, queries.device, self.sum_dtype)
        dtype = queries.dtype if queries.dtype == self.bank.dtype else self.sum_dtype
        types = Types(dtype, self.sum_dtype)
        self.tf32, self.three_products = types.tf32, dtype == torch.float32 and not types.tf32
        self.types = types.constants | {"ROUND": ELEMENTS[dtype]}
        if self.three_products:
            self.types["PRECISION"] = "tf32x3"

    def pull_types(self) -> tuple[torch.dtype, dict[str, object]]:
        """What pulls are stored in, and the types of a product with them.

        Weights, and pulls over the sum of a long bank's, are below float16's range; tf32 has its
        precision and float32's range.
        """
        if self.types["ROUND"] != tl.float16:
            kinds = {name: self.types[name] for name in ("ROUND", "OPERAND", "PRECISION")}
        else:
            kinds = {"ROUND": tl.float32, "OPERAND": tl.float32, "PRECISION": "tf32"}
        stored = next(dtype for dtype, kind in ELEMENTS.items() if kind == kinds["ROUND"])
        return stored, {f"PULL_{name}": kind for name, kind in kinds.items()}

    def pieces(self, most: int) -> dict[str, int]:
        return column_pieces(self.columns, self.dim, most)

    def new_sums(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=self.sum_dtype, device=self.queries.device)


class _Positives:
    """Where the lists of positives lie: given (B, R), or mined by all views, (P, B, K)."""

    def __init__(self, given: Tensor | None, mined: Tensor | None):
        self.tensor, self.layout = None, (0, 1, 0, 0)  # entries, of a view, clip and view stride
        if mined is not None:
            views, batch, k = mined.shape
            self.tensor, self.layout = mined, (views * k, k, k, batch * k)
        elif given is not None and given.numel():
            entries = given.shape[1]
            self.tensor, self.layout = given.contiguous(), (entries, entries, entries, 0)

    @property
    def entries(self) -> int:
        return self.layout[0]


def _stream(call: _Call, top_k: int) -> tuple[int, tuple[Tensor | None, ...]]:
    """The splits of the bank, and of each what `stream` makes."""
    blocks = _stream_blocks(call)
    query_tiles = cdiv(call.rows, blocks["BLOCK_M"])
    bank_tiles = cdiv(call.bank_rows, blocks["BLOCK_N"])
    at_once = multiprocessors(call.queries, in_interpreter=4)
    splits = splits_of(query_tiles, bank_tiles, at_once)
    largest, total, mass = call.new_sums(3, splits, call.rows).unbind()
    sums = call.new_sums(splits, call.rows, call.dim)
    near = near_row = None
    if top_k:
        near = call.new_sums(splits, call.rows, top_k)
        near_row = torch.empty_like(near, dtype=torch.int32)
    parts = largest, total, mass, sums, near, near_row
    if splits:
        programs.stream[(query_tiles, splits)](
            call.queries, call.bank, call.temperature, *parts,
            call.rows, call.bank_rows, call.dim, call.bank_stride, splits,
            K=top_k, BLOCK_K=next_power_of_2(max(top_k, 1)), **call.types, **blocks,
        )  # fmt: skip
    return splits, parts


def _combine(call: _Call, splits: int, parts: tuple, made: tuple[Tensor, ...]) -> None:
    top_k = made[-1].shape[-1]
    programs.combine[(call.rows,)](
        call.queries, call.keys, call.temperature, *parts, *made,
        call.rows, call.batch, call.dim, call.bank_rows, splits,
        K=top_k, SUM=call.types["SUM"], BLOCK_D=call.columns,
        BLOCK_S=block_size(splits), BLOCK_P=16, BLOCK_C=block_size(splits * top_k), num_warps=4,
    )  # fmt: skip


def _query_gradient(
    call: _Call, upstream: tuple, mean: Tensor, positive: Tensor
) -> tuple[Tensor, Tensor]:
    """(P, B, D), and (P, B): the product of each query with its gradient."""
    gradient, products = torch.empty_like(call.queries), call.new_sums(*call.shape)
    if call.rows:
        gradients.query_gradient[(call.rows,)](
            *upstream, call.queries, call.temperature, mean, positive, gradient, products,
            call.batch, call.dim, call.teacher,
            SUM=call.types["SUM"], BLOCK_D=call.columns, num_warps=1,
        )  # fmt: skip
    return gradient, products


def _pulls(
    call: _Call, upstream: tuple, listed: _Positives, most: Tensor, log_sum: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """The keys' gradient, and what `bank_gradient` needs: pull, clip_pull and rows."""
    stored, _ = call.pull_types()
    pull = torch.empty_like(call.queries, dtype=stored)
    clip_pull = torch.empty_like(call.keys, dtype=stored)
    dkeys = torch.empty_like(call.keys)
    rows = None
    if listed.tensor is not None:
        rows = torch.empty((call.batch, listed.entries), dtype=torch.int32, device=call.keys.device)
    if call.batch:
        gradients.pulls[(call.batch,)](
            *upstream, call.queries, call.keys, call.temperature, listed.tensor, most, log_sum,
            pull, clip_pull, rows, dkeys,
            call.views, call.batch, call.dim, call.bank_rows, *listed.layout, call.teacher,
            SUM=call.types["SUM"], BLOCK_D=call.columns, BLOCK_E=16, num_warps=1,
        )  # fmt: skip
    return dkeys, pull, clip_pull, rows


def _bank_gradient(
    call: _Call,
    listed: _Positives,
    most: Tensor,
    pull: Tensor,
    clip_pull: Tensor,
    rows: Tensor | None,
) -> Tensor:
    dbank = torch.empty((call.bank_rows, call.dim), dtype=call.bank.dtype, device=call.bank.device)
    blocks = _bank_blocks(call)
    tiles = cdiv(call.bank_rows, blocks["BLOCK_N"])
    if tiles:
        _, types = call.pull_types()
        gradients.bank_gradient[(tiles,)](
            call.queries, call.bank, call.temperature, most, pull, clip_pull, rows, dbank,
            call.rows, call.batch, call.bank_rows, call.dim, call.bank_stride, listed.entries,
            SUM=call.types["SUM"], OPERAND=call.types["OPERAND"],
            PRECISION=call.types["PRECISION"], **types, **blocks,
        )  # fmt: skip
    return dbank


@functools.lru_cache(1024)
def splits_of(query_tiles: int, bank_tiles: int, multiprocessors: int) -> int:
    """Into how many parts the bank is cut, so that no multiprocessor is without work.

    Programs are two for each multiprocessor at the least, as long as each has ``_FEWEST_TILES`` of
    the bank; more where their last wave then ends sooner. A program costs what ``_OVERHEAD`` tiles
    do besides: its sums are written and read again.
    """
    if not bank_tiles:
        return 0
    fewest = min(2 * multiprocessors // query_tiles, bank_tiles // _FEWEST_TILES)
    most = min(max(8 * multiprocessors // query_tiles, 4), bank_tiles)

    def time(splits: int) -> int:
        waves = cdiv(query_tiles * splits, multiprocessors)
        return waves * (cdiv(bank_tiles, splits) + _OVERHEAD)

    return min(range(max(fewest, 1), most + 1), key=time)


# Blocks. All were chosen by what ptxas makes of them for sm_80 and sm_90: few spills or none, and
# tensor-core instructions. Unmeasured yet.

_SMALLEST = {"BLOCK_M": 16, "BLOCK_N": 16, "num_warps": 8}


@tunable("info_nce.stream")
def _stream_blocks(call: _Call) -> dict[str, int]:
    if call.sum_dtype == torch.float64:
        return call.pieces(32) | _SMALLEST
    if call.three_products and call.columns > 128:
        rows = 32 if call.columns == 256 else 16
        return call.pieces(64) | _SMALLEST | {"BLOCK_M": rows, "num_stages": 1}
    if call.three_products:
        return call.pieces(32) | _SMALLEST | {"BLOCK_M": 64, "num_stages": 2}
    if call.columns > _WIDE:
        return call.pieces(256) | _SMALLEST | {"num_stages": 1}
    row_bytes = max(256, call.columns * call.bank.element_size())
    few = call.rows <= 64 and row_bytes == 256
    return call.pieces(_WIDE) | {
        "BLOCK_M": 64 if few else 32768 // row_bytes,  # with their sums, all that registers hold
        "BLOCK_N": 64 if row_bytes <= 512 and wide_products() and not call.tf32 else 32,
        "num_warps": 4 if few else 8,
        "num_stages": 3 if row_bytes <= 512 else 2,
    }


@tunable("info_nce.bank_gradient")
def _bank_blocks(call: _Call) -> dict[str, int]:
    if call.sum_dtype == torch.float64:
        return call.pieces(32) | _SMALLEST
    if call.three_products and call.columns > 256:
        return call.pieces(64) | _SMALLEST | {"num_stages": 1}
    if call.three_products:
        return call.pieces(32) | _SMALLEST | {"BLOCK_N": 64, "num_stages": 2}
    if call.columns > _WIDE:
        return call.pieces(256) | _SMALLEST | {"num_stages": 1}
    stored, _ = call.pull_types()
    row_bytes = call.columns * max(call.bank.element_size(), stored.itemsize)
    return call.pieces(_WIDE) | {
        "BLOCK_M": 32 if row_bytes <= 1024 else 16,
        "BLOCK_N": 128 if row_bytes <= 512 else 32,
        "num_warps": 8,
        "num_stages": 2,
    }
