"""Evaluation of a run: linear, nearest neighbours, and ensembles of linear classifiers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from msclr import __version__
from msclr.data.dataset import SkeletonDataset
from msclr.data.store import Store, open_store
from msclr.errors import InputError
from msclr.evaluation.ensemble import STREAM_WEIGHTS, ensemble_logits
from msclr.evaluation.features import extract_features, fit_statistics
from msclr.evaluation.knn import knn
from msclr.evaluation.linear import fit_linear
from msclr.evaluation.metrics import per_class_accuracy, top_k_accuracy
from msclr.evaluation.run import Run


@dataclass
class SplitFeatures:
    """Frozen features of a data set under one layout."""

    train: Tensor  # (N_train, D)
    train_labels: Tensor
    val: Tensor  # (N_val, D)
    val_labels: Tensor
    classes: list[str]
    seen: bool  # whether the layout was part of pretraining


def data_layouts(run: Run, data: str | Path | None = None) -> list[str]:
    """The layouts of the data that a run is evaluated on, those of its pretraining first."""
    known = run.layouts
    available = list(open_store(data or run.recipe.data, verify=False).layouts)
    return [x for x in known if x in available] + [x for x in available if x not in known]


def features_of(
    run: Run, layout: str, data: str | Path | None = None, stream: str | None = None
) -> SplitFeatures:
    """Features of both splits, by the run's own data and stream unless others are given.

    A layout that the encoder does not know gets edge importance 1 and an input norm with the
    statistics of the training clips; a random encoder gets all its statistics that way.
    """
    store = _intact_store(data or run.recipe.data)
    stream = stream or run.recipe.stream
    train, val = (SkeletonDataset(store, s, [layout], run.device) for s in ("train", "val"))
    if not len(train) or not len(val):
        raise InputError(
            f"{store.path} has {len(train)} train and {len(val)} val clips; evaluation needs both"
        )
    (layout,) = train.layouts
    seen = layout in run.layouts
    if layout not in run.encoder.layouts:
        run.encoder.add_layout(train.layouts[layout])
    if run.random or not seen:
        fit_statistics(run.encoder, train, layout, stream, only_input=not run.random)
    train_x, val_x = (extract_features(run.encoder, part, layout, stream) for part in (train, val))
    return SplitFeatures(train_x, train.labels, val_x, val.labels, store.classes, seen)


_intact: set[tuple[Path, str]] = set()  # folders, and the checksums that their files had


def _intact_store(path: str | Path) -> Store:
    """An open store; its files, which may be gigabytes, are compared once a process."""
    store = open_store(path, verify=False)
    told = (store.path.resolve(), json.dumps(store.meta["checksums"]))
    if told not in _intact:
        open_store(path)
        _intact.add(told)
    return store


def evaluate_linear(
    run: Run,
    layout: str,
    data: str | Path | None = None,
    stream: str | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """The linear protocol on one layout; the result also goes to the run's folder."""
    return _linear(run, layout, data, stream, seed)[0]


def _linear(
    run: Run, layout: str, data: str | Path | None, stream: str | None = None, seed: int = 0
) -> tuple[dict[str, Any], Tensor, Tensor]:
    """The result of :func:`evaluate_linear`, the last epoch's logits and the labels."""
    f = features_of(run, layout, data, stream)
    fit = fit_linear(f.train, f.train_labels, f.val, f.val_labels, len(f.classes), seed=seed)
    result = _describe(run, "linear", layout, data, stream, seed) | {
        "seen_in_pretraining": f.seen,
        "top1": fit.top1,
        "top5": fit.top5,
        "best_top1": fit.best_top1,
        "best_top5": fit.best_top5,
        "best_epoch": fit.best_epoch,
        "per_class": dict(zip(f.classes, fit.per_class, strict=True)),
    }
    _save(run, result)
    return result, fit.logits, f.val_labels


def evaluate_knn(
    run: Run,
    layout: str,
    data: str | Path | None = None,
    stream: str | None = None,
    ks: Sequence[int] = (1, 20),
) -> dict[str, Any]:
    """Cosine nearest neighbours on one layout; ``top1`` is that of the first k."""
    f = features_of(run, layout, data, stream)
    ks = [k for k in ks if k <= len(f.train)]
    accuracy = knn(f.train, f.train_labels, f.val, f.val_labels, len(f.classes), ks)
    result = _describe(run, "knn", layout, data, stream) | {
        "seen_in_pretraining": f.seen,
        "top1": accuracy[ks[0]],
        "top5": None,  # a vote ranks no further classes
        "best_top1": max(accuracy.values()),
        "by_k": {str(k): accuracy[k] for k in ks},
    }
    _save(run, result)
    return result


def evaluate_ensemble(
    runs: Sequence[Run], layouts: Sequence[str] | None = None, data: str | Path | None = None
) -> dict[str, Any]:
    """Add up the logits of a linear classifier a run and layout.

    Layouts count alike; streams by ``STREAM_WEIGHTS`` where the runs are of several.
    """
    members, logits, weights, labels, classes = [], [], [], None, []
    several = len({run.recipe.stream for run in runs}) > 1
    for run in runs:
        for layout in layouts or data_layouts(run, data):
            result, scores, truth = _linear(run, layout, data)
            if labels is not None and not torch.equal(labels, truth):
                raise InputError(f"{run.folder} was evaluated on other clips than {runs[0].folder}")
            labels, classes = truth, list(result["per_class"])
            logits.append(scores)
            weights.append(STREAM_WEIGHTS[run.recipe.stream] if several else 1.0)
            members.append({k: result[k] for k in ("run", "layout", "stream", "encoder", "top1")})
    total = ensemble_logits(logits, weights)
    return {
        "protocol": "ensemble",
        "layout": "+".join(dict.fromkeys(member["layout"] for member in members)),
        "members": [m | {"weight": w} for m, w in zip(members, weights, strict=True)],
        "top1": top_k_accuracy(total, labels, 1),
        "top5": top_k_accuracy(total, labels, min(5, len(classes))),
        "best_top1": None,  # the members' last epochs are added up, no epoch is chosen
        "per_class": dict(
            zip(classes, per_class_accuracy(total, labels, len(classes)), strict=True)
        ),
    }


def _describe(run: Run, protocol: str, layout: str, data, stream, seed=None) -> dict[str, Any]:
    return {
        "protocol": protocol,
        "layout": layout,
        "stream": stream or run.recipe.stream,
        "encoder": run.kind,
        "run": str(run.folder),
        "data": str(data or run.recipe.data),
        "step": run.step,
        "versions": {"msclr": __version__, "torch": str(torch.__version__)},
        **({} if seed is None else {"seed": seed}),
    }


def _save(run: Run, result: dict[str, Any]) -> None:
    name = "-".join(result[k] for k in ("protocol", "layout", "stream", "encoder"))
    path = run.folder / "evaluation" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
