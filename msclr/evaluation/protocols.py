"""Evaluation of a run: linear, nearest neighbours, and ensembles of linear classifiers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from msclr import __version__
from msclr import layouts as layout_registry
from msclr.data.dataset import SkeletonDataset
from msclr.data.store import Store, open_store
from msclr.encoder.routes import Route, choose_route
from msclr.errors import InputError
from msclr.evaluation.compare import require_same_kind
from msclr.evaluation.ensemble import STREAM_WEIGHTS, ensemble_logits, rows_by_name
from msclr.evaluation.features import collapse_note, extract_features, prepare_route
from msclr.evaluation.knn import knn
from msclr.evaluation.linear import BATCH_SIZE, EPOCHS, LR, check_options, fit_linear
from msclr.evaluation.metrics import per_class_accuracy, top_k_accuracy
from msclr.evaluation.results import keep_result
from msclr.evaluation.run import Run, chosen_streams
from msclr.paths import as_path
from msclr.training.backend import fitting, running_on

KS = (1, 20)
LINEAR_DEFAULTS = {"seed": 0, "epochs": EPOCHS, "lr": LR, "batch_size": BATCH_SIZE}


@dataclass
class SplitFeatures:
    """Frozen features of a data set under one layout."""

    train: Tensor  # (N_train, D)
    train_labels: Tensor
    val: Tensor  # (N_val, D)
    val_labels: Tensor
    classes: list[str]
    seen: bool  # whether the layout was part of pretraining
    layout: str  # its name, where an alias was asked for
    store: Store
    route: Route
    notes: list[str]  # what whoever reads figures of these features should know
    streams: int = 1  # whose features are side by side in D

    def per_class(self, values: Sequence[float | None]) -> dict[str, float | None]:
        """{class: value}; classes of one name are kept apart by their numbers."""
        return dict(zip(_distinct(self.classes), values, strict=True))


def data_layouts(run: Run, data: str | Path | None = None) -> list[str]:
    """The layouts of the data that a run is evaluated on, those of its pretraining first."""
    known = run.layouts
    store = open_store(data or run.recipe.data, verify=False)
    available = [*store.layouts, *(derived_of(run, store))]
    return [x for x in known if x in available] + [x for x in available if x not in known]


def derived_of(run: Run, store: Store) -> dict[str, str]:
    """{layout: its source}: what the run derived as it trained, as far as these data allow it."""
    return {
        name: source
        for name, source in run.derived.items()
        if name not in store.layouts and source in store.layouts
    }


def open_splits(run: Run, store: Store, layout: str) -> list[SkeletonDataset]:
    """The train and the val clips under a layout that the data have, or that the run derived."""
    derived = derived_of(run, store)
    known = layout in derived or layout in store.layouts
    name = layout if known else layout_registry.get(layout).name
    asked = ([], {name: derived[name]}) if name in derived else ([name], {})
    return [
        SkeletonDataset(store, split, asked[0], run.device, derive=asked[1])
        for split in ("train", "val")
    ]


def features_of(
    run: Run,
    layout: str,
    data: str | Path | None = None,
    stream: str | None = None,
    route: str = "auto",
) -> SplitFeatures:
    """Features of both splits, by the run's own data and stream unless others are given.

    Of a run that trained an encoder for each stream, "joint+motion+bone" gives those of all three
    side by side, each a third of its size: logits are then the mean over classifiers of streams.

    A layout that the encoder does not know takes a ``route``, see :meth:`msclr.Encoder.embed`; what
    is attached is fitted on the training clips. A random encoder has all its statistics from them.

    Raises InputError for data without clips or without the layout, and for data of another kind
    than the run was trained on: see :func:`msclr.evaluation.compare.require_same_kind`.
    """
    stream = stream or run.recipe.stream
    if "+" in stream:
        runs = chosen_streams(run, stream)
        return _side_by_side([features_of(one, layout, data, None, route) for one in runs])
    run = run.of_stream(stream) if run.encoders else run
    store = _intact_store(data or run.recipe.data)
    train, val = open_splits(run, store, layout)
    if not len(train) or not len(val):
        raise InputError(
            f"{store.path} has {len(train)} train and {len(val)} val clips; evaluation needs both"
        )
    (layout,) = train.layouts
    require_same_kind(run, store, layout)
    seen = layout in run.layouts
    known = {name: run.encoder.layouts[name] for name in run.layouts}
    way = choose_route(known, train.layouts[layout], route)
    with running_on(fitting(run.recipe.backend, run.device), run.device):
        prepare_route(way, run.encoder, train, stream, run.random)
        train_x, val_x = (
            extract_features(run.encoder, part, layout, stream, None if seen else way)
            for part in (train, val)
        )
    notes = [] if seen else [*way.notes, way.line]
    notes += filter(None, [collapse_note(train_x)])
    return SplitFeatures(
        train_x,
        train.labels,
        val_x,
        val.labels,
        store.classes,
        seen,
        layout,
        store,
        way,
        notes=notes,
    )


def _side_by_side(parts: list[SplitFeatures]) -> SplitFeatures:
    return replace(
        parts[0],
        train=torch.cat([part.train for part in parts], dim=1) / len(parts),
        val=torch.cat([part.val for part in parts], dim=1) / len(parts),
        notes=list(dict.fromkeys(note for part in parts for note in part.notes)),
        streams=len(parts),
    )


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
    *,
    epochs: int = EPOCHS,
    lr: float = LR,
    batch_size: int = BATCH_SIZE,
    route: str = "auto",
) -> dict[str, Any]:
    """The linear protocol on one layout; the result also goes to the run's folder.

    Args:
        run: see :func:`open_run`.
        layout: its name, in the data.
        data: a prepared folder; None for that of the run's recipe.
        stream: "joint", "motion" or "bone"; None for the recipe's. Several as "joint+motion+bone"
            train a classifier for each together, on the mean of their logits (CrosSCLR).
        seed, epochs, lr, batch_size: see :func:`fit_linear`; the rate falls after 80 % of the
            epochs.
        route: for a layout that the encoder was not trained on, see :func:`features_of`.

    Returns:
        What ``msclr evaluate linear --json`` prints. Its ``notes`` are sentences that whoever reads
        the figures should know: of features that coincide, of training that is not stable, and of
        a run's folder that cannot be written.

    Raises:
        InputError: see :func:`features_of` and :func:`fit_linear`.
    """
    options = {"seed": seed, "epochs": epochs, "lr": lr, "batch_size": batch_size}
    return _linear(run, layout, data, stream, route, **options)[0]


def _linear(
    run: Run,
    layout: str,
    data: str | Path | None,
    stream: str | None = None,
    route: str = "auto",
    **options,
) -> tuple[dict[str, Any], Tensor, Tensor]:
    """The result of :func:`evaluate_linear`, the last epoch's logits and the labels."""
    options = LINEAR_DEFAULTS | options
    check_options(options["epochs"], options["lr"], options["batch_size"])  # before the long part
    f = features_of(run, layout, data, stream, route)
    splits = f.train, f.train_labels, f.val, f.val_labels
    fit = fit_linear(*splits, len(f.classes), classifiers=f.streams, **options)
    result = describe(run, "linear", f, data, stream) | options
    result |= {
        "top1": fit.top1,
        "top5": fit.top5,
        "best_top1": fit.best_top1,
        "best_top5": fit.best_top5,
        "best_epoch": fit.best_epoch,
        "per_class": f.per_class(fit.per_class),
        "notes": f.notes + fit.notes,
    }
    changed = [f"{k}{v}" for k, v in options.items() if v != LINEAR_DEFAULTS[k]]
    changed += of_route(f, route)
    keep_result(run, f.store, result, changed)
    return result, fit.logits, f.val_labels


