"""A block of ST-GCN as three operators forward and three backward, fused at the batch norms.

    forward    h1 = gconv(x)                          and its sums
               h2 = tconv9(relu(h1 scale + shift))    and its sums
               y  = relu(dropout(h2 scale + shift) + residual)

    backward   d from dy, y and h2                    and sums for the second norm
               e from g = alpha d + beta h2 + gamma   and sums for the first
               dx from g = alpha e + beta h1 + gamma

A batch norm is a scale and a shift once its sums are known, and so is its gradient: with the sums
of d and d h over all N rows, ``g = scale (d - sum d / N - hhat sum(d hhat) / N)``, which is linear
in d and h. Nothing is kept but x, h1, h2 and y.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import _resolve_process_group

from msclr.kernels._segments import counted, strided, triples, with_surplus, without_surplus
from msclr.kernels.block.operator import GRADIENTS, Arguments

OPS = torch.ops.msclr


def forward(*given) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """``msclr::stgcn_block``: y and moments; h1, h2 and folded norms."""
    a = Arguments(*given)
    if a.counts is None:
        return forward_of(_Compiled(a))
    there = counted(a.segments, a.counts)
    short, short_there = strided(a.segments, a.stride), strided(there, a.stride)
    x = without_surplus(a.x, a.segments, there)
    y, moments, h1, h2, folded = forward_of(_Compiled(a._replace(x=x, segments=there, counts=None)))
    y, h2 = (with_surplus(rows, short, short_there) for rows in (y, h2))
    return y, moments, with_surplus(h1, a.segments, there), h2, folded


def backward(grad: Tensor, *given) -> tuple[Tensor, ...]:
    """``msclr::stgcn_block_backward``: the gradients, empty tensors where unwanted."""
    count = len(Arguments._fields)
    a = Arguments(*given[:count])
    if a.counts is None:
        return backward_of(_Compiled, grad, given)
    there = counted(a.segments, a.counts)
    short, short_there = strided(a.segments, a.stride), strided(there, a.stride)
    y, h1, h2, folded, *wanted = given[count:]
    grad, y, h2 = (without_surplus(rows, short, short_there) for rows in (grad, y, h2))
    x, h1 = (without_surplus(rows, a.segments, there) for rows in (a.x, h1))
    own = a._replace(x=x, segments=there, counts=None)
    dx, *others = backward_of(_Compiled, grad, (*own, y, h1, h2, folded, *wanted))
    if wanted[0]:
        dx = with_surplus(dx, a.segments, there)
    return dx, *others


class Parts(Protocol):
    """The operators that a block is made of, on one backend, with the block's arguments.

    Sums are whatever comes of one operator and goes into ``fold`` or ``norm_backward``; those of
    the norm number ``place`` go where ``folded`` and ``moments``, or ``of_norms``, have its rows.
    """

    a: Arguments
    folded: Tensor  # (P, 5, C) float64: mean, reciprocal deviation, scale, shift, number of rows
    moments: Tensor  # as a.norms: mean and unbiased variance of each norm
    of_norms: Tensor  # as a.norms: gradients of its weight and bias

    def graph_conv(self) -> tuple[Tensor, Any]:
        """h1 and its sums."""

    def projected(self) -> tuple[Tensor, Any]:
        """The residual's 1x1 convolution before its norm, and its sums."""

    def temporal_conv(self, h1: Tensor) -> tuple[Tensor, Any]:
        """h2 and its sums."""

    def fold(self, place: int, sums: Any, rows: int) -> None:
        """A norm with statistics over so many rows of this process, or with its running ones."""

    def output(self, h2: Tensor, residual: Tensor | None) -> Tensor:
        """y."""

    def output_backward(
        self, grad: Tensor, y: Tensor, h2: Tensor, r: Tensor | None
    ) -> tuple[Tensor, Tensor, Any, Any]:
        """d, and z = d before dropout where r is given; sums for the second norm, and for r's."""

    def norm_backward(self, place: int, sums: Any) -> Tensor:
        """alpha, beta, gamma (3, C)."""

    def temporal_conv_backward(
        self, d: Tensor, h2: Tensor, to_h2: Tensor, h1: Tensor, want_weight: bool
    ) -> tuple[Tensor, Any, Tensor, Tensor]:
        """e, sums for the first norm, and the gradients of weight and bias."""

    def projected_backward(
        self, z: Tensor, r: Tensor, to_r: Tensor, want_x: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The gradients of x, weight and bias."""

    def graph_conv_backward(
        self, e: Tensor, h1: Tensor, to_h1: Tensor, addend: Tensor | None, gate: Tensor | None,
        want: dict[str, bool],
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
        """The gradients of x, weight, bias and adjacency; ``addend`` where gate > 0 joins x's."""


def forward_of(parts: Parts) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """y and moments; h1, h2 and folded norms."""
    a = parts.a
    h1, sums = parts.graph_conv()
    parts.fold(0, sums, len(h1))
    h2, sums = parts.temporal_conv(h1)
    parts.fold(1, sums, len(h2))
    residual = a.x if a.residual else None
    if a.residual_weight is not None:
        residual, sums = parts.projected()
        parts.fold(2, sums, len(residual))
    return parts.output(h2, residual), parts.moments, h1, h2, parts.folded


def backward_of(
    parts_of: Callable[[Arguments, Tensor], Parts], grad: Tensor, given: tuple
) -> tuple[Tensor, ...]:
    """The gradients, empty tensors where unwanted."""
    count = len(Arguments._fields)
    a, kept, wanted = Arguments(*given[:count]), given[count : count + 4], given[count + 4 :]
    y, h1, h2, folded = kept
    parts = parts_of(a, folded)
    want = dict(zip(GRADIENTS, wanted, strict=True))
    has_norm = a.residual_weight is not None
    # What the residual's convolution made costs little to make again, and would be kept for long.
    r = parts.projected()[0] if has_norm else None
    d, z, sums, of_r = parts.output_backward(grad, y, h2, r)
    to_h2 = parts.norm_backward(1, sums)
    want_time = want["time_weight"] or want["time_bias"]
    e, sums, dtime, dtime_bias = parts.temporal_conv_backward(d, h2, to_h2, h1, want_time)
    to_h1 = parts.norm_backward(0, sums)
    addend, gate = (grad, y) if a.residual else (None, None)
    none = grad.new_empty(0)
    dresidual, dresidual_bias = none, none
    if has_norm:
        to_r = parts.norm_backward(2, of_r)
        addend, dresidual, dresidual_bias = parts.projected_backward(z, r, to_r, want["x"])
        gate = None
    dx, dgraph, dgraph_bias, dadjacency = parts.graph_conv_backward(
        e, h1, to_h1, addend if want["x"] else None, gate, want
    )
    found = dx, dadjacency, dgraph, dgraph_bias, dtime, dtime_bias, dresidual, dresidual_bias
    return tuple(
        gradient if wants else none
        for gradient, wants in zip((*found, parts.of_norms), want.values(), strict=True)
    )


class _Compiled:
    """The parts in C++; sums are (2, C) float64."""

    def __init__(self, a: Arguments, folded: Tensor | None = None):
        self.a = a
        self.folded = new_folded(a) if folded is None else folded
        made = a.norms.new_empty(a.norms.shape)
        self.moments, self.of_norms = (made, None) if folded is None else (None, made)

    def graph_conv(self):
        a = self.a
        return OPS.block_graph_conv(
            a.x, a.graph_weight, a.graph_bias, a.adjacency, a.support, a.segments, a.partitions, 1
        )

    def projected(self):
        a = self.a
        return OPS.block_graph_conv(
            a.x, a.residual_weight, a.residual_bias, *identity(a), a.segments, 1, a.stride
        )

    def temporal_conv(self, h1):
        a = self.a
        return OPS.temporal_conv(
            h1, *self.folded[0, 2:4], a.time_weight, a.time_bias, a.segments, a.stride
        )

    def fold(self, place, sums, rows):
        a = self.a
        if not a.training:
            rows = 0
        elif a.group:
            total = over_ranks(torch.cat([sums, torch.full_like(sums[:1], rows)]), a.group)
            sums, rows = total[:2], int(total[2, 0])
        OPS.block_fold(sums, a.norms, a.running, place, rows, a.eps, self.folded, self.moments)

    def output(self, h2, residual):
        of_r = (None, None) if self.a.residual_weight is None else self.folded[2, 2:4]
        return OPS.block_output(h2, *self.folded[1, 2:4], residual, *of_r, *dropout_of(self.a))

    def output_backward(self, grad, y, h2, r):
        d, z, sums = OPS.block_output_backward(grad, y, h2, r, *dropout_of(self.a))
        return d, z, sums[:2], sums[2:]

    def norm_backward(self, place, sums):
        total = over_ranks(sums, self.a.group)
        return OPS.block_norm_backward(self.folded, sums, total, place, self.of_norms)

    def temporal_conv_backward(self, d, h2, to_h2, h1, want_weight):
        a = self.a
        return OPS.temporal_conv_backward(
            d, h2, to_h2, h1, *self.folded[0, 2:4], a.time_weight, a.segments, a.stride,
            True, want_weight,
        )  # fmt: skip

    def projected_backward(self, z, r, to_r, want_x):
        a = self.a
        *found, _ = OPS.block_graph_conv_backward(
            z, r, to_r, a.x, a.residual_weight, a.residual_bias, *identity(a), a.segments, 1,
            a.stride, None, None, want_x, True, False,
        )  # fmt: skip
        return found

    def graph_conv_backward(self, e, h1, to_h1, addend, gate, want):
        a = self.a
        return OPS.block_graph_conv_backward(
            e, h1, to_h1, a.x, a.graph_weight, a.graph_bias, a.adjacency, a.support, a.segments,
            a.partitions, 1, addend, gate, want["x"],
            want["graph_weight"] or want["graph_bias"], want["adjacency"],
        )  # fmt: skip


def new_folded(a: Arguments) -> Tensor:
    """Where a block's norms go."""
    return a.norms.new_empty((len(a.norms) // 2, 5, a.norms.shape[1]), dtype=torch.float64)


def over_ranks(sums: Tensor, group: str) -> Tensor:
    """Their total over the processes of a group."""
    if group:
        sums = sums.clone()
        dist.all_reduce(sums, group=_resolve_process_group(group))
    return sums


def identity(a: Arguments) -> tuple[Tensor, Tensor]:
    """The graph, and its support, of a 1x1 convolution: every joint has itself alone."""
    joints = tuple(v for _, _, v in triples(strided(a.segments, a.stride)))
    return _identity(joints, a.x.dtype)


@functools.lru_cache(maxsize=64)
def _identity(joints: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    graph = torch.cat([torch.eye(v, dtype=dtype).flatten() for v in joints])
    return graph, graph != 0


def dropout_of(a: Arguments) -> tuple[float, Tensor | None, int]:
    """Its probability, seed and block number."""
    on = a.training and a.seed is not None
    return a.dropout if on else 0.0, a.seed, a.block
