"""A block of ST-GCN in plain PyTorch: the formula, and the oracle of every backend."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from msclr.kernels._segments import joined, split, split_graphs, strided
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

    def norm(h: Tensor, place: int) -> Tensor:
        weight, bias = norms[2 * place], norms[2 * place + 1]
        mean, variance = running[2 * place], running[2 * place + 1]
        if training and len(h):
            mean, variance = h.mean(0), h.var(0, unbiased=False)
            unbiased = variance * len(h) / max(len(h) - 1, 1)
            moments.extend([mean.detach(), unbiased.detach()])
        else:
            moments.extend([mean, variance])
        return ((h - mean) / (variance + eps).sqrt() * weight + bias).to(dtype)

    graphs = split_graphs(adjacency, segments, partitions)
    supports = split_graphs(support, segments, partitions)
    h = joined(
        [
            masked_graph_conv(part, graph_weight, graph_bias, a, support=s)
            for part, a, s in zip(split(x, segments), graphs, supports, strict=True)
        ]
    )
    h = F.relu(norm(h, 0))
    parts = split(h, segments)
    h = norm(joined([_temporal_conv(part, time_weight, time_bias, stride) for part in parts]), 1)
    if training and dropout > 0 and seed is not None:
        h = h * dropout_factors(*h.shape, dropout, int(seed), block).to(h)
    if residual_weight is not None:
        r = joined([part[:, :, ::stride] for part in split(x, segments)])
        h = h + norm(F.linear(r, residual_weight, residual_bias), 2)
    elif residual:
        h = h + x
    return F.relu(h), torch.stack(moments).to(norms.dtype)


def _temporal_conv(x: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
    if x.numel() == 0:
        _, frames, _ = strided([0, x.shape[2], 1], stride)
        return x.new_zeros(x.shape[0], weight.shape[0], frames, x.shape[3])
    return F.conv2d(x, weight[..., None], bias, stride=(stride, 1), padding=(4, 0))
