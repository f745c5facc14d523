"""Masked graph convolution in plain PyTorch: the formula, and the oracle of every backend."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def masked_graph_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    adjacency: Tensor,
    layout_index: Tensor | None = None,
    joint_counts: Tensor | None = None,
    support: Tensor | None = None,
) -> Tensor:
    """See :func:`msclr.kernels.masked_graph_conv`."""
    if support is not None:
        adjacency = adjacency.masked_fill(~support, 0)
    partitions = adjacency.shape[-3]
    if layout_index is None:
        z = _per_partition(x, weight, bias, partitions)  # (N, K, C_out, T, V)
        return torch.einsum("nkotv,kvw->notw", z, adjacency.to(z.dtype))

    real = torch.arange(x.shape[3], device=x.device) < joint_counts[:, None]  # (L, V)
    links = real[:, None, :, None] & real[:, None, None, :]  # (L, 1, V, V)
    adjacency = adjacency.masked_fill(~links, 0)[layout_index]  # (N, K, V, V)
    x = x.masked_fill(~real[layout_index][:, None, None, :], 0)
    z = _per_partition(x, weight, bias, partitions)
    return torch.einsum("nkotv,nkvw->notw", z, adjacency.to(z.dtype))


def _per_partition(x: Tensor, weight: Tensor, bias: Tensor | None, partitions: int) -> Tensor:
    """``W_k x + b_k`` for every partition: (N, K, C_out, T, V)."""
    weight = weight[..., None, None] if weight.dim() == 2 else weight
    z = F.conv2d(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))
    return z.unflatten(1, (partitions, -1))