def evaluate_knn(
    run: Run,
    layout: str,
    data: str | Path | None = None,
    stream: str | None = None,
    ks: Sequence[int] = KS,
    *,
    route: str = "auto",
) -> dict[str, Any]:
    """Cosine nearest neighbours on one layout; ``top1`` is that of the first k.

    Of ``ks`` those are left out that exceed the number of training clips. For the other arguments
    and the ``notes`` of the result see :func:`evaluate_linear`.
    """
    f = features_of(run, layout, data, stream, route)
    changed = [] if tuple(ks) == KS else [f"k{k}" for k in ks]
    changed += of_route(f, route)
    ks = [k for k in ks if k <= len(f.train)]
    accuracy = knn(f.train, f.train_labels, f.val, f.val_labels, len(f.classes), ks)
    result = describe(run, "knn", f, data, stream) | {
        "top1": accuracy[ks[0]],
        "top5": None,  # a vote ranks no further classes
        "best_top1": max(accuracy.values()),
        "by_k": {str(k): accuracy[k] for k in ks},
        "notes": list(f.notes),
    }
    keep_result(run, f.store, result, changed)
    return result


def evaluate_ensemble(
    runs: Sequence[Run],
    layouts: Sequence[str] | None = None,
    data: str | Path | None = None,
    *,
    epochs: int = EPOCHS,
    lr: float = LR,
    batch_size: int = BATCH_SIZE,
    route: str = "auto",
) -> dict[str, Any]:
    """Add up the logits of a linear classifier a run and layout.

    Layouts count alike; streams by ``STREAM_WEIGHTS`` where the runs are of several. Data of
    several runs must hold the same val clips, which are matched by their names; for the options see
    :func:`fit_linear`.

    Raises:
        InputError: data without the same clips, or clips with other labels; see also
            :func:`evaluate_linear`.
    """
    options = {"epochs": epochs, "lr": lr, "batch_size": batch_size, "route": route}
    fits = _fit_members(runs, layouts, data, options)
    labels, names = fits[0].labels, list(fits[0].result["per_class"])
    several = len({run.recipe.stream for run in runs}) > 1
    weights = [STREAM_WEIGHTS[fit.result["stream"]] if several else 1.0 for fit in fits]
    total = ensemble_logits([fit.logits for fit in fits], weights)
    results = [fit.result for fit in fits]
    kept = ("run", "layout", "stream", "encoder", "top1")
    return {
        "protocol": "ensemble",
        "layout": "+".join(dict.fromkeys(result["layout"] for result in results)),
        "members": [
            {k: result[k] for k in kept} | {"weight": weight}
            for result, weight in zip(results, weights, strict=True)
        ],
        "top1": top_k_accuracy(total, labels, 1),
        "top5": top_k_accuracy(total, labels, min(5, len(names))),
        "best_top1": None,  # the members' last epochs are added up, no epoch is chosen
        "per_class": dict(zip(names, per_class_accuracy(total, labels, len(names)), strict=True)),
        "notes": [
            f"{result['layout']} ({result['run']}): {note}"
            for result in results
            for note in result["notes"]
        ],
    }


