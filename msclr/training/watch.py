"""What is measured of an encoder while it is trained: nearest neighbours, maps, collapse.

An encoder of the same shape gets the weights and runs in eval mode, so that nothing of the one
that is trained changes: neither its mode, nor its statistics, nor a random number.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from msclr.data.dataset import SkeletonDataset
from msclr.errors import InputError
from msclr.methods import Queue
from msclr.training.build import build_encoders, open_clips
from msclr.training.log import KnnRecord, RunLog

if TYPE_CHECKING:
    from msclr.training.pretrain import Pretraining

_FEWEST = 3
MOST = {"train": 4096, "val": 2048}  # clips, evenly out of a split that has more


class Watch:
    """Measures a run's encoders on its data every ``knn_every`` steps and ``tsne_every`` epochs.

    Raises InputError where the data have no val clips, or are several data sets.
    """

    def __init__(self, run: Pretraining):
        recipe = run.recipe
        if isinstance(recipe.data, list):
            raise InputError("knn_every and tsne_every are of one data set, and data names several")
        self.run, self.recipe = run, recipe
        self.data = {"train": run.dataset, "val": open_clips(recipe, run.device, "val")}
        if len(self.data["val"]) < _FEWEST:
            raise InputError(
                f"{recipe.data} has {len(self.data['val'])} val clips, knn_every and tsne_every "
                f"want {_FEWEST} or more"
            )
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
        from msclr.encoder.features import mean_cosine
        from msclr.evaluation.knn import knn

        records = []
        labels = {split: x.labels[_chosen(x, split)] for split, x in self.data.items()}
        for stream, encoder in self.encoders.items():
            encoder.load_state_dict(self.run.encoder_of(stream).state_dict())
            for layout in self.data["train"].layouts:
                val = self._features(encoder, "val", layout, stream)
                if knn_due:
                    train = self._features(encoder, "train", layout, stream)
                    classes = len(self.data["train"].classes)
                    given = train, labels["train"], val, labels["val"], classes
                    records.append(
                        KnnRecord(step, stream, layout, knn(*given, ks=[1])[1], mean_cosine(val))
                    )
                if maps:
                    maps.write_map(self._draw(val, labels["val"], step, stream, layout))
        return records

    def _features(self, encoder, split: str, layout: str, stream: str) -> Tensor:
        from msclr.encoder.features import encode

        data, found = self.data[split], []
        with torch.no_grad():
            for index in _chosen(data, split).split(256):
                clips = data.clips(layout, index), data.bodies[index]
                found.append(encode(encoder, *clips, layout, stream, data.planar))
        return torch.cat(found)  # (N, D)

    def _draw(self, features: Tensor, labels: Tensor, step: int, stream: str, layout: str):
        from msclr.evaluation.report import embedding_plot

        self._folder.mkdir(exist_ok=True)
        path = self._folder / f"{step:08d}_{stream}_{layout}.png"
        title = f"{layout}, {stream}, step {step}"
        return embedding_plot(features, labels, self.data["val"].classes, path, title=title)


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


def _chosen(data: SkeletonDataset, split: str) -> Tensor:
    count = min(len(data), MOST[split])
    return torch.arange(count, device=data.device) * len(data) // count
