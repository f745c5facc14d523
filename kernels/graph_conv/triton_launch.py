"""The masked graph convolution in Triton: what is launched, with which blocks and scratch memory.

Bytes a row (t, v), with e the size of an element: forward (C_in + C_out) e, backward
3 (C_in + C_out) e. Each of three kernels reads grad: convolve to write dx, weight_gradient with x
for dW, joint_gradients with x for db and dA. That holds up to the width of a block of channels;
where there are several, the others find what they read in the cache.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
from torch import Tensor

from msclr.kernels._triton import Types, block_size, check_dtype, multiprocessors
from msclr.kernels.graph_conv import triton_kernels as programs
from msclr.kernels.graph_conv.operator import Arguments, empty_activations


def forward(*given: Tensor | None) -> Tensor:
    """``msclr::graph_conv_triton``; see :func:`msclr.kernels.masked_graph_conv`."""
    call = _Call(Arguments(*given))
    with torch.cuda.device_of(call.x):
        return _convolve(call)[0]


def forward_with_statistics(arguments: Arguments) -> tuple[Tensor, Tensor]:
    """:func:`forward`, and what a batch norm over the real joints wants to know of y.

    Returns:
        y, and (2, C_out) float32 (float64 of float64): each channel's sum and sum of squares over
        samples, frames and real joints, found in the pass that makes y. They are sums of y as it is
        stored, rounded to its dtype: what another pass over y would find.
    """
    call = _Call(arguments)
    with torch.cuda.device_of(call.x):
        y, parts = _convolve(call, statistics=True)
        return y, parts.sum(0)


def backward(grad: Tensor, *given: Tensor | bool | None) -> tuple[Tensor, ...]:
    """``msclr::graph_conv_triton_backward``: the gradients, empty tensors where unwanted."""
    arguments = Arguments(*given[:7])
    want_x, want_weight, want_bias, want_adjacency = given[7:]
    call = _Call(arguments)
    x, weight, bias, adjacency, *_ = arguments
    dx, dweight, dadjacency = x.new_empty(0), weight.new_empty(0), adjacency.new_empty(0)
    dbias = (x if bias is None else bias).new_empty(0)
    want_bias = want_bias and bias is not None
    with torch.cuda.device_of(x):
        grad = _channels_together(grad)
        lists = _list_neighbours(call) if want_weight or want_bias else None
        # dx comes last: the sums of the others are done with, and their memory is free for it.
        if want_weight:
            dweight = _weight_gradient(call, lists, grad)
        if want_bias or want_adjacency:
            grad_sums, link_sums = _joint_sums(call, grad, want_adjacency)
            if want_bias:
                dbias = _bias_gradient(call, lists, grad_sums)
            if want_adjacency:
                dadjacency = _adjacency_gradient(call, grad_sums, link_sums)
            del grad_sums, link_sums
        if want_x:
            dx, _ = _convolve(call, grad)
    return dx, dweight, dbias, dadjacency


class _Call:
    """The arguments of a call as the programs want them, and the sizes and types they imply."""

    def __init__(self, arguments: Arguments):
        self.x, self.weight, *small = arguments
        check_dtype("x", self.x)
        self.bias, self.adjacency, self.layout_index, self.joint_counts, self.support = (
            None if tensor is None else tensor.contiguous() for tensor in small
        )
        self.samples, self.channels_in, self.frames, self.joints = self.x.shape
        self.layouts = self.adjacency.shape[0] if self.adjacency.dim() == 4 else 1
        self.partitions = self.adjacency.shape[-3]
        self.channels_out = self.weight.shape[0] // self.partitions
        types = Types(self.x.dtype)
        self.sum_dtype, self.wants_registers = types.sum_dtype, types.product_by_product
        self.types = types.constants | {"K": self.partitions}

    def new_sums(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=self.sum_dtype, device=self.x.device)

    def new_integers(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.int32, device=self.x.device)

    def weight_strides(self) -> tuple[int, int, int]:
        """Of partitions, output and input channels."""
        o, c = self.weight.stride()
        return self.channels_out * o, o, c


class _Neighbours(NamedTuple):
    """See triton_kernels. V places a list: only the device knows how many are taken."""

    source: Tensor  # (L, K, V, V) int32
    value: Tensor  # (L, K, V, V)
    total: Tensor  # (L, K, V)
    longest: Tensor  # (L, K) int32


def _list_neighbours(call: _Call, transposed: bool = False) -> _Neighbours:
    shape = call.layouts, call.partitions, call.joints, call.joints
    lists = _Neighbours(
        call.new_integers(*shape),
        call.new_sums(*shape),
        call.new_sums(*shape[:3]),
        call.new_integers(*shape[:2]),
    )
    programs.list_neighbours[(call.layouts * call.partitions,)](
        call.adjacency, call.support, call.joint_counts, *lists, call.partitions, call.joints,
        TRANSPOSED=transposed, BLOCK_V=block_size(call.joints, 128), BLOCK_W=16, num_warps=4,
    )  # fmt: skip
    return lists


def _convolve(
    call: _Call, grad: Tensor | None = None, statistics: bool = False
) -> tuple[Tensor, Tensor | None]:
    """y of x, or dx of grad: the same with the graph and the weight transposed.

    Returns:
        it, and its statistics in parts, (tiles, 2, C), where they are asked for.
    """
    given, bias, channels = call.x, call.bias, (call.channels_in, call.channels_out)
    w_k, w_o, w_c = call.weight_strides()
    if grad is not None:
        given, bias, channels, w_o, w_c = grad, None, channels[::-1], w_c, w_o
    given = _channels_together(given)
    made = empty_activations(call.x, channels[1])
    blocks = _convolve_blocks(call, *channels)
    tiles = call.samples * triton.cdiv(call.frames * call.joints, blocks["BLOCK_M"])
    parts = call.new_sums(tiles, 2, channels[1]) if statistics else None
    if made.numel():
        lists = _list_neighbours(call, transposed=grad is not None)
        programs.convolve[(tiles * triton.cdiv(channels[1], blocks["BLOCK_N"]),)](
            given, call.weight, bias, *lists, call.layout_index, call.joint_counts, made, parts,
            *channels, call.frames, call.joints, call.layouts,
            *_row_strides(given), w_k, w_o, w_c, *made.stride(), **call.types, **blocks,
        )  # fmt: skip
    return made, parts


def _weight_gradient(call: _Call, lists: _Neighbours, grad: Tensor) -> Tensor:
    x = _channels_together(call.x)
    blocks = _weight_blocks(call)
    groups = call.partitions // blocks["GROUP"]
    pieces = _channel_pieces(call, blocks)
    tiles = call.samples * triton.cdiv(call.frames * call.joints, blocks["BLOCK_M"])
    splits = _splits(call, tiles, pieces * groups, at_once=16 // blocks["num_warps"])
    sums = call.new_sums(splits, call.partitions, call.channels_out, call.channels_in)
    programs.weight_gradient[(splits, pieces, groups)](
        x, grad, lists.source, lists.value, lists.longest, call.layout_index, call.joint_counts,
        sums, call.channels_in, call.channels_out, call.samples, call.frames, call.joints,
        call.layouts, *_row_strides(x), *_row_strides(grad), **call.types, **blocks,
    )  # fmt: skip
    return sums.sum(0).view(call.weight.shape).to(call.weight.dtype)


def _joint_sums(
    call: _Call, grad: Tensor, want_adjacency: bool
) -> tuple[Tensor | None, Tensor | None]:
    """The sum of grad, (L, 1, V, C_out), for what has a bias; and dA without it, (L, K, V, V)."""
    x = _channels_together(call.x)
    blocks = _joint_blocks(call)
    rows, v = blocks["BLOCK_R"], call.joints
    groups = call.partitions // blocks["GROUP"] if want_adjacency else 1
    pieces = _channel_pieces(call, blocks)
    tiles = call.samples * triton.cdiv(call.frames, rows // v)
    splits = _splits(call, tiles, pieces * groups * call.layouts, at_once=1)
    grad_sums = link_sums = None
    if call.bias is not None:
        grad_sums = call.new_sums(splits, call.layouts, rows, call.channels_out)
    if want_adjacency:
        link_sums = call.new_sums(pieces * splits, call.layouts, call.partitions, rows, rows)
    programs.joint_gradients[(splits, call.layouts * groups, pieces)](
        x, grad, call.weight, call.layout_index, call.joint_counts, grad_sums, link_sums,
        call.channels_in, call.channels_out, call.samples, call.frames, v, call.layouts,
        *_row_strides(x), *_row_strides(grad), *call.weight_strides(), **call.types, **blocks,
    )  # fmt: skip
    used = rows // v * v  # the rows of whole frames, (frame, joint)
    if grad_sums is not None:
        grad_sums = grad_sums.sum(0)[:, :used].unflatten(1, (1, -1, v)).sum(2)
    if link_sums is not None:
        links = link_sums[..., :used, :used].unflatten(4, (-1, v)).unflatten(3, (-1, v))
        link_sums = links.diagonal(dim1=3, dim2=5).sum((0, -1))  # of a frame with itself
    return grad_sums, link_sums


def _bias_gradient(call: _Call, lists: _Neighbours, grad_sums: Tensor) -> Tensor:
    dbias = (lists.total[..., None] * grad_sums).sum((0, 2))  # (K, C_out)
    return dbias.flatten().to(call.bias.dtype)


def _adjacency_gradient(call: _Call, grad_sums: Tensor | None, link_sums: Tensor) -> Tensor:
    if grad_sums is not None:
        bias = call.bias.view(call.partitions, 1, -1)
        link_sums = link_sums + (bias * grad_sums).sum(3)[:, :, None]  # (L, K, V, V)
    if call.support is not None:
        link_sums = link_sums.masked_fill(~call.support.view_as(link_sums), 0)
    if call.joint_counts is not None:
        joints = torch.arange(call.joints, device=link_sums.device)
        real = joints < call.joint_counts[:, None, None]  # (L, 1, V)
        link_sums = link_sums.masked_fill(~(real[..., None] & real[:, :, None]), 0)
    return link_sums.view_as(call.adjacency).to(call.adjacency.dtype)


def _channels_together(x: Tensor) -> Tensor:
    """x with its channels side by side, since rows are gathered, each several times."""
    if x.stride(1) == 1 or x.shape[1] == 1:
        return x
    return x.contiguous(memory_format=torch.channels_last)


def _row_strides(x: Tensor) -> tuple[int, int, int]:
    """Of samples, frames and joints."""
    return x.stride(0), x.stride(2), x.stride(3)


def _channel_pieces(call: _Call, blocks: dict[str, int]) -> int:
    """How many blocks of C_out x C_in there are."""
    inward = triton.cdiv(call.channels_in, blocks["BLOCK_C"])
    return inward * triton.cdiv(call.channels_out, blocks["BLOCK_O"])


def _splits(call: _Call, tiles: int, programs_a_split: int, at_once: int) -> int:
    """Into how many shares the tiles go, for a multiprocessor to have so many programs at once."""
    processors = multiprocessors(call.x)
    return max(1, min(tiles, at_once * processors // programs_a_split))


# Blocks. All were chosen by what ptxas makes of them for sm_80 and sm_90: no spills, tensor-core
# instructions, and as many rows in flight on a multiprocessor as registers allow. Unmeasured yet.


def _convolve_blocks(call: _Call, channels_in: int, channels_out: int) -> dict[str, int]:
    narrow = max(channels_in, channels_out) <= 16
    rows, most_out, warps, registers = 128, 64, 8, 80 if narrow else 128
    if call.wants_registers:
        rows, most_out, warps, registers = 64, 32, 4, 255
    return {
        "BLOCK_M": rows,
        "BLOCK_N": block_size(channels_out, most_out),
        "BLOCK_C": block_size(channels_in, 32),
        "num_warps": warps,
        # Without a limit ptxas spills now and then, to stay below one of its own.
        "maxnreg": registers,
    }


def _weight_blocks(call: _Call) -> dict[str, int]:
    if call.wants_registers:
        rows, most_in, most_out, most_together, warps = 32, 16, 32, 3, 4
    elif call.channels_out <= 32:
        rows, most_in, most_out, most_together, warps = 64, 32, 32, 5, 4
    else:
        rows, most_in, most_out, most_together, warps = 128, 32, 64, 5, 8
    return {
        "GROUP": call.partitions if call.partitions <= most_together else 1,
        "BLOCK_M": rows,
        "BLOCK_C": block_size(call.channels_in, most_in),
        "BLOCK_O": block_size(call.channels_out, most_out),
        "num_warps": warps,
    }


def _joint_blocks(call: _Call) -> dict[str, int]:
    large = call.joints > 64
    together = call.partitions <= 3 and not large and not call.wants_registers
    most = 16 if large and call.wants_registers else 32
    return {
        "GROUP": call.partitions if together else 1,
        "BLOCK_R": 128 if large else 64,
        "BLOCK_C": block_size(call.channels_in, most),
        "BLOCK_O": block_size(call.channels_out, most),
        "num_warps": 16 if large and call.wants_registers else 8,
    }
