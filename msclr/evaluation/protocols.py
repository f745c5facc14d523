"""Evaluation of a run: linear, and nearest neighbours."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from msclr.errors import InputError
from msclr.evaluation.knn import knn_classes
from msclr.evaluation.linear import BATCH_SIZE, EPOCHS, LR, check_options, fit_linear
from msclr.evaluation.results import PerClip, check_also, describe, keep_result, of_route
from msclr.evaluation.run import Run
from msclr.evaluation.splits import SplitFeatures, distinct, features_of, labels_note

KS = (1, 20)
OF_SGD = {"seed": 0, "epochs": EPOCHS, "lr": LR, "batch_size": BATCH_SIZE}
LINEAR_DEFAULTS = OF_SGD | {"solver": "sgd"}


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
    solver: str = "sgd",
    route: str = "auto",
    mirror: bool = False,
    also: Collection[str] = (),
    features: SplitFeatures | None = None,
) -> dict[str, Any]:
    """The linear protocol on one layout; the result also goes to the run's folder.

    Args:
        run: see :func:`open_run`.
        layout: its name, in the data.
        data: a prepared folder; None for that of the run's recipe.
        stream: "joint", "motion" or "bone"; None for the recipe's. Several as "joint+motion+bone"
            train a classifier for each together, on the mean of their logits (CrosSCLR).
        seed, epochs, lr, batch_size: of SGD, see :func:`fit_linear`; the rate falls after 80 % of
            the epochs.
        solver: "sgd", the papers' protocol, or "lbfgs", which takes no options of SGD.
        route: for a layout that the encoder was not trained on, see :func:`features_of`.
        mirror: take the mean of the features of each clip and of its mirror image.
        also: "scores" keeps the names, labels and logits of the val clips in an .npz file next to
            the result, "confusion" the confusion matrix as .csv and .png.
        features: what :func:`features_of` gave for the same run, layout, data, stream, route and
            mirror, to spare computing them again.

    Returns:
        What ``msclr evaluate linear --json`` prints. Its ``notes`` are sentences that whoever reads
        the figures should know: of features that coincide, of training that is not stable, and of
        a run's folder that cannot be written. ``confusion`` has a row per true class and a column
        per class that was found, ``files`` are those that were written, and ``command`` prints the
        result again.

    Raises:
        InputError: see :func:`features_of` and :func:`fit_linear`.
    """
    options = {"seed": seed, "epochs": epochs, "lr": lr, "batch_size": batch_size, "solver": solver}
    how = {"route": route, "mirror": mirror, "also": also, "features": features}
    return _linear(run, layout, data, stream, **how, **options)[0]


def _linear(
    run: Run,
    layout: str,
    data: str | Path | None,
    stream: str | None = None,
    route: str = "auto",
    mirror: bool = False,
    also: Collection[str] = (),
    features: SplitFeatures | None = None,
    **options,
) -> tuple[dict[str, Any], Tensor, Tensor]:
    """The result of :func:`evaluate_linear`, the last epoch's logits and the labels."""
    options = linear_options(options)  # before the long part
    check_also(also)
    f = features or features_of(run, layout, data, stream, route, mirror)
    fit = fit_linear(*f.split, classifiers=f.streams, **options)
    result = describe(run, "linear", f, data, stream) | options
    result |= fit.figures() | {
        "per_class": dict(zip(distinct(f.classes), fit.per_class, strict=True)),
        "notes": f.notes + labels_note(f.train_labels, f.val_labels, f.classes) + fit.notes,
    }
    changed = {k: v for k, v in options.items() if v != LINEAR_DEFAULTS[k]} | of_route(f, route)
    clips = PerClip.of_logits(f.val_names, f.val_labels, f.classes, fit.logits)
    keep_result(run, f.store, result, changed, clips, also)
    return result, fit.logits, f.val_labels


def linear_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """All that a linear classifier is trained by; of L-BFGS its name alone.

    Raises InputError for options out of range, and for those of SGD where L-BFGS would ignore them.
    """
    options = LINEAR_DEFAULTS | given
    check_options(**options)
    if options["solver"] == "sgd":
        return options
    if unread := [name for name, value in OF_SGD.items() if options[name] != value]:
        raise InputError(f"solver lbfgs takes no {', '.join(unread)}; leave out, or take sgd")
    return {"solver": options["solver"]}


def evaluate_knn(
    run: Run,
    layout: str,
    data: str | Path | None = None,
    stream: str | None = None,
    ks: Sequence[int] = KS,
    *,
    route: str = "auto",
    mirror: bool = False,
    also: Collection[str] = (),
    features: SplitFeatures | None = None,
) -> dict[str, Any]:
    """Cosine nearest neighbours on one layout; ``top1`` is that of the first k.

    Of ``ks`` those are left out that exceed the number of training clips. For the other arguments
    and the ``notes`` of the result see :func:`evaluate_linear`; the scores of a clip are the
    classes that were found for it, and the confusion matrix is that of the first k.
    """
    check_also(also)
    f = features or features_of(run, layout, data, stream, route, mirror)
    changed = ({} if tuple(ks) == KS else {"ks": ks}) | of_route(f, route)
    ks = [k for k in ks if k <= len(f.train)] or ks  # none fits: knn_classes says what would
    found = knn_classes(*f.split, ks)
    hits = {k: (found[k] == f.val_labels).sum().item() for k in ks}
    accuracy = {k: 100.0 * hits[k] / len(f.val) for k in ks}
    result = describe(run, "knn", f, data, stream) | {
        "top1": accuracy[ks[0]],
        "top5": None,  # a vote ranks no further classes
        "best_top1": max(accuracy.values()),
        "by_k": {str(k): accuracy[k] for k in ks},
        "notes": f.notes + labels_note(f.train_labels, f.val_labels, f.classes),
    }
    arrays = {f"k{k}": found[k] for k in ks}
    clips = PerClip(f.val_names, f.val_labels, f.classes, arrays, found[ks[0]])
    keep_result(run, f.store, result, changed, clips, also)
    return result
