"""Encoder and projection head: from the views of a batch to unit vectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msclr.nn.init import init_weights


class View(NamedTuple):
    """Clips under one layout."""

    x: Tensor  # (n, C, T, V, M)
    rows: Tensor  # (n,) which rows of the batch they are
    bodies: Tensor | None = None  # (n, M) bool, which are present


class Batch(NamedTuple):
    """The views of one training step, each a dict by layout name whose rows make up 0..R-1.

    R is B, a view of each clip; or B*L where every layout of each clip is taken, row b*L + l.
    """

    query: Mapping[str, View]
    key: Mapping[str, View]
    extreme: Mapping[str, View] | None = None
    layouts_per_clip: int = 1  # L where all layouts are taken, else 1


class Embedder(nn.Module):
    """``encoder`` and an MLP D-D-E, then L2 normalisation.

    Args:
        encoder: an :class:`~msclr.nn.STGCN`.
        embedding_dim: E.
    """

    def __init__(self, encoder: nn.Module, embedding_dim: int = 128):
        super().__init__()
        dim = encoder.hidden_dim
        self.encoder = encoder
        self.head = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, embedding_dim))
        self.head.apply(init_weights)

    def forward(
        self, views: Mapping[str, View], drop: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Embeddings (R, E) in row order, float32 or wider; with ``drop`` a pair, see STGCN."""
        features = self.encoder(
            {name: view.x for name, view in views.items()},
            bodies={n: view.bodies for n, view in views.items() if view.bodies is not None},
            drop=drop,
        )
        order = torch.cat([view.rows for view in views.values()]).argsort()
        if not drop:
            return self._project(features, order)
        return self._project(features[0], order), self._project(features[1], order)

    def _project(self, features: Mapping[str, Tensor], order: Tensor) -> Tensor:
        z = self.head(torch.cat(list(features.values()))[order])  # (R, E)
        if z.dtype in (torch.float16, torch.bfloat16):
            z = z.float()
        return F.normalize(z, dim=1)
