"""A block of ST-GCN in Triton: ``fused.py`` with parts that run on a GPU.

Sums over rows are made tile by tile in float32 (float64 of float64) and added up in float64 by the
one program that folds the norm, so they have a fixed order. Scratch memory holds two numbers for
each tile and channel, and the parts of the parameters' gradients.

Bytes of a row of C channels, with e the size of an element and x the residual: forward 7 C e (x,
h1; h1, h2; h2, x, y), backward 22 C e for what comes next to the rows (4 of the output, 4 and 3 of
the temporal convolution, 5 and 3 of the graph convolution, 3 of the adjacency, where its
partitions share the cache).
"""

from __future__ import annotations

import torch
from torch import Tensor

from msclr.kernels._segments import present_rows, strided
from msclr.kernels._triton import cdiv, check_dtype
from msclr.kernels._triton_rows import RowTypes, plan_rows
from msclr.kernels.block import fused, graph_launch, triton_norm, triton_output
from msclr.kernels.block.graph_launch import Gradient, PackedConv
from msclr.kernels.block.operator import Arguments
from msclr.kernels.temporal_conv import triton_launch as temporal_conv


def forward(*given) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """``msclr::stgcn_block_triton``: y and moments; h1, h2 and folded norms."""
    a = Arguments(*given)
    with torch.cuda.device_of(a.x):
        return fused.forward_of(_Launches(a))


def backward(grad: Tensor, *given) -> tuple[Tensor, ...]:
    """``msclr::stgcn_block_triton_backward``: the gradients, empty tensors where unwanted."""
    with torch.cuda.device_of(grad):
        return fused.backward_of(_Launches, grad, given)


_NO_SURPLUS = None, None, 0
_SMALL = {"BLOCK_P": 256, "BLOCK_C": 8, "num_warps": 8}  # of programs that fold norms


