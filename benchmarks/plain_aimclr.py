"""A training step of MS-AimCLR in plain PyTorch: what the step of msclr is measured against.

In two forms. `padded` is that of the papers: every clip is padded with zeros to the joints of the
largest layout and its graph with it, and batch statistics count the padding. Otherwise every layout
keeps its exact joints. Apart from that they are one code, the blocks those of plain_stgcn.py.

Sources: Guo et al., "AimCLR" (AAAI 2022), and MS-CLR (arXiv:2508.14889), without neighbour mining.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.plain_stgcn import STRIDES, Block

MOMENTUM = 0.999  # of the key encoder
TEMPERATURE = 0.07
THRESHOLD = 0.7  # of the attention-guided drop


class Encoder(nn.Module):
    """Clips (N, C, T, V, M) of one layout -> features (N, D); all bodies count."""

    def __init__(
        self,
        graphs: Mapping[str, Tensor],
        widths: Sequence[int],
        dropout: float,
        padded: bool,
        memory_format: torch.memory_format = torch.contiguous_format,
    ):
        super().__init__()
        self.joints = max(graph.shape[1] for graph in graphs.values()) if padded else 0
        self.memory_format = memory_format
        for name, graph in graphs.items():
            missing = max(self.joints - graph.shape[1], 0)
            self.register_buffer(f"graph_{name}", F.pad(graph, (0, missing, 0, missing)))
        self.input_norm = nn.ModuleDict(
            {name: nn.BatchNorm1d(3 * graph.shape[1]) for name, graph in graphs.items()}
        )
        self.edge_importance = nn.ModuleDict(
            {
                name: nn.ParameterList(torch.ones_like(graph) for _ in STRIDES)
                for name, graph in graphs.items()
            }
        )
        partitions = len(next(iter(graphs.values())))
        self.blocks = nn.ModuleList(
            Block(c_in, c_out, partitions, stride, i > 0, dropout if i else 0.0)
            for i, (c_in, c_out, stride) in enumerate(
                zip((3, *widths), widths, STRIDES, strict=False)
            )
        )

    def forward(self, x: Tensor, name: str, drop: bool = False) -> tuple[Tensor, ...]:
        """Features; with ``drop`` also those after the attention-guided drop."""
        n, c, t, v, m = x.shape
        rows = x.permute(0, 4, 3, 1, 2).reshape(n * m, v * c, t)
        x = self.input_norm[name](rows).view(n * m, v, c, t).permute(0, 2, 3, 1)  # (N*M, C, T, V)
        missing = max(self.joints - v, 0)
        x = F.pad(x, (0, missing)).contiguous(memory_format=self.memory_format)
        graph = getattr(self, f"graph_{name}")
        for block, importance in zip(self.blocks, self.edge_importance[name], strict=True):
            x, _ = block(x, graph * F.pad(importance, (0, missing, 0, missing)))
        x = x[..., :v]
        maps = (x, x * dropped(x)) if drop else (x,)
        return tuple(each.mean((2, 3)).view(n, m, -1).mean(1) for each in maps)


@torch.no_grad()
def dropped(x: Tensor) -> Tensor:
    """By what AimCLR's attention-guided drop multiplies feature maps (N, C, T, V)."""
    variance, mean = torch.var_mean(x, dim=(2, 3), keepdim=True)
    s = torch.sigmoid((x - mean).square() / (4 * (variance + 1e-4)) + 0.5)
    joints = (s.mean((1, 2), keepdim=True) < THRESHOLD).to(x.dtype)
    cells = (s < THRESHOLD).to(x.dtype)
    return joints * (joints.numel() / joints.sum()) * cells * (cells.numel() / cells.sum())


class Embedder(nn.Module):
    def __init__(self, encoder: Encoder, dim: int, embedding: int):
        super().__init__()
        self.encoder = encoder
        self.head = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, embedding))

    def forward(self, x: Tensor, name: str, drop: bool = False) -> list[Tensor]:
        return [F.normalize(self.head(z), dim=1) for z in self.encoder(x, name, drop)]


class PlainAimCLR(nn.Module):
    """Called with three views of a batch; returns its loss and the keys for the queue."""

    def __init__(self, encoder: Encoder, dim: int, embedding: int, queue: Tensor):
        super().__init__()
        self.query = Embedder(encoder, dim, embedding)
        self.key = copy.deepcopy(self.query).requires_grad_(False)
        self.register_buffer("queue", queue.clone())  # (Q, E)
        self.pointer = 0

    def forward(
        self, query: Tensor, extreme: Tensor, key: Tensor, of_query: str, of_key: str
    ) -> tuple[Tensor, Tensor]:
        (q,) = self.query(query, of_query)
        e, d = self.query(extreme, of_query, drop=True)
        with torch.no_grad():
            (k,) = self.key(key, of_key)
        normal, extreme, drop = (self.logits(each, k) for each in (q, e, d))
        target = normal.detach().softmax(1)
        labels = torch.zeros(len(k), dtype=torch.int64, device=k.device)
        matching = [-(target * each.log_softmax(1)).sum(1).mean() for each in (extreme, drop)]
        return F.cross_entropy(normal, labels) + 0.5 * (matching[0] + matching[1]), k

    def logits(self, q: Tensor, k: Tensor) -> Tensor:
        """(B, 1 + Q)"""
        return torch.cat([(q * k).sum(1, keepdim=True), q @ self.queue.T], dim=1) / TEMPERATURE

    @torch.no_grad()
    def update_key(self) -> None:
        query, key = list(self.query.parameters()), list(self.key.parameters())
        torch._foreach_lerp_(key, query, 1 - MOMENTUM)

    @torch.no_grad()
    def enqueue(self, keys: Tensor) -> None:
        """The queue's length is a multiple of the batch's, as the papers' code wants it."""
        self.queue[self.pointer : self.pointer + len(keys)] = keys
        self.pointer = (self.pointer + len(keys)) % len(self.queue)
