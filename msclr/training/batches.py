"""From clip numbers to the views of a training step."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from msclr.data.augment import extreme_view, normal_view
from msclr.data.dataset import SkeletonDataset
from msclr.data.random import ClipRandom
from msclr.errors import InputError
from msclr.methods import Batch, View, draw_pairs

_QUERY, _EXTREME, _KEY, _KINDS = 0, 1, 2, 3  # purposes of random numbers, one set a layout
_PAIRS = 1_000_000  # one more purpose, beyond every layout's


class Draw(NamedTuple):
    """Which clips a step takes, and in which pass over the data each stands."""

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
        # the order of Philox words: no generator whose state would have to be kept
        clips = torch.arange(self.clips)
        return (
            ClipRandom(clips, number, self.seed, _PAIRS + 1)
            .integers(1, 2**31)[:, 0]
            .argsort(stable=True)
        )


class ViewMaker:
    """Augmented views of a draw, on the data set's device."""

    def __init__(self, dataset: SkeletonDataset, stream: str, pairs: str, seed: int, extreme: bool):
        self.dataset, self.stream, self.pairs = dataset, stream, pairs
        self.seed, self.extreme = seed, extreme
        self.layouts = list(dataset.layouts)
        self._flips = {
            name: layout.flip.to(dataset.device) for name, layout in dataset.layouts.items()
        }

    def __call__(self, draw: Draw, step: int) -> Batch:
        """The views of a draw; ``step`` keys the pair where one is drawn for the batch."""
        if self.pairs == "all":
            layouts = torch.arange(len(self.layouts)).repeat(len(draw.clips))
            draw = Draw(*(rows.repeat_interleave(len(self.layouts)) for rows in draw))
            query_layouts = key_layouts = layouts
        else:
            random = self._pair_random(draw, step)
            query_layouts, key_layouts = draw_pairs(
                self.pairs, len(self.layouts), len(draw.clips), random
            )
        extreme = self._views(draw, query_layouts, _EXTREME) if self.extreme else None
        return Batch(
            query=self._views(draw, query_layouts, _QUERY),
            key=self._views(draw, key_layouts, _KEY),
            extreme=extreme,
            layouts_per_clip=len(self.layouts) if self.pairs == "all" else 1,
        )

    def _pair_random(self, draw: Draw, step: int):
        if self.pairs == "sample":
            random = ClipRandom(draw.clips, draw.passes, self.seed, _PAIRS)
            return lambda count: random.uniform(1)[:, 0]
        random = ClipRandom(torch.tensor([step]), 0, self.seed, _PAIRS)
        return lambda count: random.uniform(count)[0]

    def _views(self, draw: Draw, layouts: Tensor, kind: int) -> dict[str, View]:
        """One view of every row, grouped by the row's layout."""
        device, views = self.dataset.device, {}
        for number, name in enumerate(self.layouts):
            rows = (layouts == number).nonzero().squeeze(1)
            if len(rows) == 0 and self.pairs != "sample":
                continue  # with a pair a sample, all ranks take part in all layouts' statistics
            clips = draw.clips[rows].to(device, non_blocking=True)
            passes = draw.passes[rows].to(device, non_blocking=True)
            random = ClipRandom(clips, passes, self.seed, _KINDS * number + kind)
            x = self.dataset.clips(name, clips)
            if kind == _EXTREME:
                x = extreme_view(x, random, self._flips[name])
            else:
                x = normal_view(x, random)
            views[name] = View(
                self.dataset.inputs(x, name, self.stream),
                rows.to(device, non_blocking=True),
                self.dataset.bodies.index_select(0, clips),
            )
        return views
