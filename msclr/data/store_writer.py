"""`StoreWriter`: a prepared data set written clip by clip, whole or not at all."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from msclr.data._store_files import SPLITS
from msclr.data.atomic import AtomicFolder
from msclr.data.skeleton.frame import Frame
from msclr.data.store_arrays import Description, StoreArrays
from msclr.errors import InputError
from msclr.layouts.layout import Layout
from msclr.paths import as_path

logger = logging.getLogger(__name__)


class StoreWriter:
    """Writes a prepared data set clip by clip; there is nothing at `out` before `finish`.

        with StoreWriter(out, name="mine", layouts=[layout], classes=["sit", "stand"],
                         frames=50, bodies=2, source="arrays") as writer:
            writer.add("train", {layout.name: xyz}, present, label=0, name="clip 1")
            writer.finish(report)

    Clips go to disk as they come, so memory holds one clip. They lie in a sibling folder
    `.<out>.partial-<pid>` until `finish` renames it; leaving the block without `finish`, by an
    exception or otherwise, removes it. Raises InputError if `out` exists and is not an empty
    folder, or cannot be written.
    """

    def __init__(
        self,
        out: str | os.PathLike[str],
        *,
        layouts: Iterable[Layout],
        **about: Any,
    ) -> None:
        """about: the other fields of `Description`."""
        self._folder = AtomicFolder(out, f".{as_path(out).resolve().name}.partial-{os.getpid()}")
        self.out = self._folder.out
        self.layouts = {layout.name: layout for layout in layouts}
        for taken in self.layouts.keys() & {"bodies", "labels"}:
            raise InputError(f"a layout cannot be called {taken!r}, a file of that name is written")
        self._about = Description(layouts=self.layouts, **about)
        self.bodies = self._about.bodies
        self._arrays = StoreArrays(self._folder.path, self._about)
        self._splits = {split: _Added() for split in SPLITS}

    def __enter__(self) -> StoreWriter:
        with self._folder.making():
            self._arrays.create()
        return self

    def __exit__(self, *_: object) -> None:
        if self._folder.path.exists():
            self._arrays.abandon()
            self._folder.discard()

    def add(
        self,
        split: str,
        views: Mapping[str, np.ndarray],
        present: np.ndarray,
        label: int,
        name: str,
        frames: Mapping[str, Frame] | None = None,
    ) -> None:
        """Append one clip: `views` layout name -> (M, T, V, 3), `present` (M,) bool.

        frames: layout name -> the constants of the clip's frame, where the data set has such.
        """
        if set(views) != set(self.layouts):
            raise InputError(
                f"clip {name!r} comes under {', '.join(views)}, the data set has "
                f"{', '.join(self.layouts)}; give every clip under each of them"
            )
        if not 0 <= label < len(self._about.classes):
            raise InputError(
                f"clip {name!r} has label {label}, the data set has "
                f"{len(self._about.classes)} classes; name every class"
            )
        for key, shape in self._arrays.shapes.items():
            if np.shape(views[key]) != shape:
                raise InputError(
                    f"clip {name!r} has shape {np.shape(views[key])} under {key}, "
                    f"wanted (M, T, V, 3) = {shape}"
                )
        present = np.asarray(present, dtype=bool)
        if present.shape != (self.bodies,):
            raise InputError(
                f"clip {name!r} has a body mask of shape {present.shape}, wanted ({self.bodies},)"
            )
        added = self._splits[split]
        self._arrays.put(split, len(added.names), views, frames or {})
        added.present.append(present)
        added.labels.append(int(label))
        added.names.append(name)

    def finish(self, report: Mapping[str, Any] | None = None) -> Path:
        """Write labels, names, checksums and dataset.json, and move the folder to `out`."""
        for split, added in self._splits.items():
            count = len(added.names)
            present = np.array(added.present, bool).reshape(count, self.bodies)
            self._arrays.keep(split, range(count), present, added.labels, added.names)
        splits = {split: len(added.names) for split, added in self._splits.items()}
        self._arrays.describe(report or {}, splits)
        self._folder.finish()
        logger.info("wrote %s", self.out)
        return self.out


@dataclass
class _Added:
    """What is kept in memory of the clips of a split."""

    present: list[np.ndarray] = field(default_factory=list)  # (M,) bool each
    labels: list[int] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
