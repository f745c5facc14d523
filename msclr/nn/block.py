"""A block of ST-GCN, over one joint layout or several."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from msclr.kernels import PackedRows
from msclr.nn.fused import TEMPORAL_KERNEL, BlockParts, can_fuse, run_fused
from msclr.nn.graph_conv import Graph, GraphConv
from msclr.nn.norm import BatchNorm


class STGCNBlock(nn.Module):
    """``y = relu(dropout(BN(tconv9(relu(BN(gconv(x)))))) + residual(x))``.

    Called as ST-GCN's block, ``block(x, A) -> (y, A)`` with x (N, C_in, T, V); or with
    :class:`~msclr.kernels.PackedRows` of several layouts and as many graphs: batch statistics are
    then over all of them together. Where the compiled operators can, a block runs as one of them,
    and its dropout is drawn from ``seed``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        dropout: float = 0.0,
        residual: bool = True,
    ):
        super().__init__()
        self.gcn = GraphConv(in_channels, out_channels, kernel_size)
        self.gcn_norm = BatchNorm(out_channels)
        self.tcn = nn.Conv2d(
            out_channels,
            out_channels,
            (TEMPORAL_KERNEL, 1),
            (stride, 1),
            (TEMPORAL_KERNEL // 2, 0),
        )
        self.tcn_norm = BatchNorm(out_channels)
        self.dropout = nn.Dropout(dropout)
        self.residual = _Residual(in_channels, out_channels, stride) if residual else None

    def forward(self, x: Tensor | PackedRows, A, seed: Tensor | None = None, number: int = 0):
        """y and A as they came; ``number`` sets the dropout of blocks of one seed apart."""
        if isinstance(x, PackedRows):
            return self._forward(x, A, seed, number), A
        packed = self._forward(PackedRows.of([x]), [A], seed, number)
        (y,) = packed.groups()
        return y, A

    def _forward(
        self, x: PackedRows, graphs: Sequence[Tensor | Graph], seed: Tensor | None, number: int
    ) -> PackedRows:
        parts = self._parts()
        if can_fuse(self, parts, x.rows, graphs):
            return run_fused(parts, x, graphs, seed, number)
        groups = x.groups()
        h = [self.gcn(part, graph)[0] for part, graph in zip(groups, graphs, strict=True)]
        h = [self.tcn(F.relu(part)) for part in self.gcn_norm(h)]
        h = [self.dropout(part) for part in self.tcn_norm(h)]
        if self.residual is not None:
            h = [a + b for a, b in zip(h, self.residual(groups), strict=True)]
        return PackedRows.of([F.relu(part) for part in h])

    def _parts(self) -> BlockParts:
        residual = self.residual
        projects = residual is not None and residual.conv is not None
        return BlockParts(
            self.gcn.conv,
            self.gcn.kernel_size,
            self.gcn_norm,
            self.tcn,
            self.tcn_norm,
            self.dropout,
            residual is not None,
            residual.conv if projects else None,
            residual.norm if projects else None,
            residual_strides=False,
        )


class _Residual(nn.Module):
    """The identity, or a strided 1x1 convolution with batch norm where shapes differ.

    The stride is a slice: oneDNN's gradient of a strided 1x1 convolution overruns its buffer for
    some shapes in channels_last float32 (seen with PyTorch 2.13, 8 to 16 channels, V = 42).
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        self.stride = stride
        if in_channels != out_channels or stride != 1:
            self.conv = nn.Conv2d(in_channels, out_channels, 1)
            self.norm = BatchNorm(out_channels)
        else:
            self.conv = None

    def forward(self, groups: list[Tensor]) -> list[Tensor]:
        if self.conv is None:
            return groups
        return self.norm([self.conv(x[:, :, :: self.stride]) for x in groups])
