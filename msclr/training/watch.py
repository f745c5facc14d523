"""What is measured of an encoder while it is trained: nearest neighbours, maps, collapse.

An encoder of the same shape gets the weights and runs in eval mode, so that nothing of the one
that is trained changes: neither its mode, nor its statistics, nor a random number.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from msclr.data.dataset import SkeletonDataset
from msclr.data.store import Store
from msclr.data.stored_views import Part
from msclr.errors import InputError
from msclr.methods import Queue
from msclr.training.build import build_encoders, open_clips
from msclr.training.log import KnnRecord, RunLog

if TYPE_CHECKING:
    from msclr.training.pretrain import Pretraining

_FEWEST = {"train": 1, "val": 3}  # clips; t-SNE takes no fewer
MOST = {"train": 4096, "val": 2048}  # clips, evenly out of a split that has more

logger = logging.getLogger(__name__)


class _Set(NamedTuple):
    """A data set, and the clips of it that are looked at."""

    name: str  # "" where the run is on one
    part: Part
    rows: dict[str, Tensor]  # of each split, among the clips of all data sets
    first: int  # the number of its first class among those of all


class Watch:
    """Measures a run's encoders on its data every ``knn_every`` steps and ``tsne_every`` epochs.

    Of several data sets, each by itself. Raises InputError where none has enough clips.
    """

    def __init__(self, run: Pretraining):
        recipe = run.recipe
        self.run, self.recipe = run, recipe
        whole = replace(recipe, sub_layouts=0)
        self.data = {"train": run.dataset, "val": open_clips(whole, run.device, "val")}
        self.sets = _sets(self.data)
        self.encoders = build_encoders(recipe, list(run.dataset.layouts.values()))
        for encoder in self.encoders.values():
            encoder.to(run.device).eval().requires_grad_(False)
        self._folder = run.folder / "tsne"

    def close(self) -> None:
        self.data["val"].close()

    def look(
        self,
        step: int,
        log: RunLog,
        say: Callable[[str], None],
        on_knn: Callable[[list[KnnRecord]], None] | None = None,
    ) -> None:
        """Measure what is due after ``step`` steps, write it to the log and say it."""
        knn_due = self.recipe.knn_every and step % self.recipe.knn_every == 0
        map_steps = (self.recipe.tsne_every or 0) * self.run.steps_per_epoch
        map_due = map_steps and step % map_steps == 0
        if not (knn_due or map_due):
            return
        began = time.perf_counter()
        records = self._measure(step, log if map_due else None, bool(knn_due))
        if records:
            log.write_knn(records)
            say(f"step {step}: " + ", ".join(map(str, records)))
            if on_knn:
                on_knn(records)
        self.run.leave_out(time.perf_counter() - began)

    def _measure(self, step: int, maps: RunLog | None, knn_due: bool) -> list[KnnRecord]:
        records = []
        for stream, encoder in self.encoders.items():
            encoder.load_state_dict(self.run.encoder_of(stream).state_dict())
        for each in self.sets:
            for stream in self.encoders:
                for layout in each.part.whole:
                    val = self._features(each, "val", layout, stream)
                    if knn_due:
                        records.append(self._nearest(each, val, step, stream, layout))
                    if maps:
                        maps.write_map(self._draw(each, val, step, stream, layout))
        return records

    def _nearest(self, of: _Set, val: Tensor, step: int, stream: str, layout: str) -> KnnRecord:
        from msclr.encoder.features import mean_cosine
        from msclr.evaluation.knn import knn

        train = self._features(of, "train", layout, stream)
        labels = {split: self._labels(of, split) for split in of.rows}
        given = train, labels["train"], val, labels["val"], len(of.part.store.classes)
        accuracy = knn(*given, ks=[1])[1]
        return KnnRecord(step, stream, layout, accuracy, mean_cosine(val), of.name)

    def _labels(self, of: _Set, split: str) -> Tensor:
        return self.data[split].labels[of.rows[split]] - of.first

    def _features(self, of: _Set, split: str, layout: str, stream: str) -> Tensor:
        from msclr.encoder.features import encode

        # Other data sets may have room for more bodies: what they lack here is no absent body.
        data, slots, found = self.data[split], of.part.store.bodies, []
        with torch.no_grad():
            for index in of.rows[split].split(256):
                clips = data.clips(layout, index)[:, :slots], data.bodies[index][:, :slots]
                found.append(encode(self.encoders[stream], *clips, layout, stream, data.planar))
        return torch.cat(found)  # (N, D)

    def _draw(self, of: _Set, features: Tensor, step: int, stream: str, layout: str):
        from msclr.evaluation.report import embedding_plot

        self._folder.mkdir(exist_ok=True)
        names = [of.name] if of.name else []
        path = self._folder / f"{'_'.join([f'{step:08d}', *names, stream, layout])}.png"
        title = ", ".join([*names, layout, stream, f"step {step}"])
        labels = self._labels(of, "val")
        return embedding_plot(features, labels, of.part.store.classes, path, title=title)


def last_keys_cosine(method: nn.Module, count: int) -> float | None:
    """The mean cosine of the last keys of a method's queues, the largest; None without a queue."""
    from msclr.encoder.features import mean_cosine

    queues = [module for module in method.modules() if isinstance(module, Queue)]
    found = []
    for queue in queues:
        size = len(queue.keys)
        places = (int(queue.pointer) - 1 - torch.arange(min(count, size))) % size
        found.append(mean_cosine(queue.keys[places.to(queue.keys.device)]))
    return max(found, default=None)


def _sets(data: dict[str, SkeletonDataset]) -> list[_Set]:
    """The data sets that have enough clips, with a warning of others; InputError if none has."""
    parts = data["train"].parts
    names = _names([part.store for part in parts]) if len(parts) > 1 else [""]
    found, few, first = [], [], 0
    for number, (name, part) in enumerate(zip(names, parts, strict=True)):
        rows = {split: _chosen(x, number, MOST[split]) for split, x in data.items()}
        counts = {split: len(chosen) for split, chosen in rows.items()}
        if all(counts[split] >= fewest for split, fewest in _FEWEST.items()):
            found.append(_Set(name, part, rows, first))
        else:
            few.append(
                f"{part.store.path} has {counts['train']} train and {counts['val']} val clips"
            )
        first += len(part.store.classes)
    wanted = "; knn_every and tsne_every want 1 and 3 or more"
    if not found:
        raise InputError("; ".join(few) + wanted)
    if few:
        logger.warning("%s%s, and leave it out", "; ".join(few), wanted)
    return found


def _names(stores: Sequence[Store]) -> list[str]:
    """Those of the folders, as a file's name may have them; with a number if some are alike."""
    names = [re.sub(r"[^\w.-]+", "_", store.path.resolve().name) for store in stores]
    alike = len(set(names)) < len(names)
    return [f"{i}_{name}" for i, name in enumerate(names, 1)] if alike else names


def _chosen(data: SkeletonDataset, part: int, most: int) -> Tensor:
    """Clips of a data set, evenly spread where it has more than ``most``."""
    rows = np.flatnonzero(data.part_of == part)
    count = min(len(rows), most)
    rows = rows[np.arange(count) * len(rows) // max(count, 1)]
    return torch.from_numpy(rows).to(data.device)
