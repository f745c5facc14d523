"""Small models with the structure of other projects' ST-GCNs, written from the published facts.

They share names of attributes, shapes and the order of operations with the originals, no code.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.plain_stgcn import STRIDES, Block, ConvTemporalGraphical, PlainSTGCN

WIDTHS = (4, 4, 4, 4, 8, 8, 8, 16, 16, 12)


def scattered(model):
    """In float64, with every weight and statistic off its first value."""
    model.double()
    for p in model.parameters():
        p.data += 0.2 * torch.randn_like(p)
    for key, buffer in model.named_buffers():
        if key.endswith("running_mean"):
            buffer.normal_(0, 0.3)
        elif key.endswith("running_var"):
            buffer.uniform_(0.5, 2)
    return model


def trained(model):
    """The same in eval mode."""
    return scattered(model).eval()


def clips(joints=25, channels=3):
    """Some bodies are absent: those projects count them."""
    x = torch.randn(3, channels, 8, joints, 2, dtype=torch.float64)
    x[1, ..., 1] = 0
    return x


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


class LambdaBlock(nn.Module):
    """ST-GCN's own block: functions as residual, and modules that work in place."""

    def __init__(
        self, c_in, c_out, partitions, stride=1, residual=True, dropout=0.0, taps=9, **conv
    ):
        super().__init__()
        self.gcn = ConvTemporalGraphical(c_in, c_out, partitions)
        options = {"stride": (stride, 1), "padding": (taps // 2, 0)} | conv
        self.tcn = nn.Sequential(
            nn.BatchNorm2d(c_out),
            nn.ReLU(inplace=True),
            nn.Conv2d(c_out, c_out, (taps, 1), **options),
            nn.BatchNorm2d(c_out),
            nn.Dropout(dropout, inplace=True),
        )
        if not residual:
            self.residual = lambda x: 0
        elif c_in == c_out and stride == 1:
            self.residual = lambda x: x
        else:
            projection = nn.Conv2d(c_in, c_out, 1, (stride, 1))
            self.residual = nn.Sequential(projection, nn.BatchNorm2d(c_out))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x, A):
        residual = self.residual(x)
        y, A = self.gcn(x, A)
        return self.relu(self.tcn(y) + residual), A


class LambdaEncoder(Encoder):
    """ST-GCN with such blocks."""

    def __init__(self, A, widths=WIDTHS, dropout=0.0, **options):
        super().__init__(A, widths, **options)
        channels = zip((3, *widths), widths, STRIDES, strict=False)
        self.st_gcn_networks = nn.ModuleList(
            LambdaBlock(c_in, c_out, len(A), stride, i > 0, dropout if i else 0.0)
            for i, (c_in, c_out, stride) in enumerate(channels)
        )


class TwoEncoders(nn.Module):
    """AimCLR's outer model."""

    def __init__(self, A, **options):
        super().__init__()
        self.encoder_q, self.encoder_k = Encoder(A, **options), Encoder(A, **options)
        self.register_buffer("queue", torch.randn(6, 10))

    def forward(self, x):
        return self.encoder_q(x) @ self.encoder_k(x).T


class PaddedEncoder(nn.Module):
    """MS-CLR's encoder: the graphs of all conventions padded with zeros to the most joints.

    The padding is cut off before the mean over joints. Input norms are over the padded joints as
    well, or over the real ones.
    """

    def __init__(self, graphs, widths=WIDTHS, norms_padded=True):
        super().__init__()
        self.joints = {label: A.shape[-1] for label, A in graphs.items()}
        self.padded, self.norms_padded = max(self.joints.values()), norms_padded
        self.data_bn, self.edge_importance = nn.ModuleDict(), nn.ModuleDict()
        for label, A in graphs.items():
            A = F.pad(A, (0, self.padded - self.joints[label]) * 2)
            self.register_buffer(f"A_{label}", A)
            normed = self.padded if norms_padded else self.joints[label]
            self.data_bn[label] = nn.BatchNorm1d(3 * normed)
            self.edge_importance[label] = nn.ParameterList(torch.ones_like(A) for _ in widths)
        self.st_gcn_networks = nn.ModuleList(
            Block(c_in, c_out, len(A), stride, i > 0)
            for i, (c_in, c_out, stride) in enumerate(
                zip((3, *widths), widths, STRIDES, strict=False)
            )
        )
        self.fc = nn.Linear(widths[-1], 6)

    def features(self, x, label):
        """(N, C, T, V, M) of a convention -> (N, D)."""
        n, m, real = len(x), x.shape[4], self.joints[label]
        x = x.permute(0, 4, 1, 2, 3).flatten(0, 1)  # (N*M, C, T, V)
        missing = self.padded - real
        x = (
            self.normed(F.pad(x, (0, missing)), label)
            if self.norms_padded
            else F.pad(self.normed(x, label), (0, missing))
        )
        for block, importance in zip(
            self.st_gcn_networks, self.edge_importance[label], strict=True
        ):
            x, _ = block(x, self.get_buffer(f"A_{label}") * importance)
        return x[..., :real].mean((2, 3)).view(n, m, -1).mean(1)

    def normed(self, x, label):
        n, c, t, v = x.shape
        rows = self.data_bn[label](x.permute(0, 3, 1, 2).reshape(n, v * c, t))
        return rows.view(n, v, c, t).permute(0, 2, 3, 1)


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
    def __init__(self, c_in, c_out, kernel_size, stride, dropout=0.0):
        super().__init__()
        padding = (kernel_size // 2, 0)
        self.conv = nn.Conv2d(c_in, c_out, (kernel_size, 1), (stride, 1), padding)
        self.bn = nn.BatchNorm2d(c_out)
        self.drop = nn.Dropout(dropout, inplace=True)

    def forward(self, x):
        return self.drop(self.bn(self.conv(x)))


class PysklBlock(nn.Module):
    def __init__(self, c_in, c_out, A, stride=1, residual=True, dropout=0.0, **options):
        super().__init__()
        self.gcn = unit_gcn(c_in, c_out, A, **options)
        self.tcn = unit_tcn(c_out, c_out, 9, stride, dropout)
        self.relu = nn.ReLU(inplace=True)
        if not residual:
            self.residual = lambda x: 0
        elif c_in == c_out and stride == 1:
            self.residual = lambda x: x
        else:
            self.residual = unit_tcn(c_in, c_out, 1, stride)

    def forward(self, x, A=None):
        residual = self.residual(x)
        return self.relu(self.tcn(self.gcn(x, A)) + residual)


class PysklEncoder(nn.Module):
    """The STGCN of pyskl and mmaction2: a graph and its importance in each block, as its unit's."""

    def __init__(self, A, widths=WIDTHS, in_channels=3, bodies=None, **options):
        super().__init__()
        self.data_bn = nn.BatchNorm1d((bodies or 1) * in_channels * A.shape[1])
        self.gcn = nn.ModuleList(
            PysklBlock(c_in, c_out, A.clone(), stride, i > 0, **({"with_res": False} | options))
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
