"""From clip numbers to the views of a training step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from msclr.data.dataset import Held, SkeletonDataset
from msclr.data.random import ClipRandom
from msclr.errors import InputError
from msclr.host import to_device
from msclr.methods import Batch, View, draw_pairs
from msclr.training.subsets import JointSubsets, take_places

_QUERY, _EXTREME, _KEY, _KINDS = 0, 1, 2, 3  # purposes of random numbers, one set a layout
_PAIRS = 1_000_000  # one more purpose, beyond every layout's
_SUBSETS = 2_000_000  # and from here on as many again, one set a layout


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


class _Plan(NamedTuple):
    """The rows of a batch: a clip, its pass, and under which layouts it is seen.

    On the host, which so knows every size without waiting for a device.
    """

    clips: np.ndarray  # (R,) int64
    passes: np.ndarray  # (R,)
    query: np.ndarray  # (R,) numbers of layouts
    key: np.ndarray  # (R,)

    def wanted(self, layout: int) -> np.ndarray:
        """Which rows need their clip under a layout: bool (R,)."""
        return (self.query == layout) | (self.key == layout)


class ViewMaker:
    """Augmented views of a draw, on the data set's device, each made in one operation.

    ``subsets`` is the share of views that show a part of their layout's joints.
    ``stream`` may name several; a call then gives a dict with a batch for each. They show the same
    augmented clips under the same layouts.
    """

    def __init__(
        self,
        dataset: SkeletonDataset,
        stream: str | Sequence[str],
        pairs: str,
        seed: int,
        extreme: bool,
        key: bool = True,
        subsets: float = 0.0,
    ):
        self.dataset, self.stream, self.pairs = dataset, stream, pairs
        self.seed, self.extreme, self.key = seed, extreme, key
        self.layouts = list(dataset.layouts)
        self.subsets = {
            name: JointSubsets(layout, subsets)
            for name, layout in dataset.layouts.items()
            if subsets
        }

    def __call__(self, draw: Draw, step: int) -> Batch | dict[str, Batch]:
        """The views of a draw; ``step`` keys the pair where one is drawn for the batch."""
        plan = self._plan(draw, step)
        held = self.dataset.hold(self._wanted(plan))
        if isinstance(self.stream, str):
            return self._batch(plan, held, self.stream)
        return {stream: self._batch(plan, held, stream) for stream in self.stream}

    def _batch(self, plan: _Plan, held: dict[str, Held], stream: str) -> Batch:
        def views(layouts: np.ndarray, kind: int) -> dict[str, View]:
            return self._views(plan, layouts, kind, held, stream)

        return Batch(
            query=views(plan.query, _QUERY),
            key=views(plan.key, _KEY) if self.key else {},
            extreme=views(plan.query, _EXTREME) if self.extreme else None,
            layouts_per_clip=len(self.layouts) if self.pairs == "all" else 1,
        )

    def prefetch(self, draw: Draw, step: int) -> None:
        """Say what the next call will be asked for. Only data that is streamed takes notice."""
        if not self.dataset.resident:
            self.dataset.prefetch(self._wanted(self._plan(draw, step)))

    def _plan(self, draw: Draw, step: int) -> _Plan:
        count = len(self.layouts)
        if self.pairs == "all":
            layouts = np.tile(np.arange(count), len(draw.clips))
            clips, passes = (rows.numpy().repeat(count) for rows in draw)
            return _Plan(clips, passes, layouts, layouts)
        random = self._pair_random(draw, step)
        pairs = draw_pairs(self.pairs, count, len(draw.clips), random)
        return _Plan(*(rows.numpy() for rows in (*draw, *pairs)))

    def _pair_random(self, draw: Draw, step: int):
        if self.pairs == "sample":
            random = ClipRandom(draw.clips, draw.passes, self.seed, _PAIRS)
            return lambda count: random.uniform(1)[:, 0]
        random = ClipRandom(torch.tensor([step]), 0, self.seed, _PAIRS)
        return lambda count: random.uniform(count)[0]

    def _wanted(self, plan: _Plan) -> dict[str, Tensor]:
        return {
            name: torch.from_numpy(plan.clips[plan.wanted(i)])
            for i, name in enumerate(self.layouts)
        }

    def _views(
        self, plan: _Plan, layouts: np.ndarray, kind: int, held: dict[str, Held], stream: str
    ) -> dict[str, View]:
        """One view of every row, grouped by the row's layout."""
        views = {}
        for number, name in enumerate(self.layouts):
            rows = np.flatnonzero(layouts == number)
            if len(rows) == 0 and self.pairs != "sample":
                continue  # with a pair a sample, all ranks take part in all layouts' statistics
            place = plan.wanted(number).cumsum()[rows] - 1  # among the clips held
            numbers = plan.clips[rows]
            table = to_device(np.stack([place, numbers, plan.passes[rows]]), self.dataset.device)
            place, clips, passes = table
            x = self.dataset.view(
                name,
                Held(held[name].clips, held[name].index.index_select(0, place)),
                clips,
                passes,
                seed=self.seed,
                purpose=_KINDS * number + kind,
                view="extreme" if kind == _EXTREME else "normal",
                stream=stream,
            )
            if name in self.subsets:
                purpose = _SUBSETS + _KINDS * number + kind
                about = torch.from_numpy(numbers), torch.from_numpy(plan.passes[rows])
                drawn = self.subsets[name].draw(*about, self.seed, purpose)
                x = take_places(x, drawn, stream)
            bodies = torch.from_numpy(self.dataset.present[numbers])
            views[name] = View(x, torch.from_numpy(rows), bodies)
        return views
