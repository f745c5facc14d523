"""Small models with the structure of other projects' ST-GCNs, written from the published facts.

They share names of attributes, shapes and the order of operations with the originals, no code.
"""

from __future__ import annotations

import torch
from torch import nn

from benchmarks.plain_stgcn import STRIDES, PlainSTGCN

WIDTHS = (4, 4, 4, 4, 8, 8, 8, 16, 16, 12)


def graph(partitions: int = 3, joints: int = 5) -> torch.Tensor:
    """(K, V, V), sparse: each joint's self link, and a chain in the other partitions."""
    adjacency = torch.zeros(partitions, joints, joints)
    adjacency[0] = torch.eye(joints) / 2
    for k in range(1, partitions):
        adjacency[k] = torch.diag(torch.full((joints - 1,), 0.5 / k), 1 if k % 2 else -1)
    return adjacency


class Encoder(PlainSTGCN):
    """The ST-GCN of AimCLR and CrosSCLR, small and without dropout."""

    def __init__(self, A, widths=WIDTHS, **options):
        super().__init__(A, widths, classes=6, dropout=0.0, **options)


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


class unit_tcn(nn.Module):  # noqa: N801 (pyskl's name for it)
    def __init__(self, c_in, c_out, kernel_size, stride):
        super().__init__()
        padding = (kernel_size // 2, 0)
        self.conv = nn.Conv2d(c_in, c_out, (kernel_size, 1), (stride, 1), padding)
        self.bn = nn.BatchNorm2d(c_out)

    def forward(self, x):
        return self.bn(self.conv(x))


class PysklBlock(nn.Module):
    def __init__(self, c_in, c_out, A, stride, residual, **options):
        super().__init__()
        self.gcn = unit_gcn(c_in, c_out, A, **options)
        self.tcn = unit_tcn(c_out, c_out, 9, stride)
        if not residual:
            self.residual = lambda x: 0
        elif c_in == c_out and stride == 1:
            self.residual = lambda x: x
        else:
            self.residual = unit_tcn(c_in, c_out, 1, stride)

    def forward(self, x):
        return torch.relu(self.tcn(self.gcn(x)) + self.residual(x))


class PysklEncoder(nn.Module):
    """The STGCN of pyskl and mmaction2: a graph and its importance in each block, as its unit's."""

    def __init__(self, A, widths=WIDTHS, in_channels=3, bodies=None, **options):
        super().__init__()
        self.data_bn = nn.BatchNorm1d((bodies or 1) * in_channels * A.shape[1])
        self.gcn = nn.ModuleList(
            PysklBlock(c_in, c_out, A.clone(), stride, i > 0, with_res=False, **options)
            for i, (c_in, c_out, stride) in enumerate(
                zip((in_channels, *widths), widths, STRIDES, strict=False)
            )
        )

    def forward(self, x):
        """(N, M, T, V, C) -> (N, M, D, T', V)."""
        n, m, t, v, c = x.shape
        x = self.data_bn(x.permute(0, 1, 3, 4, 2).reshape(n * m, v * c, t))
        x = x.view(n * m, v, c, t).permute(0, 2, 3, 1).contiguous()
        for block in self.gcn:
            x = block(x)
        return x.unflatten(0, (n, m))


class PysklRecognizer(nn.Module):
    def __init__(self, A, **options):
        super().__init__()
        self.backbone = PysklEncoder(A, **options)
        self.cls_head = nn.ModuleDict(
            {"fc_cls": nn.Linear(self.backbone.gcn[-1].tcn.bn.num_features, 6)}
        )

    def features(self, x):
        """(N, C, T, V, M) -> (N, D), what the head is given."""
        return self.backbone(x.permute(0, 4, 2, 3, 1)).mean((1, 3, 4))


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
