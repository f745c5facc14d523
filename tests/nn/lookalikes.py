"""Small models with the structure of other projects' ST-GCNs, written from the published facts.

They share names of attributes, shapes and the order of operations with the originals, no code.
"""

from __future__ import annotations

import torch
from torch import nn

WIDTHS, STRIDES = (4, 4, 4, 4, 8, 8, 8, 16, 16, 12), (1, 1, 1, 1, 2, 1, 1, 2, 1, 1)


def graph(partitions: int = 3, joints: int = 5) -> torch.Tensor:
    """(K, V, V), sparse: each joint's self link, and a chain in the other partitions."""
    adjacency = torch.zeros(partitions, joints, joints)
    adjacency[0] = torch.eye(joints) / 2
    for k in range(1, partitions):
        adjacency[k] = torch.diag(torch.full((joints - 1,), 0.5 / k), 1 if k % 2 else -1)
    return adjacency


class ConvTemporalGraphical(nn.Module):
    """Returns a pair, is given the graph, and keeps K as kernel_size."""

    def __init__(self, in_channels, out_channels, kernel_size, t_kernel_size=1, stride=1):
        super().__init__()
        self.kernel_size = kernel_size
        padding = (t_kernel_size // 2, 0)
        self.conv = nn.Conv2d(
            in_channels, out_channels * kernel_size, (t_kernel_size, 1), (stride, 1), padding
        )

    def forward(self, x, A):
        assert len(A) == self.kernel_size
        z = self.conv(x).unflatten(1, (self.kernel_size, -1))  # (N, K, C, T, V)
        return torch.einsum("nkctv,kvw->nctw", z, A).contiguous(), A


class Block(nn.Module):
    def __init__(self, in_channels, out_channels, partitions, stride=1, residual=True, dropout=0):
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

    def forward(self, x, A):
        h, A = self.gcn(x, A)
        h = self.tcn(h)
        return torch.relu(h + self.residual(x) if self.has_residual else h), A


class Encoder(nn.Module):
    """The ST-GCN of AimCLR and CrosSCLR: buffer A, edge_importance, st_gcn_networks, fc."""

    def __init__(self, A, importance=True, widths=WIDTHS, in_channels=3, dropout=0.0):
        super().__init__()
        self.register_buffer("A", A)
        self.data_bn = nn.BatchNorm1d(in_channels * A.shape[1])
        self.st_gcn_networks = nn.ModuleList(
            Block(c_in, c_out, len(A), stride, i > 0, dropout if i else 0)
            for i, (c_in, c_out, stride) in enumerate(
                zip((in_channels, *widths), widths, STRIDES, strict=False)
            )
        )
        self.edge_importance = (
            nn.ParameterList(torch.ones_like(A) for _ in widths)
            if importance
            else [1] * len(widths)
        )
        self.fc = nn.Linear(widths[-1], 6)

    def features(self, x):
        """(N, C, T, V, M) -> (N, D): what the last block gives, averaged over all but channels."""
        n, c, t, v, m = x.shape
        rows = self.data_bn(x.permute(0, 4, 3, 1, 2).reshape(n * m, v * c, t))
        x = rows.view(n * m, v, c, t).permute(0, 2, 3, 1).contiguous()
        for block, importance in zip(self.st_gcn_networks, self.edge_importance, strict=True):
            x, _ = block(x, self.A * importance)
        return x.mean((2, 3)).view(n, m, -1).mean(1)

    def forward(self, x):
        return self.fc(self.features(x))


class TwoEncoders(nn.Module):
    """AimCLR's outer model."""

    def __init__(self, A, **options):
        super().__init__()
        self.encoder_q, self.encoder_k = Encoder(A, **options), Encoder(A, **options)
        self.register_buffer("queue", torch.randn(6, 10))

    def forward(self, x):
        return self.encoder_q(x) @ self.encoder_k(x).T


class unit_gcn(nn.Module):  # noqa: N801 (pyskl's name for it)
    def __init__(self, c_in, c_out, A, adaptive="importance", conv_pos="pre", with_res=True):
        super().__init__()
        self.adaptive, self.conv_pos, self.with_res = adaptive, conv_pos, with_res
        if adaptive == "init":
            self.A = nn.Parameter(A.clone())
        else:
            self.register_buffer("A", A)
        if adaptive in ("offset", "importance"):
            self.PA = nn.Parameter(torch.full_like(A, 1e-6 if adaptive == "offset" else 1))
        pre = conv_pos == "pre"
        self.conv = nn.Conv2d(*((c_in, c_out * len(A)) if pre else (c_in * len(A), c_out)), 1)
        self.bn, self.act = nn.BatchNorm2d(c_out), nn.ReLU()
        if with_res:
            project = nn.Sequential(nn.Conv2d(c_in, c_out, 1), nn.BatchNorm2d(c_out))
            self.down = (lambda x: x) if c_in == c_out else project

    def forward(self, x, A=None):
        residual = self.down(x) if self.with_res else 0
        graphs = {None: lambda: self.A, "init": lambda: self.A}
        graphs |= {"offset": lambda: self.A + self.PA, "importance": lambda: self.A * self.PA}
        A = graphs[self.adaptive]()
        if self.conv_pos == "pre":
            z = self.conv(x).unflatten(1, (len(A), -1))
            y = torch.einsum("nkctv,kvw->nctw", z, A)
        else:
            y = self.conv(torch.einsum("nctv,kvw->nkctw", x, A).flatten(1, 2))
        return self.act(self.bn(y) + residual)


class Pyskl(nn.Module):
    """Blocks of pyskl's kind: the unit holds its graph itself, and is called with A = None."""

    def __init__(self, A, **options):
        super().__init__()
        self.gcn = nn.ModuleList([unit_gcn(3, 4, A, **options), unit_gcn(4, 4, A, **options)])

    def forward(self, x):
        for unit in self.gcn:
            x = unit(x, None)
        return x


class AttentiveUnit(nn.Module):
    """Of the kind of AAGCN and CTR-GCN: a graph, and convolutions of its own arrangement."""

    def __init__(self, c_in, c_out, A):
        super().__init__()
        self.A = nn.Parameter(A.clone())
        self.conv_d = nn.ModuleList(nn.Conv2d(c_in, c_out, 1) for _ in A)
        self.bn = nn.BatchNorm2d(c_out)

    def forward(self, x):
        y = sum(conv(x @ part) for conv, part in zip(self.conv_d, self.A, strict=True))
        return self.bn(y).relu()
