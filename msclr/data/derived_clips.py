"""Clips of a data set under a layout that it does not have, derived when they are asked for."""

from __future__ import annotations

from typing import Any

import numpy as np

from msclr.data.derive import Derivation, derive_clips
from msclr.data.host_clips import reopened, to_pickle
from msclr.data.store import CENTRED, Store


class DerivedClips:
    """Rows of a split under a layout derived from another one of the data set.

    It is read as the memory map of a prepared layout is: ``shape`` (N, M, T, V, 3), ``size``, and
    rows by a slice or an array of numbers, float32. What is read is what preparing the data with
    ``derive`` would have written, up to the rounding of the source to float32; but for a joint
    that the source never saw, and a centre that it never saw, which prepared clips do not tell.
    """

    def __init__(self, store: Store, split: str, how: Derivation) -> None:
        arrays, source = store.split(split), store.layouts[how.source]
        self._source, self._bodies = arrays.views[how.source], arrays.bodies
        self._matrix = how.matrix
        centred = store.frame in CENTRED
        self._planar = store.coordinates == "xy_score"
        self._centred = centred and not self._planar
        self._from, self._to = source.center_index, how.target.center_index
        self.shape = (*self._source.shape[:3], how.target.num_joints, 3)
        self.size = int(np.prod(self.shape))

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, rows: Any) -> np.ndarray:
        xyz = np.asarray(self._source[rows], np.float64)  # (n, M, T, V, 3)
        there = xyz[..., 2] > 0 if self._planar else (xyz != 0).any(axis=-1)
        ever = there.any(axis=2)  # (n, M, V)
        if self._centred:
            ever[..., self._from] |= self._bodies[rows]  # it is 0 because it is the centre
        center = self._to if self._centred else None
        return derive_clips(self._matrix, xyz, ever, center, self._planar).astype(np.float32)

    def __getstate__(self) -> dict[str, Any]:
        """With the name of the file in place of what it holds."""
        return self.__dict__ | {"_source": to_pickle(self._source)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _source=reopened(state["_source"]))
