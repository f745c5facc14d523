"""The masked graph convolution in Triton: what is launched, with which blocks and scratch memory.

Bytes a row (t, v), with e the size of an element: forward (C_in + C_out) e, backward
3 (C_in + C_out) e. Each of three kernels reads grad: convolve to write dx, weight_gradient with x
for dW and db, joint_gradients with x for dA. That holds up to the width of a block of channels, and
for one partition of dA; the others find what they read in the cache.
"""

from __future__ import annotations

import torch
from torch import Tensor

from msclr.kernels._block_sizes import tunable
from msclr.kernels._triton import Types, block_size, cdiv, check_dtype, multiprocessors
from msclr.kernels._triton_sums import sum_of_parts
from msclr.kernels.graph_conv import triton_kernels as programs
from msclr.kernels.graph_conv.operator import Arguments, empty_activations
from msclr.kernels.graph_conv.triton_neighbours import Lists


def forward(*given: Tensor | None) -> Tensor:
    """``msclr::graph_conv_triton``; see :func:`msclr.kernels.masked_graph_conv`."""
    call = _Call(Arguments(*given))
    with torch.cuda.device_of(call.x):
        return _convolve(call)


def backward(grad: Tensor, *given: Tensor | bool | None) -> tuple[Tensor, ...]:
    """``msclr::graph_conv_triton_backward``: the gradients, empty tensors where unwanted."""
    arguments = Arguments(*given[:7])
    want_x, want_weight, want_bias, want_adjacency = given[7:]
    call = _Call(arguments)
    x, _, bias, *_ = arguments
    dx = dweight = dbias = dadjacency = None
    want_bias = want_bias and bias is not None
    with torch.cuda.device_of(x):
        grad = _channels_together(grad)
        # dx comes last: the sums of the others are done with, and their memory is free for it.
        if want_weight or want_bias:
            made = _parameter_gradients(call, grad)
            dweight = made[0] if want_weight else dweight
            dbias = made[1] if want_bias else dbias
        if want_adjacency:
            dadjacency = _adjacency_gradient(call, grad)
        if want_x:
            dx = _convolve(call, grad)
    found = dx, dweight, dbias, dadjacency
    return tuple(x.new_empty(0) if made is None else made for made in found)


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
        graphs = self.layouts * self.partitions
        self.lists = Lists(
            self.adjacency, self.support, self.joint_counts, graphs, self.partitions, self.joints
        )

    def graph(self, transposed: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """The adjacency, its lists of neighbours and the longest of them."""
        return self.adjacency, *self.lists.neighbours(transposed)

    def new_sums(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=self.sum_dtype, device=self.x.device)

    def weight_strides(self) -> tuple[int, int, int]:
        """Of partitions, output and input channels."""
        o, c = self.weight.stride()
        return self.channels_out * o, o, c


def _convolve(call: _Call, grad: Tensor | None = None) -> Tensor:
    """y of x, or dx of grad: the same with the graph and the weight transposed."""
    given, bias, channels = call.x, call.bias, (call.channels_in, call.channels_out)
    w_k, w_o, w_c = call.weight_strides()
    if grad is not None:
        given, bias, channels, w_o, w_c = grad, None, channels[::-1], w_c, w_o
    given = _channels_together(given)
    made = empty_activations(call.x, channels[1])
    blocks = _convolve_blocks(call, *channels)
    tiles = call.samples * cdiv(call.frames * call.joints, blocks["BLOCK_M"])
    if made.numel():
        programs.convolve[(tiles * cdiv(channels[1], blocks["BLOCK_N"]),)](
            given, call.weight, bias, *call.graph(grad is not None), call.layout_index,
            call.joint_counts, made, *channels, call.frames, call.joints, call.layouts,
            *_row_strides(given), w_k, w_o, w_c, *made.stride(),
            TRANSPOSED=grad is not None, **call.types, **blocks,
        )  # fmt: skip
    return made


def _parameter_gradients(call: _Call, grad: Tensor) -> tuple[Tensor, Tensor | None]:
    """Of weight and bias."""
    x, weight = _channels_together(call.x), call.weight
    blocks = _weight_blocks(call)
    groups = call.partitions // blocks["GROUP"]
    pieces = _channel_pieces(call, blocks)
    tiles = call.samples * cdiv(call.frames * call.joints, blocks["BLOCK_M"])
    splits = _splits(call, tiles, pieces * groups, at_once=16 // blocks["num_warps"])
    sums = call.new_sums(splits, weight.numel() + len(weight))
    programs.weight_gradient[(splits, pieces, groups)](
        x, grad, *call.graph(), call.layout_index, call.joint_counts,
        sums, call.channels_in, call.channels_out, call.samples, call.frames, call.joints,
        call.layouts, *_row_strides(x), *_row_strides(grad), weight.numel(),
        **call.types, **blocks,
    )  # fmt: skip
    dweight = weight.new_empty(weight.shape)
    dbias = None if call.bias is None else call.bias.new_empty(call.bias.shape)
    sum_of_parts(sums, dweight, dbias)
    return dweight, dbias


def _adjacency_gradient(call: _Call, grad: Tensor) -> Tensor:
    x = _channels_together(call.x)
    blocks = _joint_blocks(call)
    rows, v, graphs = blocks["BLOCK_R"], call.joints, call.layouts * call.partitions
    pieces = _channel_pieces(call, blocks)
    tiles = call.samples * cdiv(call.frames, rows // v)
    splits = _splits(call, tiles, pieces * graphs, at_once=2)
    links = call.new_sums(pieces * splits, graphs, rows, rows)
    programs.joint_gradients[(splits, graphs, pieces)](
        x, grad, call.weight, call.bias, call.layout_index, call.joint_counts, links,
        call.channels_in, call.channels_out, call.samples, call.frames, v, call.layouts,
        *_row_strides(x), *_row_strides(grad), *call.weight_strides(), **call.types, **blocks,
    )  # fmt: skip
    return call.lists.gradient(links, rows)


def _channels_together(x: Tensor) -> Tensor:
    """x with its channels side by side, since rows are gathered, each several times."""
    if x.stride(1) == 1 or x.shape[1] == 1:
        return x
    return x.contiguous(memory_format=torch.channels_last)


def _row_strides(x: Tensor) -> tuple[int, int, int]:
    """Of samples, frames and joints."""
    n, _, t, v = x.stride()
    return n, t, v


def _channel_pieces(call: _Call, blocks: dict[str, int]) -> int:
    """How many blocks of C_out x C_in there are."""
    inward = cdiv(call.channels_in, blocks["BLOCK_C"])
    return inward * cdiv(call.channels_out, blocks["BLOCK_O"])


def _splits(call: _Call, tiles: int, programs_a_split: int, at_once: int) -> int:
    """Into how many shares the tiles go, for a multiprocessor to have so many programs at once."""
    processors = multiprocessors(call.x)
    return max(1, min(tiles, at_once * processors // programs_a_split))


# Blocks. All were chosen by what ptxas makes of them for sm_80 and sm_90: no spills, tensor-core
# instructions, and as many rows in flight on a multiprocessor as registers allow. Unmeasured yet.


@tunable("graph_conv.convolve")
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
        # Without a limit ptxas sometimes spills to stay below one it sets itself.
        "maxnreg": registers,
    }


@tunable("graph_conv.weight_gradient")
def _weight_blocks(call: _Call) -> dict[str, int]:
    if call.wants_registers:
        rows, most_in, most_out, most_together, warps = 32, 16, 32, 3, 4
    elif call.channels_out <= 32:
        rows, most_in, most_out, most_together, warps = 64, 32, 32, 5, 4
    else:
        rows = 128 if call.x.dtype.itemsize == 2 else 64
        most_in, most_out, most_together, warps = 32, 64, 5, 8
    return {
        "GROUP": call.partitions if call.partitions <= most_together else 1,
        "BLOCK_M": rows,
        "BLOCK_C": block_size(call.channels_in, most_in),
        "BLOCK_O": block_size(call.channels_out, most_out),
        "num_warps": warps,
    }


@tunable("graph_conv.joint_gradients")
def _joint_blocks(call: _Call) -> dict[str, int]:
    large = call.joints > 64
    most = 16 if large and call.wants_registers else 32
    return {  # so that two programs fit a multiprocessor
        "BLOCK_R": 128 if large else 64,
        "BLOCK_C": block_size(call.channels_in, most),
        "BLOCK_O": block_size(call.channels_out, most),
        "num_warps": (8 if large else 4) * (2 if call.wants_registers else 1),
    }
