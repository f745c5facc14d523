"""Random sub-layouts of a layout, to train on as further conventions."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

from msclr.data.derived_clips import DerivedClips
from msclr.data.host_clips import reopened, to_pickle
from msclr.data.random import ClipRandom
from msclr.errors import InputError
from msclr.layouts import Layout
from msclr.layouts.propose import LIMBS
from msclr.layouts.sub_layout import sub_layout

LEFT_OUT = 1 / 2  # of what may be: joints, and left-right pairs of them
_PURPOSE = 4_000_000  # of their random numbers
_TRIES = 50  # for each sub-layout: a small layout has few that differ


class SubLayouts(NamedTuple):
    """Which sub-layouts data sets are given: ``count`` of each layout, drawn by ``seed``.

    Joints that tell where hips, knees, ankles, shoulders, elbows and wrists are always stay, as
    nearly all conventions have these; so do the centre and joints without a parent. Of the others
    half is left out, of a left-right pair both or neither. What is drawn for a layout follows from
    the layout and the seed alone, so data sets that have it have the same sub-layouts of it.
    """

    count: int = 0
    seed: int = 0

    def of(self, layout: Layout) -> dict[tuple[int, ...], Layout]:
        """``count`` different ones of a layout, by the numbers of the joints that they keep.

        Raises InputError where there are not that many.
        """
        found: dict[tuple[int, ...], Layout] = {}
        for kept in _drawn(layout, _TRIES * self.count, self.seed):
            if len(found) == self.count:
                break
            if kept not in found:
                name = f"{layout.name}_sub{len(found) + 1}"
                try:
                    found[kept] = sub_layout(layout, [layout.joints[v] for v in kept], name)
                except InputError:  # all that bones join to the centre would be left out
                    continue
        if len(found) < self.count:
            raise InputError(
                f"sub_layouts={self.count}, but {layout.name}, of {layout.num_joints} joints, has "
                f"{len(found)} different sub-layouts; give {len(found)} at most"
            )
        return found


NO_SUB_LAYOUTS = SubLayouts()


def _drawn(layout: Layout, tries: int, seed: int) -> list[tuple[int, ...]]:
    """The joints that a sub-layout keeps, in each of some tries."""
    parents, partner = layout.parents.tolist(), layout.flip.tolist()
    stay = {v for v, parent in enumerate(parents) if v == parent} | {layout.center_index}
    limbs = {side + limb for limb in LIMBS for side in "lr"}
    tell = [weights for landmark, weights in layout.landmarks if landmark in limbs]
    stay |= {layout.joints.index(x) for weights in tell for x, share in weights if share > 0}
    pairs = sorted({(min(v, w), max(v, w)) for v, w in enumerate(partner)})
    groups = [set(pair) for pair in pairs if not stay & set(pair)]
    if not groups or not tries:
        return []
    random = ClipRandom(torch.arange(tries), 0, seed, _PURPOSE).uniform(len(groups))
    count = max(1, round(LEFT_OUT * len(groups)))
    kept = []
    for order in random.argsort(dim=1, stable=True).tolist():
        out = set().union(*(groups[i] for i in order[:count]))
        kept.append(tuple(v for v in range(layout.num_joints) if v not in out))
    return kept


class SomeJoints:
    """Clips with some of their joints, read as the clips themselves are: rows by a slice or an
    array of numbers, float32. ``shape`` is (N, M, T, V', 3).
    """

    def __init__(self, clips: np.ndarray | DerivedClips, kept: tuple[int, ...]) -> None:
        self._clips, self._kept = clips, list(kept)
        self.shape = (*clips.shape[:3], len(kept), 3)
        self.size = int(np.prod(self.shape))

    def __len__(self) -> int:
        return len(self._clips)

    def __getitem__(self, rows: Any) -> np.ndarray:
        return np.asarray(self._clips[rows])[..., self._kept, :]

    def __getstate__(self) -> dict[str, Any]:
        """With the name of the file in place of what it holds."""
        return self.__dict__ | {"_clips": to_pickle(self._clips)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _clips=reopened(state["_clips"]))
