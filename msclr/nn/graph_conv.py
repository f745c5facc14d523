"""ST-GCN's spatial graph convolution as a layer."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from msclr import kernels


class Graph(NamedTuple):
    """An adjacency with what :func:`msclr.kernels.masked_graph_conv` may know about it."""

    adjacency: Tensor  # (K, V, V), or (L, K, V, V) with the two below
    support: Tensor | None = None  # bool, of the adjacency's shape
    layout_index: Tensor | None = None  # (N,)
    joint_counts: Tensor | None = None  # (L,)


class GraphConv(nn.Module):
    """Spatial graph convolution: ``y[n,o,t,w] = sum_k sum_v (W_k x + b_k)[n,o,t,v] A[k,v,w]``.

    Parameter names and signature are those of ``ConvTemporalGraphical`` in ST-GCN's code (one
    1x1 convolution ``conv`` with K*C_out channels), so its weights load as they are.

    Args:
        in_channels: C_in.
        out_channels: C_out.
        kernel_size: K, the number of spatial partitions.
        bias: whether the 1x1 convolution has a bias.

    Source: Yan et al., ST-GCN (AAAI 2018), eq. 5.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, bias: bool = True):
        super().__init__()
        self.kernel_size = kernel_size
        self.conv = nn.Conv2d(in_channels, out_channels * kernel_size, 1, bias=bias)

    def forward(self, x: Tensor, A: Tensor | Graph) -> tuple[Tensor, Tensor | Graph]:
        """x (N, C_in, T, V) and A (K, V, V), or a :class:`Graph` -> y (N, C_out, T, V) and A."""
        graph = A if isinstance(A, Graph) else Graph(A)
        if graph.adjacency.shape[-3] != self.kernel_size:
            raise ValueError(
                f"A must have {self.kernel_size} partitions, got {tuple(graph.adjacency.shape)}"
            )
        y = kernels.masked_graph_conv(
            x,
            self.conv.weight,
            self.conv.bias,
            graph.adjacency,
            layout_index=graph.layout_index,
            joint_counts=graph.joint_counts,
            support=graph.support,
        )
        return y, A