class _Launches:
    """The parts in Triton; sums are (tiles, 2, C)."""

    def __init__(self, a: Arguments, folded: Tensor | None = None):
        check_dtype("x", a.x)
        self.a = a = a._replace(
            x=a.x.contiguous(),
            adjacency=a.adjacency.contiguous(),
            support=a.support.contiguous(),
            graph_bias=None if a.graph_bias is None else a.graph_bias.contiguous(),
            residual_bias=None if a.residual_bias is None else a.residual_bias.contiguous(),
            time_bias=a.time_bias.contiguous(),
            norms=a.norms.contiguous(),
            running=a.running.contiguous(),
            counts=None if a.counts is None else a.counts.contiguous(),
        )
        self.types = RowTypes(a.x.dtype)
        made = a.norms.new_empty(a.norms.shape)
        if folded is None:
            self.folded, self.moments = fused.new_folded(a), made
            self.numbers = self.types.new_sums(a.x, len(self.folded), 2, self.channels)
        else:
            self.folded, self.of_norms = folded, made
            self.numbers = folded[:, 2:4].to(
                self.types.sum_dtype, memory_format=torch.contiguous_format, copy=True
            )

    @property
    def channels(self) -> int:
        return self.a.norms.shape[1]

    def graph_conv(self):
        return graph_launch.forward(self._graph(), self.a.training)

    def projected(self):
        return graph_launch.forward(self._projection(), self.a.training)

    def temporal_conv(self, h1):
        a = self.a
        return temporal_conv.forward(
            h1, self.numbers[0], a.time_weight, a.time_bias, a.segments, a.stride, a.training,
            a.counts,
        )  # fmt: skip

    def fold(self, place, sums, rows):
        a, counted, parts = self.a, False, 0
        if not a.training:
            rows = 0
        elif a.group:
            total = self._total(sums, 3)
            total[0, 2] = rows if a.counts is None else self._rows_there(place)
            sums, counted = fused.over_ranks(total, a.group), True
        if sums is not None:
            parts = len(sums)
        norm = slice(2 * place, 2 * place + 2)
        surplus = self._surplus(place) if a.training and not counted else _NO_SURPLUS
        triton_norm.fold[self._small_grid()](
            sums, a.norms[norm], a.running[norm], self.folded[place], self.numbers[place],
            self.moments[norm], parts, rows, *surplus, self.channels, EPS=a.eps, COUNTED=counted,
            **_SMALL,
        )  # fmt: skip

    def output(self, h2, residual):
        r_norm = None if self.a.residual_weight is None else self.numbers[2]
        y = h2.new_empty(h2.shape)
        if len(y):
            grid, options = self._output_options(len(y))
            triton_output.output[grid](
                h2, self.numbers[1], residual, r_norm, y, self._seed(), len(y),
                *self._surplus(1), self.channels, self.a.block, **options,
            )  # fmt: skip
        return y

    def output_backward(self, grad, y, h2, r):
        d = h2.new_empty(h2.shape)
        z = None if r is None else h2.new_empty(h2.shape)
        parts, grid, options = 0, (), {}
        if len(d):
            grid, options = self._output_options(len(d))
            parts = grid[0] * (triton_output.GROUP.value // (options["WIDTH"] or 64))
        sums = self.types.new_sums(d, parts, 2 if r is None else 4, self.channels)
        if parts:
            triton_output.output_gradient[grid](
                grad.contiguous(), y, h2, r, d, z, sums, self._seed(), len(d),
                *self._surplus(1), self.channels, self.a.block, **options,
            )  # fmt: skip
        return d, z, sums[:, :2], sums[:, 2:]

    def norm_backward(self, place, sums):
        made = self.types.new_sums(sums, 4, self.channels)
        of_norm = self.of_norms[2 * place : 2 * place + 2]
        if not self.a.group:
            self._norm_gradient(place, sums, made, of_norm)
            return made
        self._norm_gradient(place, sums, None, of_norm)
        total = fused.over_ranks(self._total(sums, 2), self.a.group)
        self._norm_gradient(place, total, made, None)
        return made

    def temporal_conv_backward(self, d, h2, to_h2, h1, want_weight):
        a = self.a
        given = d, h2, to_h2, h1, self.numbers[0], a.time_weight, a.segments, a.stride, a.counts
        dweight = dbias = None
        if want_weight:
            dweight, dbias = temporal_conv.weight_gradient(*given)
            dbias = self._bias_gradient(to_h2, dbias)
        return *temporal_conv.backward(*given), dweight, dbias

    def projected_backward(self, z, r, to_r, want_x):
        conv, g = self._projection(), Gradient(z, r, to_r)
        dweight, dbias = graph_launch.to_weight(conv, g)
        dx = graph_launch.to_x(conv, g, None, None) if want_x else None
        return dx, dweight, self._bias_gradient(to_r, dbias)

    def graph_conv_backward(self, e, h1, to_h1, addend, gate, want):
        conv, g = self._graph(), Gradient(e, h1, to_h1)
        dx = dweight = dbias = dadjacency = None
        if want["graph_weight"] or want["graph_bias"]:
            dweight, dbias = graph_launch.to_weight(conv, g)
        if want["adjacency"]:
            dadjacency = graph_launch.to_adjacency(conv, g)
        if want["x"]:
            addend = None if addend is None else addend.contiguous()
            dx = graph_launch.to_x(conv, g, addend, gate)
        return dx, dweight, dbias, dadjacency

    def _bias_gradient(self, coefficients: Tensor, summed: Tensor) -> Tensor:
        """Of a bias in front of a norm: as the norm's sums have it, or, where other ranks' rows are
        among them, what the rows of this one add up to."""
        known = summed.numel() > 0 and not self.a.group
        return coefficients[3].to(summed.dtype) if known else summed

    def _graph(self) -> PackedConv:
        a = self.a
        return PackedConv(
            a.x, a.graph_weight, a.graph_bias, a.adjacency, a.support, a.segments, a.partitions, 1,
            a.counts,
        )  # fmt: skip

    def _projection(self) -> PackedConv:
        a = self.a
        return PackedConv(
            a.x, a.residual_weight, a.residual_bias, None, None, a.segments, 1, a.stride, a.counts
        )

    def _surplus(self, place: int) -> tuple[Tensor | None, Tensor | None, int]:
        """Of the rows of the norm number ``place``: their table, what is there, and entries."""
        a = self.a
        if a.counts is None:
            return _NO_SURPLUS
        plan = plan_rows(a.segments, a.stride if place else 1, False, 128, a.x.device)
        return plan.table, a.counts, plan.entries

    def _rows_there(self, place: int) -> Tensor:
        """How many of them are there."""
        segments = strided(self.a.segments, self.a.stride if place else 1)
        return present_rows(self.a.counts, segments).sum()

    def _small_grid(self, rows: int = 1) -> tuple[int, int]:
        return cdiv(self.channels, _SMALL["BLOCK_C"]), rows

    def _total(self, sums: Tensor, rows: int) -> Tensor:
        """The two sums of all tiles, (1, rows, C) in float64, of which two rows are made."""
        made = torch.empty((1, rows, self.channels), dtype=torch.float64, device=sums.device)
        triton_norm.total[self._small_grid(2)](
            sums, made, len(sums), sums.stride(0), self.channels, **_SMALL
        )
        return made

    def _norm_gradient(
        self, place: int, sums: Tensor, made: Tensor | None, of_norm: Tensor | None
    ) -> None:
        triton_norm.norm_gradient[self._small_grid()](
            sums, self.folded[place], made, of_norm, len(sums), sums.stride(0), self.channels,
            **_SMALL,
        )  # fmt: skip

    def _seed(self) -> Tensor | int:
        """Where it is, or what it is where it is known without waiting."""
        seed = self.a.seed
        if seed is None:
            return 0
        return seed if _is_in_memory(seed, self.a.x) else int(seed)

    def _output_options(self, rows: int) -> tuple[tuple[int, int], dict]:
        """The grid, and what it is made of."""
        p, seed, _ = fused.dropout_of(self.a)
        channels = self.channels
        # Several rows of a group are rows side by side, which surplus in between would part.
        joined = self.a.counts is None or len(self.a.segments) == 3
        whole = p > 0 and (channels % 64 == 0 or (channels in (16, 32) and joined))
        width = min(channels, 64) if whole else 0
        block = 128 if width else 64
        if width:
            grid = cdiv(rows, block * (64 // width)), channels // width
        else:
            grid = cdiv(rows, block), cdiv(channels, 32)
        return grid, {
            "DROPS": p > 0,
            "SEED_IN_MEMORY": seed is not None and _is_in_memory(seed, self.a.x),
            "THRESHOLD": min(round(p * 2**32), 2**32 - 1),
            "KEPT": 1 / (1 - p),
            "WIDTH": width,
            "SUM": self.types.constants["SUM"],
            "BLOCK_R": block,
            "BLOCK_C": 32,
            "num_warps": 4 if self.types.half else 8,
        }


def _is_in_memory(seed: Tensor, x: Tensor) -> bool:
    """Whether a seed is where programs can read it, as a captured CUDA graph wants it."""
    return seed.is_cuda and seed.device == x.device
