"""Random sub-layouts of a layout, to train on as further conventions."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from msclr.data.derive import Derivation
from msclr.data.random import ClipRandom
from msclr.errors import InputError
from msclr.layouts import Layout
from msclr.layouts.sub_layout import sub_layout

LEFT_OUT = 1 / 3  # of the joints that may be; both of a left-right pair are, or neither
_PURPOSE = 4_000_000  # of their random numbers
_TRIES = 50  # for each sub-layout: a small layout has few that differ


class SubLayouts(NamedTuple):
    """Which sub-layouts data sets are given: ``count`` of each layout, drawn by ``seed``.

    What is drawn for a layout follows from its joints and the seed alone, so data sets
    that have the same layout have the same sub-layouts of it.
    """

    count: int = 0
    seed: int = 0

    def of(self, layout: Layout) -> list[Derivation]:
        """``count`` different ones of a layout, each with what takes its joints from the layout's.

        Raises InputError where there are not that many.
        """
        found: dict[tuple[int, ...], Derivation] = {}
        groups = _groups(layout)
        for number in range(_TRIES * self.count if groups else 0):
            if len(found) == self.count:
                break
            kept = _draw(layout, groups, number, self.seed)
            name = f"{layout.name}_sub{len(found) + 1}"
            target = sub_layout(layout, [layout.joints[v] for v in kept], name)
            matrix = np.eye(layout.num_joints)[list(kept)]  # (V', V)
            found.setdefault(kept, Derivation(layout.name, target, matrix))
        if len(found) < self.count:
            raise InputError(
                f"sub_layouts={self.count}: {layout.name} of {layout.num_joints} joints has "
                f"{len(found)} that differ; give sub_layouts={len(found)}"
            )
        return list(found.values())


def _groups(layout: Layout) -> list[tuple[int, ...]]:
    """What may be left out: joints, or left-right pairs of them; never the centre or a root."""
    parents, partner = layout.parents.tolist(), layout.flip.tolist()
    stay = {v for v, parent in enumerate(parents) if v == parent} | {layout.center_index}
    pairs = {(min(v, w), max(v, w)) for v, w in enumerate(partner)}
    return [tuple(dict.fromkeys(pair)) for pair in sorted(pairs) if not stay & set(pair)]


def _draw(layout: Layout, groups: list[tuple[int, ...]], number: int, seed: int) -> tuple[int, ...]:
    """The joints that one sub-layout keeps."""
    random = ClipRandom(torch.tensor([number]), 0, seed, _PURPOSE).uniform(len(groups))[0]
    count = max(1, round(LEFT_OUT * len(groups)))
    out = {v for i in random.argsort(stable=True)[:count].tolist() for v in groups[i]}
    return tuple(v for v in range(layout.num_joints) if v not in out)


NO_SUB_LAYOUTS = SubLayouts()
