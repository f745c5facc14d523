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
        """Say what the next call will be asked for. Only data that is streamed takes notice."""
        if not self.dataset.resident:
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
            if len(rows) == 0 and not self.empty:
                continue
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
                strengths=self.strengths,
            )
            about = torch.from_numpy(numbers), torch.from_numpy(plan.passes[rows])
            x = self._altered(x, name, about, _KINDS * number + kind, stream)
            bodies = torch.from_numpy(self.dataset.present[numbers][:, : x.shape[-1]])
            views[name] = View(x, torch.from_numpy(rows), bodies)
        return views

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
