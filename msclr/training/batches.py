"""From clip numbers to the views of a training step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from msclr.data.dataset import Held, SkeletonDataset
from msclr.data.random import ClipRandom
from msclr.host import to_device
from msclr.methods import Batch, View
from msclr.nn.tracks import capacity, tracks_of
from msclr.training.choice import LayoutChoice
from msclr.training.sampler import Draw
from msclr.training.subsets import JointSubsets, slide_joints, take_places

_QUERY, _EXTREME, _KEY, _KINDS = 0, 1, 2, 3  # purposes of random numbers, one set per layout
_PAIRS = 1_000_000  # one more purpose, beyond every layout's
_SUBSETS = 2_000_000  # and from here on as many again, one set per layout
_JITTER = 3_000_000  # and again


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

    ``subsets`` is the share of views that show a part of their layout's joints, ``jitter`` how far
    joints slide along their bones, ``pairs`` and ``derived_share`` see :class:`LayoutChoice`.
    ``strengths``, to be set, are those of :func:`msclr.kernels.augment`.
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
        jitter: float = 0.0,
        derived_share: float | None = None,
    ):
        self.dataset, self.stream = dataset, stream
        self.seed, self.extreme, self.key = seed, extreme, key
        self.layouts, self.jitter = list(dataset.layouts), jitter
        self.choice = LayoutChoice(dataset, pairs, derived_share)
        self.pairs = self.choice.pairs
        self.strengths: Mapping[str, float] | None = None  # the papers'
        # "present" or "all" bodies: sizes are rounded up, so that steps are alike (nn/tracks.py).
        self.buckets: str | None = None
        # Where clips draw their layouts, all ranks take part in all layouts' statistics.
        self.empty = self.pairs == "sample" or len(dataset.parts) > 1
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
            layouts_per_clip=self.choice.counts[0].item() if self.pairs == "all" else 1,
        )

    def prefetch(self, draw: Draw, step: int) -> None:
        """Say what the next call will be asked for, where the dataset streams its clips."""
        self.dataset.prefetch(self._wanted(self._plan(draw, step)))

    def _plan(self, draw: Draw, step: int) -> _Plan:
        if self.pairs == "all":
            layouts = self.choice.every(draw.clips)  # (B, L)
            clips, passes = (rows.numpy().repeat(layouts.shape[1]) for rows in draw)
            return _Plan(clips, passes, layouts.ravel(), layouts.ravel())
        pairs = self.choice.pairs_of(draw.clips, self._pair_random(draw, step))
        return _Plan(*(rows.numpy() for rows in draw), *pairs)

    def _pair_random(self, draw: Draw, step: int):
        if self.pairs == "sample":
            random = ClipRandom(draw.clips, draw.passes, self.seed, _PAIRS)
            return lambda count: random.uniform(1)[:, 0]
        random = ClipRandom(torch.tensor([step]), 0, self.seed, _PAIRS)
        return lambda count: random.uniform(count)[0]

    def _wanted(self, plan: _Plan) -> dict[str, Tensor]:
        return {
            name: torch.from_numpy(self._filled(plan, plan.clips[plan.wanted(i)]))
            for i, name in enumerate(self.layouts)
        }

    def _filled(self, plan: _Plan, clips: np.ndarray) -> np.ndarray:
        """Clips, and the batch's first again until they fill a bucket."""
        if not self.buckets or not self.empty:  # else they are as many in every batch
            return clips
        return np.concatenate([clips, np.full(capacity(len(clips)) - len(clips), plan.clips[0])])

    def _views(
        self, plan: _Plan, layouts: np.ndarray, kind: int, held: dict[str, Held], stream: str
    ) -> dict[str, View]:
        """One view of every row, grouped by the row's layout."""
        views = {}
        for number, name in enumerate(self.layouts):
            rows = np.flatnonzero(layouts == number)
            if len(rows) == 0 and not self.empty:
                continue
            numbers = self._filled(plan, plan.clips[rows])
            table = np.zeros((3, len(numbers)), np.int64)  # what fills up is the first one held
            table[0, : len(rows)] = plan.wanted(number).cumsum()[rows] - 1  # among the clips held
            table[1], table[2, : len(rows)] = numbers, plan.passes[rows]
            place, clips, passes = to_device(table, self.dataset.device)
            x = self.dataset.view(
                name,
                Held(held[name].clips, held[name].index.index_select(0, place)),
                clips,
                passes,
                seed=self.seed,
                purpose=_KINDS * number + kind,
                view="extreme" if kind == _EXTREME else "normal",
                stream=stream,
                strengths=self.strengths,
            )
            about = torch.from_numpy(table[1]), torch.from_numpy(table[2])
            x = self._altered(x, name, about, _KINDS * number + kind, stream)
            present = self.dataset.present[numbers][:, : x.shape[-1]]
            views[name] = self._view(x, rows, present, len(layouts))
        return views

    def _view(self, x: Tensor, rows: np.ndarray, present: np.ndarray, size: int) -> View:
        """Of clips x, which are ``rows`` of a batch of ``size``, and those that fill up."""
        if not self.buckets:
            return View(x, torch.from_numpy(rows), torch.from_numpy(present))
        if self.buckets == "all":
            present = np.ones_like(present)
        present[len(rows) :] = False
        places = np.full(len(x), size)
        places[: len(rows)] = rows
        device = self.dataset.device
        return View(x, to_device(places, device), tracks_of(present, device), size)

    def _altered(
        self, x: Tensor, name: str, about: tuple[Tensor, Tensor], purpose: int, stream: str
    ) -> Tensor:
        """Views x of clips and passes ``about``, as another convention might show them."""
        if self.jitter:
            random = ClipRandom(*about, self.seed, _JITTER + purpose)
            along = random.uniform(x.shape[3], -self.jitter, self.jitter).numpy()
            parents = self.dataset.layouts[name].parents.numpy()
            x = slide_joints(x, along, parents, stream, self.dataset.planar)
        if name in self.subsets:
            drawn = self.subsets[name].draw(*about, self.seed, _SUBSETS + purpose)
            x = take_places(x, drawn, stream)
        return x
