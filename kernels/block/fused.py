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

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import _resolve_process_group

from msclr.kernels._segments import strided, triples
from msclr.kernels.block.operator import GRADIENTS, Arguments

OPS = torch.ops.msclr


def forward(*given) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """``msclr::stgcn_block``: y and moments; h1, h2 and folded norms."""
    a = Arguments(*given)
    moments = a.norms.new_empty(a.norms.shape)
    folded = a.norms.new_empty((len(a.norms) // 2, 5, a.norms.shape[1]), dtype=torch.float64)
    h1, sums = OPS.block_graph_conv(
        a.x, a.graph_weight, a.graph_bias, a.adjacency, a.support, a.segments, a.partitions, 1
    )
    fold(a, 0, sums, len(h1), folded, moments)
    h2, sums = OPS.temporal_conv(
        h1, *folded[0, 2:4], a.time_weight, a.time_bias, a.segments, a.stride
    )
    fold(a, 1, sums, len(h2), folded, moments)
    residual, of_r = (a.x if a.residual else None), (None, None)
    if a.residual_weight is not None:
        residual, sums = projected(a)
        fold(a, 2, sums, len(residual), folded, moments)
        of_r = folded[2, 2:4]
    y = OPS.block_output(h2, *folded[1, 2:4], residual, *of_r, *_dropout(a))
    return y, moments, h1, h2, folded


def backward(grad: Tensor, *given) -> tuple[Tensor, ...]:
    """``msclr::stgcn_block_backward``: the gradients, empty tensors where unwanted."""
    count = len(Arguments._fields)
    a, kept, wanted = Arguments(*given[:count]), given[count : count + 4], given[count + 4 :]
    y, h1, h2, folded = kept
    want = dict(zip(GRADIENTS, wanted, strict=True))
    has_norm = a.residual_weight is not None
    of_norms = a.norms.new_empty(a.norms.shape)
    r = projected(a)[0] if has_norm else None
    d, z, sums = OPS.block_output_backward(grad, y, h2, r, *_dropout(a))
    to_h2 = norm_backward(a, 1, sums[:2], folded, of_norms)
    e, of_e, dtime, dtime_bias = OPS.temporal_conv_backward(
        d, h2, to_h2, h1, *folded[0, 2:4], a.time_weight, a.segments, a.stride,
        True, want["time_weight"] or want["time_bias"],
    )  # fmt: skip
    to_h1 = norm_backward(a, 0, of_e, folded, of_norms)
    addend, gate = (grad, y) if a.residual else (None, None)
    none = grad.new_empty(0)
    dresidual, dresidual_bias = none, none
    if has_norm:
        to_r = norm_backward(a, 2, sums[2:], folded, of_norms)
        addend, dresidual, dresidual_bias, _ = OPS.block_graph_conv_backward(
            z, r, to_r, a.x, a.residual_weight, a.residual_bias, *identity(a), a.segments, 1,
            a.stride, None, None, want["x"], True, False,
        )  # fmt: skip
        gate = None
    dx, dgraph, dgraph_bias, dadjacency = OPS.block_graph_conv_backward(
        e, h1, to_h1, a.x, a.graph_weight, a.graph_bias, a.adjacency, a.support, a.segments,
        a.partitions, 1, addend if want["x"] else None, gate, want["x"],
        want["graph_weight"] or want["graph_bias"], want["adjacency"],
    )  # fmt: skip
    found = dx, dadjacency, dgraph, dgraph_bias, dtime, dtime_bias, dresidual, dresidual_bias
    return tuple(
        gradient if wants else none
        for gradient, wants in zip((*found, of_norms), want.values(), strict=True)
    )


def projected(a: Arguments) -> tuple[Tensor, Tensor]:
    """The residual's 1x1 convolution before its norm, and its sums.

    The backward pass computes it again: it costs little and would be kept for long.
    """
    return OPS.block_graph_conv(
        a.x, a.residual_weight, a.residual_bias, *identity(a), a.segments, 1, a.stride
    )


def fold(
    a: Arguments, place: int, sums: Tensor, rows: int, folded: Tensor, moments: Tensor
) -> None:
    """A norm with the statistics of the sums (2, C) over so many rows, or with its running ones.

    ``folded[place]`` (5, C) gets the mean, reciprocal deviation, scale, shift and number of rows;
    ``moments`` the mean and unbiased variance that the running ones move to.
    """
    if not a.training:
        rows = 0
    elif a.group:
        total = over_ranks(torch.cat([sums, torch.full_like(sums[:1], rows)]), a.group)
        sums, rows = total[:2], int(total[2, 0])
    OPS.block_fold(sums, a.norms, a.running, place, rows, a.eps, folded, moments)


def norm_backward(
    a: Arguments, place: int, sums: Tensor, folded: Tensor, of_norms: Tensor
) -> Tensor:
    """From sum d and sum d h (2, C) of a norm: alpha, beta, gamma (3, C).

    ``of_norms`` gets the gradients of its weight and bias, of this process alone.
    """
    return OPS.block_norm_backward(folded, sums, over_ranks(sums, a.group), place, of_norms)


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


def _dropout(a: Arguments) -> tuple[float, Tensor | None, int]:
    on = a.training and a.seed is not None
    return a.dropout if on else 0.0, a.seed, a.block
