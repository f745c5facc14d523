"""Who meets whom in multi-view InfoNCE, and how the Triton programs share the work."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Meetings:
    """Which views hold negatives for which anchors. The bank counts as view number ``views``."""

    pairs: tuple[int, ...]  # anchor, key, anchor, key, ..
    views: int
    all_views: bool  # whether an anchor's negatives come from every view, for each of its keys

    def weights(self) -> list[list[float]]:
        """(P, P) of the ordered pairs in the mean; a pair may be given more than once."""
        table = [[0.0] * self.views for _ in range(self.views)]
        for anchor, key in zip(self.pairs[::2], self.pairs[1::2], strict=True):
            table[anchor][key] += 2 / len(self.pairs)
        return table

    @functools.cached_property
    def _met(self) -> list[list[bool]]:
        weights = self.weights()
        return [[any(row) and (self.all_views or w > 0) for w in row] for row in weights]

    @property
    def anchors(self) -> list[int]:
        """The views that are anchors."""
        return sorted(set(self.pairs[::2]))

    def met_by(self, view: int) -> list[int]:
        """The views that hold negatives for a view's anchors."""
        return [other for other in range(self.views) if self._met[view][other]]

    def meeting(self, view: int) -> list[int]:
        """The views for whose anchors a view holds negatives."""
        return [other for other in range(self.views) if self._met[other][view]]


@dataclass(frozen=True)
class Sizes:
    """Rows of each kind, how many go together, and how many programs fill the device."""

    batch: int  # anchors of a view
    clips: int  # candidates of a view
    bank: int
    unit: int  # rows that are not divided: a multiple of both sides of a tile
    programs: int


@dataclass(frozen=True)
class Regions:
    """The work of ``region_sums``: 8 numbers a program. They are

    the anchors' view and the others', the first of the anchors and the last, of the others, the
    split that the anchors' sums go to, and that of the others' sums, -1 if they have none.
    """

    of_clips: Tensor  # (programs, 8) int32
    of_bank: Tensor  # (programs, 8) int32
    counts: Tensor  # (P, P + 1) int32: splits of an anchor view's sums over another
    splits: int  # the most of them
    both_ways: bool  # whether others of the clips have sums


@functools.lru_cache(maxsize=64)
def regions(meetings: Meetings, shared: bool, sizes: Sizes, device: torch.device) -> Regions:
    """Each similarity of two views once if the candidates are the anchors (``shared``)."""
    views, bank = meetings.views, meetings.views
    alone = [(i, j) for i in meetings.anchors for j in meetings.met_by(i)]  # one way
    both, same = [], []
    if shared:
        both = [(i, j) for i, j in alone if i < j and (j, i) in alone]
        same = [(i, j) for i, j in alone if i == j]
        alone = [(i, j) for i, j in alone if i != j and (j, i) not in alone]
    counts = [[0] * (views + 1) for _ in range(views)]
    clips, jobs = [], len(both) + len(same) / 2 + len(alone)

    # A square of regions: their number is that of splits, for rows and columns alike.
    cuts = _cuts(sizes.batch, sizes.unit, math.isqrt(int(sizes.programs / max(jobs, 1))))
    for i, j in both + same:
        for a, rows in enumerate(cuts):
            for b, columns in enumerate(cuts):
                if i == j and b < a:
                    continue
                clips.append([i, j, *rows, *columns, b, -1 if i == j and a == b else a])
        counts[i][j] = counts[j][i] = len(cuts)

    def one_way(pairs: list[tuple[int, int]], rows: int, jobs: float) -> list[list[int]]:
        anchors = _cuts(sizes.batch, sizes.unit, sizes.batch)
        others = _cuts(rows, sizes.unit, int(sizes.programs / max(jobs * len(anchors), 1)))
        for i, j in pairs:
            counts[i][j] = len(others)
        return [
            [i, j, *a, *o, split, -1]
            for i, j in pairs
            for a in anchors
            for split, o in enumerate(others)
        ]

    clips += one_way(alone, sizes.clips, jobs)
    of_bank = []
    if sizes.bank:
        of_bank = one_way([(i, bank) for i in meetings.anchors], sizes.bank, len(meetings.anchors))
    return Regions(
        _table(clips, device),
        _table(of_bank, device),
        _table(counts, device),
        max(map(max, counts)),
        bool(both or same),
    )


@functools.lru_cache(maxsize=64)
def weight_table(meetings: Meetings, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(P, P): of each ordered pair in the mean."""
    return torch.tensor(meetings.weights(), dtype=dtype, device=device)


@functools.lru_cache(maxsize=64)
def source_table(
    meetings: Meetings, as_anchor: bool, as_candidate: bool, device: torch.device
) -> Tensor:
    """(P, P + 1) int32: for each view how many others pull at it in these roles, and which."""
    table = []
    for view in range(meetings.views):
        found = set(meetings.met_by(view)) if as_anchor else set()
        found |= set(meetings.meeting(view)) if as_candidate else set()
        table.append([len(found), *sorted(found), *[0] * (meetings.views - len(found))])
    return _table(table, device)


@functools.lru_cache(maxsize=64)
def bank_sources(meetings: Meetings, device: torch.device) -> Tensor:
    """(1, P + 1) int32: the anchors' views pull at the bank."""
    anchors = meetings.anchors
    return _table([[len(anchors), *anchors, *[0] * (meetings.views - len(anchors))]], device)


def _cuts(rows: int, unit: int, parts: int) -> list[tuple[int, int]]:
    """First and last row of up to ``parts`` shares of whole units, as equal as can be."""
    units = -(-rows // unit)
    parts = max(1, min(parts, units))
    edges = [min(units * part // parts * unit, rows) for part in range(parts + 1)]
    return list(zip(edges[:-1], edges[1:], strict=True))


def _table(rows: list[list[int]], device: torch.device) -> Tensor:
    return torch.tensor(rows, dtype=torch.int32, device=device)
