"""Multi-view InfoNCE in Triton: what is launched, with which blocks and scratch memory.

Operations, bytes and exponentials for two views of B clips, with e the size of an element, where
every similarity is near (triton_forward.py):

    forward    2 B^2 D operations, B^2 exponentials, B^2 / BLOCK_N D e bytes from the second-level
               cache: each similarity of the two views is made once, for it is the other direction's
               as well. Row by row for both directions it would be twice all of that.
    backward   8 B^2 D operations, 2 B^2 exponentials, 2 B^2 / BLOCK_M D e bytes from that cache:
               twice, for the rows of each view, a product that makes similarities and one that
               adds up rows. Tiles made once for both views would save a product of the four, but
               the sums of one view, 4 BLOCK_M D bytes, would be read and written with each tile.

A form by matrices takes 6 B^2 D operations in all, for it keeps the similarities. On a Hopper GPU a
multiprocessor makes 4,096 bfloat16 operations and 16 exponentials in a cycle. At D = 128 a tile of
128 x 128 thus takes 1,024 cycles of both and 32 KB from the cache forward, so what counts there is
that they overlap: two programs share a multiprocessor. Backward it takes, for each view, 2,048
cycles of operations, 1,024 of exponentials, and 32 KB.

Scratch memory: forward 2 P (P + 1) S B numbers. S is the number of splits that a view has: S^2
regions for each two views fill the device, so S is 16 for P = 2 and 132 multiprocessors, or more
where a bank meets few anchors. Backward the sums of each split, R D for R rows; there is more than
one only while they are no more tiles than the programs that fill the device.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
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
    on_device,
    sum_dtype_of,
    wide_products,
)
from msclr.kernels.multi_view import plan, triton_factors
from msclr.kernels.multi_view import triton_backward as backward_programs
from msclr.kernels.multi_view import triton_forward as programs
from msclr.kernels.multi_view.operator import MOST_COLUMNS, Arguments, misfit_of_triton

_ROWS = 16  # at once, of programs that multiply no tiles


def forward(*given) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``msclr::multi_view_info_nce_triton``: loss; excesses, shifts, log sums, (P, P, B) each."""
    arguments = Arguments(*given)
    call = _Call(arguments)
    kept = [call.new_sums(call.count, call.count, call.batch) for _ in range(3)]
    parts = call.new_sums(call.count, cdiv(call.batch, _ROWS))
    with torch.cuda.device_of(call.views):
        counts, *scratch = _region_sums(call)
        programs.losses[(parts.shape[1], call.count)](
            call.views, call.clips, call.temperature, call.weights, counts, *scratch,
            *kept, parts,
            call.batch, call.clips.shape[1], call.dim, call.first, call.count + 1,
            scratch[0].shape[2],
            ALL_VIEWS=arguments.all_views, SUM=call.types["SUM"], BLOCK_B=_ROWS,
            BLOCK_D=block_size(call.dim, 128), num_warps=4, maxnreg=255,
        )  # fmt: skip
    return parts.sum() / call.batch, *kept


