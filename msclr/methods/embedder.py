"""Encoder and projection head: from the views of a batch to unit vectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msclr.host import to_device
from msclr.nn.init import init_weights
from msclr.nn.norm import synchronise
from msclr.nn.tracks import Tracks


class View(NamedTuple):
    """Clips under one layout."""

    x: Tensor  # (n, C, T, V, M)
    rows: Tensor  # (n,) which rows of the batch they are; on the CPU, or the host waits for them
    bodies: Tensor | Tracks | None = None  # (n, M) bool, which are present; the same
    of: int | None = None  # R, where sizes are rounded up: rows are on the device, R of surplus


class Batch(NamedTuple):
    """The views of one training step, each a dict by layout name whose rows make up 0..R-1.

    R is B, a view of each clip; or B*L where every layout of each clip is taken, row b*L + l.
    """

    query: Mapping[str, View]
    key: Mapping[str, View]  # empty for methods that take none
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

    def synchronise(self, process_group: object) -> None:
        """Take the statistics of batch norms over the batch of all ranks."""
        synchronise(self, process_group)
        self.encoder.process_group = process_group

    def forward(
        self, views: Mapping[str, View], drop: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Embeddings (R, E) in row order, float32 or wider; with ``drop`` a pair, see STGCN."""
        if not drop:
            return self.project(self.features(views))
        kept, dropped = self.features(views, drop=True)
        return self.project(kept), self.project(dropped)

    def features(
        self, views: Mapping[str, View], drop: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """The encoder's features (R, D) in row order; with ``drop`` a pair."""
        found = self.encoder(
            {name: view.x for name, view in views.items()},
            bodies={n: view.bodies for n, view in views.items() if view.bodies is not None},
            drop=drop,
        )
        order = list(views.values())
        if not drop:
            return _in_order(found, order)
        return _in_order(found[0], order), _in_order(found[1], order)

    def project(self, features: Tensor) -> Tensor:
        """Unit vectors (.., E) of features (.., D)."""
        z = self.head(features)
        if z.dtype in (torch.float16, torch.bfloat16):
            z = z.float()
        return F.normalize(z, dim=-1)


def _in_order(features: Mapping[str, Tensor], views: list[View]) -> Tensor:
    """The layouts' features in the order of their rows, which the host knows, or need not know."""
    found = list(features.values())
    together = found[0] if len(found) == 1 else torch.cat(found)
    if (size := views[0].of) is not None:
        rows = torch.cat([view.rows for view in views])
        ordered = together.new_zeros(size + 1, together.shape[1])
        return ordered.index_copy(0, rows, together)[:size]
    order = np.concatenate([view.rows.cpu().numpy() for view in views]).argsort()
    if (order == np.arange(len(order))).all():
        return together
    return together.index_select(0, to_device(order, together.device))
