"""The graph convolution over packed rows in Triton: launches, with their blocks and scratch memory.

Bytes a row, with e the size of an element: forward (C_in + C_out) e; backward to x
(2 C_out + C_in) e, to the weight and to the adjacency (2 C_out + C_in) e each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from msclr.kernels._block_sizes import tunable
from msclr.kernels._segments import rows_in, triples
from msclr.kernels._triton import block_size, cdiv
from msclr.kernels._triton_rows import RowTypes, plan_rows, splits_of
from msclr.kernels._triton_sums import sum_of_parts
from msclr.kernels.block import triton_graph as programs
from msclr.kernels.graph_conv.triton_neighbours import Lists


class PackedConv(NamedTuple):
    """A graph convolution over packed rows; without an adjacency every joint has itself alone."""

    x: Tensor  # (R, C_in), contiguous
    weight: Tensor  # (K*C_out, C_in)
    bias: Tensor | None
    adjacency: Tensor | None
    support: Tensor | None
    segments: Sequence[int]
    partitions: int
    stride: int
    counts: Tensor | None = None  # (L,): samples that are there

    @property
    def channels(self) -> tuple[int, int]:
        """C_in and C_out."""
        return self.weight.shape[1], self.weight.shape[0] // self.partitions

    @property
    def joints(self) -> int:
        """Of the largest layout."""
        return max((v for _, _, v in triples(self.segments)), default=1)

    def lists(self) -> Lists:
        """Of the adjacency's entries."""
        table = plan_rows(self.segments, 1, False, 128, self.x.device).table
        graphs = len(self.segments) // 3 * self.partitions
        return Lists(
            self.adjacency, self.support, None, graphs, self.partitions, self.joints, table
        )

    def graph(self, transposed: bool) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """The adjacency, its lists of neighbours and the longest of them."""
        if self.adjacency is None:
            return None, None, None
        return self.adjacency, *self.lists().neighbours(transposed)

    def weight_strides(self) -> tuple[int, int, int]:
        """Of partitions, output and input channels."""
        o, c = self.weight.stride()
        return self.channels[1] * o, o, c


class Gradient(NamedTuple):
    """g = alpha d + beta h + gamma."""

    d: Tensor
    h: Tensor
    coefficients: Tensor


def forward(conv: PackedConv, want_sums: bool) -> tuple[Tensor, Tensor | None]:
    """h, and its sums (tiles, 2, C_out)."""
    w_k, w_o, w_c = conv.weight_strides()
    types = RowTypes(conv.x.dtype)
    blocks = _blocks(types, *conv.channels)
    plan = plan_rows(conv.segments, conv.stride, False, blocks["BLOCK_M"], conv.x.device)
    read, channels = conv.channels
    made = conv.x.new_empty(rows_in(conv.segments, conv.stride), channels)
    sums = types.new_sums(conv.x, plan.tiles, 2, channels) if want_sums else None
    if plan.tiles:
        programs.convolve[(plan.tiles * cdiv(channels, blocks["BLOCK_N"]),)](
            conv.x, None, None, conv.weight, conv.bias, *conv.graph(False), plan.table,
            conv.counts, made, sums, None, None, read, channels, w_k, w_c, w_o,
            K=conv.partitions, STRIDE=conv.stride, BACKWARD=False, ENTRIES=plan.entries,
            **types.constants, **blocks,
        )  # fmt: skip
    return made, sums


def to_x(conv: PackedConv, g: Gradient, addend: Tensor | None, gate: Tensor | None) -> Tensor:
    """The gradient of x, to which ``addend`` is added where ``gate`` > 0."""
    w_k, w_o, w_c = conv.weight_strides()
    types = RowTypes(conv.x.dtype)
    channels, read = conv.channels
    blocks = _blocks(types, read, channels)
    plan = plan_rows(conv.segments, conv.stride, True, blocks["BLOCK_M"], conv.x.device)
    made = conv.x.new_empty(conv.x.shape)
    if plan.tiles:
        programs.convolve[(plan.tiles * cdiv(channels, blocks["BLOCK_N"]),)](
            *g, conv.weight, None, *conv.graph(True), plan.table, conv.counts, made, None,
            addend, gate, read, channels, w_k, w_o, w_c, K=conv.partitions, STRIDE=conv.stride,
            BACKWARD=True, ENTRIES=plan.entries, **types.constants, **blocks,
        )  # fmt: skip
    return made


