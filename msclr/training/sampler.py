"""The order of the clips of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from msclr.data.random import ClipRandom
from msclr.errors import InputError

ORDER = 1_000_001  # a purpose of random numbers, beyond those of views (batches.py)


class Draw(NamedTuple):
    """Which clips a step takes, and in which pass over the data each is."""

    clips: Tensor  # (B,) int64, on the CPU
    passes: Tensor  # (B,) int64


class Sampler:
    """The order of the clips: an epoch is one shuffled pass over them for each layout.

    Pass p of a run is shuffled by (seed, p) alone; the last, partial batch of an epoch is left
    out. Every process asks for the global batch and takes its own share of the rows.
    """

    def __init__(self, clips: int, layouts: int, batch_size: int, seed: int):
        self.clips, self.layouts, self.batch_size, self.seed = clips, layouts, batch_size, seed
        self.steps_per_epoch = clips * layouts // batch_size
        if self.steps_per_epoch == 0:
            raise InputError(
                f"batch_size {batch_size} exceeds an epoch of {clips} clips x {layouts} layouts"
            )
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.int64)

    def draw(self, step: int) -> Draw:
        """The global batch of a step, counted from 0 over the whole run."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            passes = range(epoch * self.layouts, (epoch + 1) * self.layouts)
            self._epoch, self._order = epoch, torch.cat([self._shuffled(p) for p in passes])
        rows = torch.arange(place * self.batch_size, (place + 1) * self.batch_size)
        return Draw(self._order[rows], epoch * self.layouts + rows // self.clips)

    def _shuffled(self, number: int) -> Tensor:
        return _shuffled(torch.arange(self.clips), number, self.seed)


class EvenSampler:
    """The order of the clips of several data sets, of which each gives as many to every batch.

    Clips are numbered from set to set. Each set is shuffled pass by pass of its own, by (seed,
    pass); an epoch is as many passes over the largest as there are layouts.

    Args:
        clips: how many clips each set has.
    """

    def __init__(self, clips: Sequence[int], layouts: int, batch_size: int, seed: int):
        self.clips, self.batch_size, self.seed = list(clips), batch_size, seed
        self.steps_per_epoch = max(clips) * len(clips) * layouts // batch_size
        if self.steps_per_epoch == 0:
            raise InputError(
                f"batch_size {batch_size} exceeds an epoch of {len(clips)} x {max(clips)} clips x "
                f"{layouts} layouts"
            )
        self._passes: dict[int, tuple[int, Tensor]] = {}  # set -> the last pass and its order

    def draw(self, step: int) -> Draw:
        """The global batch of a step, counted from 0 over the whole run."""
        places = torch.arange(step * self.batch_size, (step + 1) * self.batch_size)
        clips, passes = torch.empty_like(places), torch.empty_like(places)
        first = 0
        for number, count in enumerate(self.clips):
            rows = torch.nonzero(places % len(self.clips) == number)[:, 0]
            of_set = places[rows] // len(self.clips)
            passes[rows] = of_set // count
            for each in passes[rows].unique().tolist():
                mine = rows[passes[rows] == each]
                order = self._order(number, first, each)
                clips[mine] = order[places[mine] // len(self.clips) % count]
            first += count
        return Draw(clips, passes)

    def _order(self, number: int, first: int, each: int) -> Tensor:
        if self._passes.get(number, (-1,))[0] != each:
            clips = torch.arange(first, first + self.clips[number])
            self._passes[number] = each, first + _shuffled(clips, each, self.seed)
        return self._passes[number][1]


def _shuffled(clips: Tensor, number: int, seed: int) -> Tensor:
    """An order of clips: of Philox words, with no generator whose state would have to be kept."""
    random = ClipRandom(clips, number, seed, ORDER)
    return random.integers(1, 2**31)[:, 0].argsort(stable=True)
