"""Clips of one split: on the training device where they fit, else brought there step by step."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from msclr.data.host_clips import HostClips
from msclr.data.store import Store, open_store
from msclr.data.stored_views import Clips, StackedClips, StoredViews, stored_views
from msclr.data.streams import to_stream
from msclr.data.sub_layouts import NO_SUB_LAYOUTS, SubLayouts
from msclr.errors import InputError
from msclr.host import to_device
from msclr.kernels import augment
from msclr.layouts import Layout

STORAGE = {"float32": torch.float32, "float16": torch.float16}
_SHARE = 0.5  # of a device's free memory that clips may take: the encoder wants some as well
_ROWS = 4096  # clips loaded at a time

logger = logging.getLogger(__name__)


class Held(NamedTuple):
    """Clips on the device: those asked for are rows ``index`` of ``clips``."""

    clips: Tensor  # (N, M, T, V, 3)
    index: Tensor  # (U,) int64


class SkeletonDataset:
    """Every clip of a split under several layouts; one operation augments a whole batch.

    Args:
        source: a prepared folder, or an open :class:`~msclr.data.store.Store`.
        split: "train" or "val".
        layouts: names of the layouts to load; None for all of the data set.
        derive: names of layouts that the data set lacks, to be derived from those that
            are loaded, else from others that it has; or {name: the layout it is derived from}.
        device: where the clips live, or are brought to.
        storage: "float32", or "float16" in half the memory (a coordinate of 1 to 2 metres is then
            rounded to the millimetre).
        resident: whether the clips live on the device; if not, they stay in the memory map and a
            step's clips are brought there. None: where they take no more than half of its free
            memory. A batch is the same either way.
        sub_layouts: which random sub-layouts of each layout are loaded as well, a
            :class:`~msclr.data.sub_layouts.SubLayouts`.

    Attributes:
        views: {layout: (N, M, T, V, 3), metres} on the device; empty where not resident.
        resident: whether they live there.
        derived: {layout: the one that it is derived from}, where it is.
        frame: what the coordinates are relative to, see :class:`~msclr.data.store.Store`.
        planar: joints are (x, y, score), not (x, y, z).
        bodies: (N, M) bool, which bodies are present; ``present`` is the same as a NumPy array.
        parts: what is loaded of each data set; here of one.
        part_of: (N,) int64, NumPy, which of them each clip is of.
        labels: (N,) int64.

    Raises:
        InputError: no such data, split, layout or storage; or a layout that cannot be derived.
    """

    def __init__(
        self,
        source: str | Path | Store,
        split: str,
        layouts: Sequence[str] | None = None,
        device: str | torch.device = "cpu",
        storage: str = "float32",
        resident: bool | None = None,
        derive: Sequence[str] | Mapping[str, str] = (),
        sub_layouts: SubLayouts = NO_SUB_LAYOUTS,
    ):
        self.store = source if isinstance(source, Store) else open_store(source)
        views = stored_views(self.store, split, layouts, derive, sub_layouts)
        self.derived = views.part.derived
        self._fill([views], views.part.layouts, views.maps, device, storage, resident)

    def _fill(
        self,
        stored: Sequence[StoredViews],
        layouts: Mapping[str, Layout],
        maps: Mapping[str, Clips | StackedClips],
        device: str | torch.device,
        storage: str,
        resident: bool | None,
    ) -> None:
        if storage not in STORAGE:
            raise InputError(f"storage must be one of {', '.join(STORAGE)}, got {storage!r}")
        self.parts, self.layouts = [each.part for each in stored], dict(layouts)
        stores = [part.store for part in self.parts]
        self.planar = stores[0].meta.get("coordinates") == "xy_score"
        self.frame = stores[0].frame
        self.part_of = np.repeat(np.arange(len(stores)), [part.clips for part in self.parts])
        self.classes = [name for store in stores for name in store.classes]
        self.names = [name for each in stored for name in each.arrays.names]
        self.present = _stacked([each.arrays.bodies for each in stored])
        self.bodies = torch.from_numpy(self.present).to(device)
        before = np.cumsum([0, *(len(store.classes) for store in stores)])
        labels = [each.arrays.labels + n for each, n in zip(stored, before, strict=False)]
        self.labels = torch.from_numpy(np.concatenate(labels)).to(device)
        dtype = STORAGE[storage]
        self._tables = {
            name: {"flip": layout.flip.to(self.device), "parents": layout.parents.to(self.device)}
            for name, layout in layouts.items()
        }
        size = sum(view.size for view in maps.values()) * dtype.itemsize
        free = _free_bytes(self.device)
        self.resident = size <= _SHARE * free if resident is None else resident
        logger.info(
            "%s clips, %.1f GB in %s: %s (%.1f GB free on %s)", len(self), 1e-9 * size, dtype,
            "on the device" if self.resident else "streamed to the device", 1e-9 * free,
            self.device,
        )  # fmt: skip
        self.views: dict[str, Tensor] = {}
        if self.resident:
            self.views = {name: _loaded(view, dtype, self.device) for name, view in maps.items()}
        else:
            self._host = HostClips(maps, dtype, self.device)

    def about(self) -> dict[str, Any]:
        """How the clips were prepared, and what they are, as a checkpoint keeps it."""
        return self.parts[0].about()

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def device(self) -> torch.device:
        return self.labels.device

    def clips(self, layout: str, index: Tensor) -> Tensor:
        """Clips ``index`` (B,) under a layout: (B, M, T, V, 3) float32."""
        if self.resident:
            return self.views[layout].index_select(0, index).float()
        return self._host.take({layout: index.cpu()})[layout].float()

    def inputs(self, x: Tensor, layout: str, stream: str = "joint") -> Tensor:
        """What an encoder takes for clips x (B, M, T, V, 3): the stream as (B, 3, T, V, M)."""
        return to_stream(x, stream, self.layouts[layout], self.planar).permute(0, 4, 2, 3, 1)

    def prefetch(self, wanted: Mapping[str, Tensor]) -> None:
        """Begin to bring the clips of the next :meth:`hold` to the device, if they are not there.

        Args:
            wanted: {layout: (U,) int64 on the CPU}.
        """
        if not self.resident:
            self._host.prefetch(wanted)

    def hold(self, wanted: Mapping[str, Tensor]) -> dict[str, Held]:
        """Clips {layout: (U,) int64 on the CPU} on the device, for :meth:`view`."""
        if self.resident:
            return {
                name: Held(self.views[name], to_device(clips.numpy(), self.device))
                for name, clips in wanted.items()
            }
        return {
            name: Held(clips, torch.arange(len(clips), device=self.device))
            for name, clips in self._host.take(wanted).items()
        }

    def close(self) -> None:
        """End the thread that brings clips ahead of time, where they are not resident."""
        if not self.resident:
            self._host.close()

    def view(
        self,
        layout: str,
        held: Held,
        numbers: Tensor,
        epochs: Tensor,
        *,
        seed: int,
        purpose: int,
        view: str = "none",
        stream: str = "joint",
        strengths: Mapping[str, float] | None = None,
    ) -> Tensor:
        """What an encoder takes of augmented clips, (B, 3, T, V, M) float32.

        Args:
            layout: its name.
            held: the clips.
            numbers: (B,) int64 on the device, their numbers in the split.
            epochs: (B,) int64 on the device, which pass over the data each is in.
            seed, purpose, view, stream, strengths: see :func:`msclr.kernels.augment`.
        """
        return augment(
            held.clips,
            held.index,
            epochs,
            numbers=numbers,
            seed=seed,
            purpose=purpose,
            view=view,
            stream=stream,
            strengths=strengths,
            planar=self.planar,
            **self._tables[layout],
        )


def _stacked(bodies: Sequence[np.ndarray]) -> np.ndarray:
    """Which bodies are present, (N, M) bool, of data sets with room for different numbers."""
    most = max(each.shape[1] for each in bodies)
    return np.concatenate([np.pad(x, [(0, 0), (0, most - x.shape[1])]) for x in bodies])


def _loaded(clips: Clips | StackedClips, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Clips brought to the device, some rows at a time."""
    out = torch.empty(clips.shape, dtype=dtype, device=device)
    for start in range(0, len(clips), _ROWS):
        rows = slice(start, start + _ROWS)
        out[rows].copy_(torch.from_numpy(np.array(clips[rows])))
    return out


def _free_bytes(device: torch.device) -> float:
    """Free memory of a device; infinite where it cannot be found out."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:  # Linux: free memory, and what it would reclaim
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        return next(1024.0 * int(x.split()[1]) for x in lines if x.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return math.inf