def to_weight(conv: PackedConv, g: Gradient) -> tuple[Tensor, Tensor]:
    """The gradients of weight and bias; the latter empty where there is none."""
    types = RowTypes(conv.x.dtype)
    blocks = _weight_blocks(types, conv)
    plan = plan_rows(conv.segments, conv.stride, False, blocks["BLOCK_M"], conv.x.device)
    pieces = _pieces(conv, blocks)
    groups = conv.partitions // blocks["GROUP"]
    splits = splits_of(conv.x, plan.tiles, pieces * groups, 16 // blocks["num_warps"])
    size = conv.weight.numel()
    sums = types.new_sums(conv.x, splits, size + conv.weight.shape[0])
    if splits:
        programs.weight_gradient[(splits, pieces, groups)](
            *g, conv.x, *conv.graph(False), plan.table, conv.counts, sums, *conv.channels,
            plan.tiles, size,
            K=conv.partitions, STRIDE=conv.stride, ENTRIES=plan.entries,
            **types.constants, **blocks,
        )  # fmt: skip
    dweight = conv.weight.new_empty(conv.weight.shape)
    dbias = None if conv.bias is None else conv.bias.new_empty(conv.bias.shape)
    sum_of_parts(sums, dweight, dbias)
    return dweight, conv.x.new_empty(0) if dbias is None else dbias


def to_adjacency(conv: PackedConv, g: Gradient) -> Tensor:
    """The gradient of the adjacency, 0 outside of the support."""
    types = RowTypes(conv.x.dtype)
    blocks = _joint_blocks(types, conv)
    rows, segments = blocks["BLOCK_R"], len(conv.segments) // 3
    plan = plan_rows(conv.segments, 1, False, 128, conv.x.device)
    pieces = _pieces(conv, blocks)
    tiles = max((cdiv(n * t, rows // v) for n, t, v in triples(conv.segments)), default=0)
    splits = splits_of(conv.x, tiles, pieces * conv.partitions * segments, at_once=2)
    links = types.new_sums(conv.x, pieces * splits, segments * conv.partitions, rows, rows)
    if splits:
        programs.joint_gradients[(splits, segments * conv.partitions, pieces)](
            *g, conv.x, conv.weight, conv.bias, plan.table, conv.counts, links, *conv.channels,
            *conv.weight_strides(), K=conv.partitions, **types.constants, **blocks,
        )  # fmt: skip
    return conv.lists().gradient(links, rows)


def _pieces(conv: PackedConv, blocks: dict[str, int]) -> int:
    """How many blocks of C_out x C_in there are."""
    inner, out = conv.channels
    return cdiv(inner, blocks["BLOCK_C"]) * cdiv(out, blocks["BLOCK_O"])


# Blocks. All were chosen by what ptxas makes of them for sm_80 and sm_90: no spills, and
# tensor-core instructions where there are any. Unmeasured yet.


@tunable("block.graph_conv")
def _blocks(types: RowTypes, read: int, made: int) -> dict[str, int]:
    rows, most_made, most_read, warps = types.pick(
        half=(128, 64, 32, 8), single=(64, 64, 32, 8), double=(64, 32, 16, 4)
    )
    return {
        "BLOCK_M": rows,
        "BLOCK_N": block_size(made, most_made),
        "BLOCK_C": block_size(read, most_read),
        "num_warps": warps,
        "maxnreg": 168
        if types.half
        else 255,  # without a limit ptxas sometimes spills to stay below one it sets itself
    }


@tunable("block.graph_weight_gradient")
def _weight_blocks(types: RowTypes, conv: PackedConv) -> dict[str, int]:
    rows, most_in, most_out, warps = types.pick(
        half=(64, 32, 32, 4), single=(32, 16, 32, 4), double=(32, 16, 16, 4)
    )
    return {
        "GROUP": conv.partitions if conv.partitions <= 3 else 1,
        "BLOCK_M": rows,
        "BLOCK_C": block_size(conv.channels[0], most_in),
        "BLOCK_O": block_size(conv.channels[1], most_out),
        "num_warps": warps,
        "maxnreg": 255,
    }


@tunable("block.joint_gradients")
def _joint_blocks(types: RowTypes, conv: PackedConv) -> dict[str, int]:
    large = conv.joints > 64
    return {  # so that two programs fit a multiprocessor
        "BLOCK_R": 128 if large else 64,
        "BLOCK_C": block_size(conv.channels[0], 32 if types.half else 16),
        "BLOCK_O": block_size(conv.channels[1], 32 if types.half else 16),
        "num_warps": 8 if large else 4,
        "maxnreg": 255,
    }
