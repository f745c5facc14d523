"""Label transfer: a classifier trained on one convention's features, tested on another's."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from msclr.errors import InputError
from msclr.evaluation.linear import BATCH_SIZE, EPOCHS, LR, fit_linear
from msclr.evaluation.logistic import standardised
from msclr.evaluation.protocols import LINEAR_DEFAULTS, linear_options
from msclr.evaluation.results import PerClip, check_also, describe, keep_result, of_route
from msclr.evaluation.run import Run
from msclr.evaluation.splits import SplitFeatures, features_of, labels_note
from msclr.paths import as_path


def evaluate_transfer(
    run: Run,
    train_layout: str,
    test_layout: str,
    data: str | Path | None = None,
    stream: str | None = None,
    seed: int = 0,
    *,
    train_data: str | Path | None = None,
    epochs: int = EPOCHS,
    lr: float = LR,
    batch_size: int = BATCH_SIZE,
    solver: str = "sgd",
    route: str = "auto",
    mirror: bool = False,
    also: Collection[str] = (),
    features: tuple[SplitFeatures, SplitFeatures] | None = None,
) -> dict[str, Any]:
    """How well labels given under one layout serve for another, on which none are used.

    A linear classifier is trained on the features of the train clips of ``train_data`` under
    ``train_layout``, and tested on the val clips of ``data`` under ``test_layout``.

    Args:
        run: see :func:`~msclr.evaluation.open_run`.
        train_layout, test_layout: names of layouts of the data, or of what the run derived.
        data: the prepared folder that is tested on; None for ``train_data``. Of another one the
            classes are matched by their names; clips of classes that only one of the two has are
            left out, of training too.
        stream, seed, epochs, lr, batch_size, solver, route, mirror, also: see
            :func:`~msclr.evaluation.evaluate_linear`.
        features: what :func:`transfer_features` gave for the same arguments.
        train_data: the prepared folder whose labels are used; None for the run's own.

    Returns:
        What ``msclr evaluate transfer --json`` prints, as :func:`evaluate_linear` has it, with
        ``train_layout``, ``test_layout``, ``train_data`` and ``classes``, the names that both have;
        it also goes to the run's folder. Where the encoder does not know the layout that is tested
        on, it is fitted to the train clips there, without their labels.

    Raises:
        InputError: data without a class in common; see also :func:`evaluate_linear`.
    """
    options = {"seed": seed, "epochs": epochs, "lr": lr, "batch_size": batch_size, "solver": solver}
    options = linear_options(options)  # before the long part
    check_also(also)
    train_data, data = _folders(run, train_data, data)
    source, target = features or transfer_features(
        run, train_layout, test_layout, data, stream, route, train_data, mirror
    )
    classes = _shared(source, target)
    x, test_x = transferred(source, target, solver)
    x, y, _ = _of_classes(x, source.train_labels, source.classes, classes)
    test_x, test_y, names = _of_classes(
        test_x, target.val_labels, target.classes, classes, target.val_names
    )
    for clips, what, f in ((y, "train", source), (test_y, "val", target)):
        if not len(clips):
            raise InputError(f"{f.store.path} has no {what} clip of the classes that both have")
    splits = x, y, test_x, test_y
    fit = fit_linear(*splits, len(classes), classifiers=source.streams, **options)
    result = describe(run, "transfer", target, data, stream) | options
    result |= {
        "layout": f"{source.layout}-to-{target.layout}",
        "train_layout": source.layout,
        "test_layout": target.layout,
        "train_data": str(as_path(train_data)),
        "classes": classes,
        **fit.figures(),
        "per_class": dict(zip(classes, fit.per_class, strict=True)),
        "notes": _notes(source, target, classes, len(y), len(test_y))
        + labels_note(y, test_y, classes)
        + fit.notes,
    }
    changed = {k: v for k, v in options.items() if v != LINEAR_DEFAULTS[k]}
    changed |= of_route(target, route) | of_route(source, route)
    clips = PerClip.of_logits(names, test_y, classes, fit.logits)
    keep_result(run, target.store, result, changed, clips, also, source.store)
    return result


def transfer_features(
    run: Run,
    train_layout: str,
    test_layout: str,
    data: str | Path | None = None,
    stream: str | None = None,
    route: str = "auto",
    train_data: str | Path | None = None,
    mirror: bool = False,
) -> tuple[SplitFeatures, SplitFeatures]:
    """Features of what is trained on and of what is tested on; see :func:`evaluate_transfer`."""
    train_data, data = _folders(run, train_data, data)
    source = features_of(run, train_layout, train_data, stream, route, mirror)
    if data == train_data and test_layout == train_layout:
        return source, source
    return source, features_of(run, test_layout, data, stream, route, mirror)


def transferred(source: SplitFeatures, target: SplitFeatures, solver: str) -> tuple[Tensor, Tensor]:
    """Train features (N, D) of the source and val features (K, D) of the target for a classifier.

    For L-BFGS, which standardises, each side is standardised by its own train clips, without their
    labels: what shifts or scales all features of a convention is no part of an action.
    """
    if solver == "sgd":
        return source.train, target.val
    return standardised(source.train, source.train), standardised(target.val, target.train)


def _folders(
    run: Run, train_data: str | Path | None, data: str | Path | None
) -> tuple[str | Path, str | Path]:
    """The data whose labels are used, and those that are tested on."""
    if train_data is None and isinstance(run.recipe.data, list):
        raise InputError(
            f"{run.folder} was trained on several data sets: say whose labels to use, "
            f"--train-data {' or --train-data '.join(run.recipe.data)}"
        )
    train_data = run.data_of(train_data)
    return train_data, train_data if data is None else data


def _shared(source: SplitFeatures, target: SplitFeatures) -> list[str]:
    """The names of the classes that both have, in the order of the source."""
    classes = [name for name in source.classes if name in set(target.classes)]
    if not classes:
        raise InputError(
            f"{source.store.path} and {target.store.path} have no class name in common (such as "
            f"{source.classes[0]!r} there, {target.classes[0]!r} here); prepare both with the same "
            "names of classes"
        )
    return classes


def _of_classes(
    x: Tensor,
    labels: Tensor,
    classes: list[str],
    wanted: list[str],
    names: Sequence[str] | None = None,
) -> tuple[Tensor, Tensor, list[str]]:
    """The clips (N, D) of the wanted classes, their labels (N,) counted in those, their names."""
    number = {name: i for i, name in enumerate(wanted)}
    table = torch.tensor([number.get(name, -1) for name in classes], device=labels.device)
    labels = table[labels]
    kept = labels >= 0
    rows = kept.nonzero()[:, 0].tolist()
    return x[kept], labels[kept], [names[row] for row in rows] if names else []


def _notes(
    source: SplitFeatures, target: SplitFeatures, classes: list[str], train: int, test: int
) -> list[str]:
    both = [(f.layout, note) for f in (source, target) for note in f.notes]
    notes = [f"{layout}: {note}" for layout, note in dict.fromkeys(both)]
    if len(classes) < max(len(source.classes), len(target.classes)):
        notes.append(
            f"{len(classes)} classes are in both data sets, of {len(source.classes)} and "
            f"{len(target.classes)}; clips of the others are left out: "
            f"{len(source.train_labels) - train} of training, "
            f"{len(target.val_labels) - test} that would be tested"
        )
    return notes
