"""A block of ST-GCN, over one joint layout or several."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msclr.kernels import PackedRows
from msclr.nn.fused import TEMPORAL_KERNEL, BlockParts, can_fuse, run_fused
from msclr.nn.graph_conv import Graph, GraphConv
from msclr.nn.norm import BatchNorm
from msclr.nn.operands import Operands, advance, operands_of_block


class STGCNBlock(nn.Module):
    """``y = relu(dropout(BN(tconv9(relu(BN(gconv(x)))))) + residual(x))``.

    Called as ST-GCN's block, ``block(x, A) -> (y, A)`` with x (N, C_in, T, V); or with
    :class:`~msclr.kernels.PackedRows` of several layouts and as many graphs: batch statistics are
    then over all of them together. Where the compiled operators can, a block runs as one of them,
    and its dropout is drawn from ``seed``. An encoder that knows that all its blocks can passes
    their :class:`~msclr.nn.operands.Operands` in place of the graphs.
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
        if isinstance(A, Operands):
            return run_fused(self.parts(), x, A, seed, number), A
        if isinstance(x, PackedRows):
            return self._forward(x, A, seed, number), A
        packed = self._forward(PackedRows.of([x]), [A], seed, number)
        (y,) = packed.groups()
        return y, A

    def _forward(
        self, x: PackedRows, graphs: Sequence[Tensor | Graph], seed: Tensor | None, number: int
    ) -> PackedRows:
        parts = self.parts()
        if not can_fuse(self, parts, x.rows, graphs):
            return self._run_modules(x, graphs)
        operands = operands_of_block(graphs, parts.norms)
        y = run_fused(parts, x, operands, seed, number)
        advance([parts.norms], operands.moments)
        return y

    def _run_modules(self, x: PackedRows, graphs: Sequence[Tensor | Graph]) -> PackedRows:
        """One after the other: convolutions per layout, all else on the rows of all of them."""
        there = x.there()
        if there is not None:  # surplus is computed with here, so it must be finite
            x = x._replace(rows=torch.where(there, x.rows, 0))
        h = PackedRows.of(
            [self.gcn(part, graph)[0] for part, graph in zip(x.groups(), graphs, strict=True)]
        )
        h = h._replace(rows=F.relu(self.gcn_norm(h.rows, there)))
        h = PackedRows.of([self.tcn(part) for part in h.groups()])._replace(counts=x.counts)
        there = h.there()
        y = self.dropout(self.tcn_norm(h.rows, there))
        if self.residual is not None:
            y = y + self.residual(x, there)
        return h._replace(rows=F.relu(y))

    def parts(self) -> BlockParts:
        """The modules as the fused operator's."""
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

    def forward(self, x: PackedRows, there: Tensor | None = None) -> Tensor:
        if self.conv is None:
            return x.rows
        parts = [self.conv(part[:, :, :: self.stride]) for part in x.groups()]
        return self.norm(PackedRows.of(parts).rows, there)