def backward(grad: Tensor, *given) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``msclr::multi_view_info_nce_triton_backward``: gradients, empty tensors where unwanted."""
    arguments, kept, wanted = Arguments(*given[:7]), given[7:10], given[10:]
    views, temperature, _, candidates, _, bank, _ = arguments
    want_views, want_temperature, want_candidates, want_bank = wanted
    call = _Call(arguments)
    none = views.new_empty(0)
    dviews, dtemperature, dcandidates, dbank = none, none, none, none
    with torch.cuda.device_of(views):
        pulls = _Pulls(call, views.shape[2], grad, *kept)
        if want_views or want_temperature:
            made, products = pulls.of_views(want_temperature)
            dviews = made if want_views else none
            if want_temperature:
                total = -(products.sum() / call.temperature)
                dtemperature = total.to(temperature).reshape(temperature.shape)
        if want_candidates and candidates is not None:
            dcandidates = pulls.of_candidates()
        if want_bank and bank is not None:
            dbank = pulls.of_bank()
    return dviews, dtemperature, dcandidates, dbank


class _Call:
    """The arguments of a call as the programs want them, and the sizes and types they imply."""

    def __init__(self, arguments: Arguments):
        views, temperature, pairs, candidates, first, bank, all_views = arguments
        check_dtype("views", views)
        self.count, self.batch, given = views.shape
        if misfit := misfit_of_triton(arguments):
            raise ValueError(f"{misfit}; backend='reference' takes any")
        # Zeros at their ends make rows that are copied 16 bytes at a time. Others would come by way
        # of registers, of which there are too few.
        self.dim = cdiv(given, 16) * 16
        self.meetings = plan.Meetings(tuple(pairs), self.count, all_views)
        self.first, self.shared = first, candidates is None
        self.views = self._whole_rows(views).contiguous()
        self.clips = self.views
        if candidates is not None:
            self.clips = self._whole_rows(candidates).contiguous()
        self.bank = None if bank is None else self._whole_rows(bank)
        if bank is not None and (self.bank.stride(1) != 1 or self.bank.stride(0) % 16 > 0):
            self.bank = self.bank.contiguous()
        self.bank_rows, self.bank_stride = (
            (0, 0) if bank is None else (len(bank), self.bank.stride(0))
        )
        self.columns = block_size(self.dim, MOST_COLUMNS)
        self.sum_dtype = sum_dtype_of(views.dtype)
        kinds = {t.dtype for t in (self.views, self.clips, self.bank) if t is not None}
        self.dtype = kinds.pop() if len(kinds) == 1 else self.sum_dtype
        self.row_bytes = max(256, self.columns * self.dtype.itemsize)
        types = Types(self.dtype, self.sum_dtype)
        self.types, self.product_by_product = types.constants, types.product_by_product
        self.temperature = on_device(temperature, views.device, self.sum_dtype)
        self.weights = plan.weight_table(self.meetings, self.sum_dtype, views.device)
        self.largest = self._largest()

    def _whole_rows(self, tensor: Tensor) -> Tensor:
        missing = self.dim - tensor.shape[-1]
        return F.pad(tensor, (0, missing)) if missing else tensor

    def _largest(self) -> Tensor:
        """The largest norm of any row, NaN if one is NaN."""
        tensors = [self.views] if self.shared else [self.views, self.clips]
        if self.bank_rows:
            tensors.append(self.bank)
        norms = [torch.linalg.vector_norm(t, dim=-1, dtype=self.sum_dtype).amax() for t in tensors]
        return norms[0] if len(norms) == 1 else torch.stack(norms).amax()

    def pieces(self, most: int) -> dict[str, int]:
        return column_pieces(self.columns, self.dim, most)

    def new_sums(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=self.sum_dtype, device=self.views.device)


def _region_sums(call: _Call) -> tuple[Tensor, Tensor, Tensor]:
    """How many splits there are, (P, P + 1); and their largest similarities and sums."""
    blocks = _region_blocks(call)
    sizes = plan.Sizes(
        call.batch,
        call.clips.shape[1],
        call.bank_rows,
        max(blocks["BLOCK_M"], blocks["BLOCK_N"]),
        _programs(call.views),
    )
    regions = plan.regions(call.meetings, call.shared, sizes, call.views.device)
    shape = call.count, call.count + 1, regions.splits, call.batch
    tops, totals = call.new_sums(*shape), call.new_sums(*shape)
    jobs = [(regions.of_clips, call.clips, call.clips.shape[1], call.dim, call.first)]
    if len(regions.of_bank):
        jobs.append(
            (regions.of_bank, call.bank, call.bank_rows, call.bank_stride, programs.NOWHERE.value)
        )
    for table, others, rows, stride, own in jobs:
        programs.region_sums[(len(table),)](
            call.views, others, call.temperature, call.largest, table, tops, totals,
            call.batch, rows, call.dim, stride, own, call.count + 1, regions.splits,
            BOTH_WAYS=regions.both_ways and others is call.clips, **call.types, **blocks,
        )  # fmt: skip
    return regions.counts, tops, totals


class _Pulls:
    """The gradients of all kinds of rows, from the factors of the anchors."""

    def __init__(
        self,
        call: _Call,
        columns: int,
        grad: Tensor,
        excesses: Tensor,
        shifts: Tensor,
        log_sums: Tensor,
    ):
        self.call, self.columns, self.excesses = call, columns, excesses
        self.upstream = grad.detach()
        blocks = 128  # no smaller than a tile
        width = cdiv(call.batch, blocks) * blocks
        self.factors = call.new_sums(2, call.count, call.count + 1, width)
        triton_factors.anchor_factors[(width // blocks, call.count)](
            call.weights, shifts, log_sums, call.temperature, call.largest, self.factors,
            call.batch, call.count, width,
            ALL_VIEWS=call.meetings.all_views, SUM=call.types["SUM"], BLOCK_B=blocks, num_warps=4,
        )  # fmt: skip

    def of_views(self, want_products: bool) -> tuple[Tensor, Tensor]:
        """Their gradient, and parts of the sum over all logits of each with its gradient."""
        call = self.call
        table = plan.source_table(call.meetings, True, call.shared, call.views.device)
        others = self.factors if call.shared else None
        return self._gradients(
            call.views, call.clips, call.bank, table, self.factors, others, call.first, 0,
            want_products,
        )  # fmt: skip

    def of_candidates(self) -> Tensor:
        call = self.call
        table = plan.source_table(call.meetings, False, True, call.views.device)
        gradient, *_ = self._gradients(
            call.clips, call.views, None, table, None, self.factors, -call.first, 0, False
        )
        return gradient

    def of_bank(self) -> Tensor:
        call = self.call
        table = plan.bank_sources(call.meetings, call.views.device)
        rows = call.bank[None]
        own, slot = programs.NOWHERE.value, call.count
        gradient, *_ = self._gradients(
            rows, call.views, None, table, None, self.factors, own, slot, False
        )
        return gradient[0]

    def _gradients(
        self, targets, others, bank, table, target_factors, other_factors, own, slot, want_products
    ) -> tuple[Tensor, Tensor]:
        call, types = self.call, self.call.types
        kinds, rows, _ = targets.shape
        clips = others.shape[1]
        gradient = torch.empty(targets.shape, dtype=targets.dtype, device=targets.device)
        blocks = _gradient_blocks(call)
        tiles = cdiv(rows, blocks["BLOCK_M"])
        most = cdiv(call.count * clips + call.bank_rows, blocks["BLOCK_N"])
        splits = max(1, min(most, _programs(call.views) // max(kinds * tiles, 1)))
        sums = call.new_sums(splits, kinds, rows, call.dim)
        parts = call.new_sums(splits, kinds, rows) if want_products else None
        backward_programs.gradient_sums[(tiles, kinds, splits)](
            targets, others, bank, call.temperature, call.largest, table,
            target_factors, other_factors, sums, parts,
            rows, clips, call.bank_rows, call.dim, targets.stride(1), call.bank_stride,
            self.factors.shape[3], call.count, own, slot, splits,
            ROUND=ELEMENTS[call.dtype], **types, **blocks,
        )  # fmt: skip
        products = call.new_sums(kinds, cdiv(rows, _ROWS))
        backward_programs.gradients[(products.shape[1], kinds)](
            targets, others, call.temperature, call.largest, self.upstream, call.weights,
            self.excesses, self.factors, sums, parts, gradient, products,
            rows, clips, call.batch, call.dim, targets.stride(1), self.factors.shape[3], call.count,
            own, splits,
            AS_ANCHORS=target_factors is not None,
            AS_KEYS=other_factors is not None and slot == 0,
            SUM=types["SUM"], BLOCK_B=_ROWS, BLOCK_D=block_size(call.dim, 128), num_warps=4,
            maxnreg=255,
        )  # fmt: skip
        return gradient[..., : self.columns].contiguous(), products


def _programs(tensor: Tensor) -> int:
    """How many programs the work is cut into: two for each multiprocessor."""
    return 2 * multiprocessors(tensor)


# Blocks. All were chosen by what ptxas makes of them for sm_80 and sm_90: no spills and tensor-core
# instructions. Unmeasured yet.


@tunable("multi_view.regions")
def _region_blocks(call: _Call) -> dict[str, int]:
    """BLOCK_N anchors stay where they are, BLOCK_M others go by."""
    if call.product_by_product:
        side = 32 if call.sum_dtype == torch.float64 else 64
        return call.pieces(16) | {
            "BLOCK_M": side,
            "BLOCK_N": side,
            "num_warps": 8,
        }
    row_bytes = call.row_bytes
    return call.pieces(MOST_COLUMNS) | {
        "BLOCK_M": 64 if row_bytes <= 1024 else 32,
        "BLOCK_N": 128 if row_bytes <= 512 else 32,
        "num_warps": 4 if row_bytes <= 256 else 8,  # the one leaves room for two programs at once
        "num_stages": {256: 3, 2048: 1}.get(row_bytes, 2),
    }


@tunable("multi_view.gradient")
def _gradient_blocks(call: _Call) -> dict[str, int]:
    """BLOCK_M rows stay where they are, BLOCK_N others go by."""
    if call.product_by_product:
        few = call.row_bytes <= 512
        sides = {"BLOCK_M": 64 if few else 16, "BLOCK_N": 16}
        return call.pieces(32 if few else 64) | sides | {"num_warps": 8}
    if call.row_bytes == 512 and not wide_products():
        sides = {"BLOCK_M": 64, "BLOCK_N": 64, "num_stages": 2}
    else:
        sides = {
            256: {"BLOCK_M": 128, "BLOCK_N": 64, "num_stages": 3},
            512: {"BLOCK_M": 128, "BLOCK_N": 32, "num_stages": 3},
            1024: {"BLOCK_M": 64, "BLOCK_N": 32, "num_stages": 2},
            2048: {"BLOCK_M": 32, "BLOCK_N": 16, "num_stages": 2},
        }[call.row_bytes]
    return call.pieces(MOST_COLUMNS) | sides | {"num_warps": 8}
