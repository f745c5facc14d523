"""ST-GCN in plain PyTorch, of the form in which other projects have it: what accelerate speeds up.

Written from the published facts; names of attributes, shapes and the order of operations are those
of Yan et al., ST-GCN (AAAI 2018), and of AimCLR and CrosSCLR after it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

STRIDES = (1, 1, 1, 1, 2, 1, 1, 2, 1, 1)


def widths(width: int) -> tuple[int, ...]:
    """Of the ten blocks; ST-GCN's own are those of width 64."""
    return (width,) * 4 + (2 * width,) * 3 + (4 * width,) * 2 + (256,)


class ConvTemporalGraphical(nn.Module):
    """Returns a pair, is given the graph, and keeps K as kernel_size."""

    def __init__(self, in_channels, out_channels, kernel_size, t_kernel_size=1, stride=1):
        super().__init__()
        self.kernel_size = kernel_size
        padding = (t_kernel_size // 2, 0)
        self.conv = nn.Conv2d(
            in_channels, out_channels * kernel_size, (t_kernel_size, 1), (stride, 1), padding
        )

    def forward(self, x: Tensor, A: Tensor) -> tuple[Tensor, Tensor]:
        assert len(A) == self.kernel_size
        z = self.conv(x).unflatten(1, (self.kernel_size, -1))  # (N, K, C, T, V)
        return torch.einsum("nkctv,kvw->nctw", z, A).contiguous(), A


class Block(nn.Module):
    def __init__(self, in_channels, out_channels, partitions, stride=1, residual=True, dropout=0.0):
        super().__init__()
        self.gcn = ConvTemporalGraphical(in_channels, out_channels, partitions)
        self.tcn = nn.Sequential(
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
            nn.Conv2d(out_channels, out_channels, (9, 1), (stride, 1), (4, 0)),
            nn.BatchNorm2d(out_channels),
            nn.Dropout(dropout),
        )
        self.has_residual = residual
        if residual and (in_channels != out_channels or stride != 1):
            projection = nn.Conv2d(in_channels, out_channels, 1, (stride, 1))
            self.residual = nn.Sequential(projection, nn.BatchNorm2d(out_channels))
        else:
            self.residual = nn.Identity()

    def forward(self, x: Tensor, A: Tensor) -> tuple[Tensor, Tensor]:
        h, A = self.gcn(x, A)
        h = self.tcn(h)
        return torch.relu(h + self.residual(x) if self.has_residual else h), A


class PlainSTGCN(nn.Module):
    """Clips (N, C, T, V, M) -> logits (N, classes), over one graph A (K, V, V)."""

    def __init__(
        self,
        A: Tensor,
        widths: Sequence[int],
        *,
        importance: bool = True,
        in_channels: int = 3,
        classes: int = 60,
        dropout: float = 0.5,
    ):
        super().__init__()
        self.register_buffer("A", A)
        self.data_bn = nn.BatchNorm1d(in_channels * A.shape[1])
        self.st_gcn_networks = nn.ModuleList(
            Block(c_in, c_out, len(A), stride, i > 0, dropout if i else 0.0)
            for i, (c_in, c_out, stride) in enumerate(
                zip((in_channels, *widths), widths, STRIDES, strict=False)
            )
        )
        self.edge_importance = (
            nn.ParameterList(torch.ones_like(A) for _ in widths)
            if importance
            else [1] * len(widths)
        )
        self.fc = nn.Linear(widths[-1], classes)

    def features(self, x: Tensor) -> Tensor:
        """(N, D): what the last block gives, averaged over all but channels."""
        n, c, t, v, m = x.shape
        rows = self.data_bn(x.permute(0, 4, 3, 1, 2).reshape(n * m, v * c, t))
        x = rows.view(n * m, v, c, t).permute(0, 2, 3, 1).contiguous()  # (N*M, C, T, V)
        for block, importance in zip(self.st_gcn_networks, self.edge_importance, strict=True):
            x, _ = block(x, self.weighted(importance))
        return x.mean((2, 3)).view(n, m, -1).mean(1)

    def weighted(self, importance: Tensor | float) -> Tensor:
        return self.A * importance  # (K, V, V)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x))
