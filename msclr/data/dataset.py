"""Clips of one split, held as tensors: on the training device where they fit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from msclr.data.store import Store, open_store
from msclr.data.streams import to_stream
from msclr.errors import InputError
from msclr.layouts import Layout


class SkeletonDataset:
    """Every clip of a split under several layouts; a batch is gathered in one operation.

    Args:
        source: a prepared folder, or an open :class:`~msclr.data.store.Store`.
        split: "train" or "val".
        layouts: names of the layouts to load; None for all of the data set.
        device: where the clips live.

    Attributes:
        views: {layout: (N, M, T, V, 3) float32, metres}
        bodies: (N, M) bool, which bodies are present.
        labels: (N,) int64.
    """

    def __init__(
        self,
        source: str | Path | Store,
        split: str,
        layouts: Sequence[str] | None = None,
        device: str | torch.device = "cpu",
    ):
        store = source if isinstance(source, Store) else open_store(source)
        arrays = store.split(split)
        self.store, self.classes, self.names = store, store.classes, arrays.names
        self.layouts: dict[str, Layout] = {
            name: store.layouts[name] for name in self._names(store, layouts)
        }
        self.views = {
            name: torch.from_numpy(arrays.views[name].copy()).to(device) for name in self.layouts
        }
        self.bodies = torch.from_numpy(arrays.bodies.copy()).to(device)
        self.labels = torch.from_numpy(arrays.labels.copy()).to(device)

    @staticmethod
    def _names(store: Store, layouts: Sequence[str] | None) -> list[str]:
        if layouts is None:
            return list(store.layouts)
        from msclr.layouts import get

        names = [name if name in store.layouts else get(name).name for name in layouts]
        for name in names:
            if name not in store.layouts:
                raise InputError(
                    f"{store.path} has no layout {name!r}; it has {', '.join(store.layouts)}"
                )
        return names

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def device(self) -> torch.device:
        return self.labels.device

    def clips(self, layout: str, index: Tensor) -> Tensor:
        """Clips ``index`` (B,) under a layout: (B, M, T, V, 3)."""
        return self.views[layout].index_select(0, index)

    def inputs(self, x: Tensor, layout: str, stream: str = "joint") -> Tensor:
        """What an encoder takes for clips x (B, M, T, V, 3): the stream as (B, 3, T, V, M)."""
        return to_stream(x, stream, self.layouts[layout]).permute(0, 4, 2, 3, 1)