class _Fit(NamedTuple):
    """A member of an ensemble; its rows are the val clips of the first run, in their order."""

    result: dict[str, Any]
    logits: Tensor  # (N, classes)
    labels: Tensor  # (N,)


def _fit_members(
    runs: Sequence[Run],
    layouts: Sequence[str] | None,
    data: str | Path | None,
    options: dict[str, Any],
) -> list[_Fit]:
    if not runs:
        raise InputError("an ensemble of no runs; give one or more")
    clips = [_val_names(run, data) for run in runs]
    orders = [  # of all runs before any of them is fitted
        rows_by_name(names, clips[0], f"the data of {run.folder}", f"the data of {runs[0].folder}")
        for names, run in zip(clips, runs, strict=True)
    ]
    fits: list[_Fit] = []
    for run, rows in zip(runs, orders, strict=True):
        for layout in _names_in(run, layouts, data):
            result, logits, labels = _linear(run, layout, data, **options)
            fits.append(_Fit(result, logits[rows], labels[rows]))
            unlike = fits[0].labels != fits[-1].labels
            if unlike.any():
                clip = clips[0][int(unlike.nonzero()[0])]
                raise InputError(
                    f"an ensemble needs the same labels in all data: val clip {clip!r} has label "
                    f"{fits[-1].labels[unlike][0]} in the data of {run.folder}, "
                    f"{fits[0].labels[unlike][0]} in that of {runs[0].folder}; prepare both with "
                    "the same labels"
                )
    return fits


def _val_names(run: Run, data: str | Path | None) -> list[str]:
    return open_store(data or run.recipe.data, verify=False).split("val").names


def _names_in(run: Run, layouts: Sequence[str] | None, data: str | Path | None) -> list[str]:
    """Those layouts of the data that are asked for, each once even if an alias names it again."""
    available = data_layouts(run, data)
    names = (x if x in available else layout_registry.get(x).name for x in layouts or available)
    return list(dict.fromkeys(names))


def _distinct(classes: Sequence[str]) -> list[str]:
    """Class names; those that several classes have get the number of the class."""
    count = Counter(classes)
    names = [f"{name} ({i})" if count[name] > 1 else name for i, name in enumerate(classes)]
    if len(set(names)) < len(names):  # another class is called so already
        names = [f"{name} ({i})" for i, name in enumerate(classes)]
    return names


def of_route(f: SplitFeatures, route: str) -> list[str]:
    """What a route that was asked for adds to the name of a result's file."""
    return [f"route_{f.route.kind}"] if route != "auto" and not f.seen else []


def describe(run: Run, protocol: str, f: SplitFeatures, data, stream) -> dict[str, Any]:
    return {
        "protocol": protocol,
        "layout": f.layout,
        "stream": stream or run.recipe.stream,
        "encoder": run.kind,
        "run": str(run.folder),
        "data": str(as_path(data or run.recipe.data)),
        "step": run.step,
        "versions": {"msclr": __version__, "torch": str(torch.__version__)},
        "seen_in_pretraining": f.seen,
        "route": f.route.kind,
    }
