"""A block of ST-GCN in plain PyTorch: the formula, and the oracle of every backend."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from msclr.kernels._segments import joined, present_rows, split, split_graphs, strided
from msclr.kernels.block.dropout import dropout_factors
from msclr.kernels.graph_conv.reference import masked_graph_conv


def stgcn_block(
    x: Tensor,
    adjacency: Tensor,
    support: Tensor,
    graph_weight: Tensor,
    graph_bias: Tensor | None,
    time_weight: Tensor,
    time_bias: Tensor,
    residual_weight: Tensor | None,
    residual_bias: Tensor | None,
    norms: Tensor,
    running: Tensor,
    seed: Tensor | None,
    segments: list[int],
    partitions: int,
    stride: int,
    residual: bool,
    training: bool,
    dropout: float,
    eps: float,
    block: int,
    group: str,
    counts: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """y and moments of :func:`msclr.kernels.stgcn_block`, of this process alone."""
    if group:
        raise ValueError("the reference of stgcn_block is for one process, got a group")
    dtype = x.dtype  # that parameters are rounded to where x is of half precision
    graph_weight, time_weight, time_bias, residual_weight, residual_bias = (
        None if p is None else p.to(dtype)
        for p in (graph_weight, time_weight, time_bias, residual_weight, residual_bias)
    )
    moments = []
    there, there_after = (_there(counts, segments, s) for s in (1, stride))
    x = x if there is None else torch.where(there, x, 0)

    def norm(h: Tensor, place: int, there: Tensor | None) -> Tensor:
        mean, variance = running[2 * place : 2 * place + 2]
        unbiased = variance
        if training:
            mean, variance, unbiased = _moments(h, there, mean, variance)
        moments.extend([mean.detach(), unbiased.detach()])
        weight, bias = norms[2 * place : 2 * place + 2]
        return ((h - mean) / (variance + eps).sqrt() * weight + bias).to(dtype)

    h = _graph_conv(x, graph_weight, graph_bias, adjacency, support, segments, partitions)
    h = F.relu(norm(h, 0, there))
    parts = split(h, segments)
    h = joined([_temporal_conv(part, time_weight, time_bias, stride) for part in parts])
    h = norm(h, 1, there_after)
    if training and dropout > 0 and seed is not None:
        h = h * _factors(h, there_after, dropout, int(seed), block)
    if residual_weight is not None:
        r = joined([part[:, :, ::stride] for part in split(x, segments)])
        h = h + norm(F.linear(r, residual_weight, residual_bias), 2, there_after)
    elif residual:
        h = h + x
    y = F.relu(h)
    y = y if there_after is None else torch.where(there_after, y, 0)
    return y, torch.stack(moments).to(norms.dtype)


def _there(counts: Tensor | None, segments: list[int], stride: int) -> Tensor | None:
    """bool (R, 1): all but the surplus, of every ``stride``-th frame; None where there is none."""
    return None if counts is None else present_rows(counts, strided(segments, stride))[:, None]


def _graph_conv(
    x: Tensor, weight: Tensor, bias: Tensor | None, adjacency: Tensor, support: Tensor,
    segments: list[int], partitions: int,
) -> Tensor:  # fmt: skip
    graphs = split_graphs(adjacency, segments, partitions)
    supports = split_graphs(support, segments, partitions)
    return joined(
        [
            masked_graph_conv(part, weight, bias, a, support=s)
            for part, a, s in zip(split(x, segments), graphs, supports, strict=True)
        ]
    )


def _factors(h: Tensor, there: Tensor | None, dropout: float, seed: int, block: int) -> Tensor:
    """Of dropout (R, C), drawn for the rows that are there, one after the other."""
    factors = dropout_factors(*h.shape, dropout, seed, block).to(h)
    return factors if there is None else factors[(there[:, 0].cumsum(0) - 1).clamp(min=0)]


def _moments(
    h: Tensor, there: Tensor | None, mean: Tensor, variance: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and both variances (C,) of the rows that are there; those given where none is."""
    if there is None:
        if len(h) == 0:
            return mean, variance, variance
        own = h.var(0, unbiased=False)
        return h.mean(0), own, own * len(h) / max(len(h) - 1, 1)
    count = there.sum()
    some = count > 0
    own_mean = torch.where(there, h, 0).sum(0) / count.clamp(min=1)
    own = torch.where(there, h - own_mean, 0).square().sum(0) / count.clamp(min=1)
    unbiased = own * count / (count - 1).clamp(min=1)
    return (
        torch.where(some, own_mean, mean),
        torch.where(some, own, variance),
        torch.where(some, unbiased, variance),
    )


def _temporal_conv(x: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
    if x.numel() == 0:
        _, frames, _ = strided([0, x.shape[2], 1], stride)
        return x.new_zeros(x.shape[0], weight.shape[0], frames, x.shape[3])
    return F.conv2d(x, weight[..., None], bias, stride=(stride, 1), padding=(4, 0))
