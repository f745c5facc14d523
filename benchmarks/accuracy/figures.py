"""All accuracies of one encoder, by features that are computed once.

They are the figures of `msclr evaluate linear`, `knn`, `transfer` and `ensemble`, with the options
that those have by default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations

from torch import Tensor

from msclr.data.store import open_store
from msclr.evaluation import ensemble_logits, evaluate_ensemble, fit_linear, knn
from msclr.evaluation.metrics import top_k_accuracy
from msclr.evaluation.run import Run
from msclr.evaluation.splits import SplitFeatures, data_layouts, features_of
from msclr.evaluation.transfer import transferred

ROUTES = ("derive", "attach")  # to a layout that an encoder was not trained on
SOLVERS = {"linear": "sgd", "lbfgs": "lbfgs"}  # of linear classifiers, by the names of figures
MIRRORED = ("lbfgs",)  # those that also have figures of features with mirror images


def figures_of_all(
    runs: Sequence[Run], data: Mapping[str, str], mirrored: bool
) -> dict[str, float]:
    """Figures of each data set {name: folder}, with the name in front of each.

    Of several runs, which are of one stream each, those of their ensemble.
    """
    figures = {}
    for name, folder in data.items():
        if len(runs) == 1:
            of = figures_of(runs[0], folder, mirrored)
        else:
            of = figures_of_streams(runs, folder, mirrored)
        figures |= {f"{name} {figure}".strip(): top1 for figure, top1 in of.items()}
    return figures


def figures_of_streams(runs: Sequence[Run], data: str, mirrored: bool) -> dict[str, float]:
    """Top-1 in percent of all streams and layouts together, by the names of :func:`figures_of`."""
    asked = {"ensemble": {}, "lbfgs ensemble": {"solver": "lbfgs"}}
    if mirrored:
        asked["mirrored lbfgs ensemble"] = {"solver": "lbfgs", "mirror": True}
    return {
        name: evaluate_ensemble(runs, data=data, **options)["top1"]
        for name, options in asked.items()
    }


def figures_of(run: Run, data: str, mirrored: bool) -> dict[str, float]:
    """Top-1 in percent on a prepared folder.

    "linear L", "1nn L": of a layout of the data, or that the run derived; of one that the encoder
    was not trained on "linear L derive" and "linear L attach" in its place, by route.
    "A to B": the classifier trained on features of A, tested on B, unseen ones derived.
    "ensemble": of the data's layouts, unseen ones derived. "ensemble of trained": of those that the
    encoder was trained on, where there are several and others than the data's.
    "lbfgs L", "lbfgs A to B", "lbfgs ensemble": the same with classifiers by L-BFGS.
    "mirrored lbfgs L", "mirrored 1nn L", ..: the same of `--mirror`, where they are asked for.
    """
    figures = _figures_of(run, data, tuple(SOLVERS))
    if mirrored:
        of = _figures_of(run, data, MIRRORED, mirror=True)
        figures |= {f"mirrored {name}": top1 for name, top1 in of.items()}
    return figures


def _figures_of(
    run: Run, data: str, kinds: tuple[str, ...], mirror: bool = False
) -> dict[str, float]:
    stored = list(open_store(data, verify=False).layouts)
    trained = [layout for layout in data_layouts(run, data) if layout in run.layouts]
    figures: dict[str, float] = {}
    features: dict[str, SplitFeatures] = {}
    logits: dict[tuple[str, str], Tensor] = {}
    for layout in dict.fromkeys([*stored, *trained]):
        seen = layout in run.layouts
        for route in ("auto",) if seen else ROUTES:
            f = features_of(run, layout, data, route=route, mirror=mirror)
            name = layout if seen else f"{layout} {route}"
            features.setdefault(layout, f)
            for kind in kinds:
                fit, figures[f"{kind} {name}"] = _linear(f, f, kind)
                logits.setdefault((kind, layout), fit)
            split = f.train, f.train_labels, f.val, f.val_labels
            figures[f"1nn {name}"] = knn(*split, len(f.classes), [1])[1]
    labels = features[stored[0]].val_labels
    for kind in kinds:
        prefix = "" if kind == "linear" else f"{kind} "
        for source, target in permutations(stored, 2):
            top1 = _linear(features[source], features[target], kind)[1]
            figures[f"{prefix}{source} to {target}"] = top1
        for name, members in (("ensemble", stored), ("ensemble of trained", trained)):
            if len(members) > 1 and (name == "ensemble" or set(members) != set(stored)):
                total = ensemble_logits([logits[kind, layout] for layout in members])
                figures[prefix + name] = top_k_accuracy(total, labels, 1)
    return figures


def _linear(source: SplitFeatures, target: SplitFeatures, kind: str) -> tuple[Tensor, float]:
    x, val = transferred(source, target, SOLVERS[kind])
    split = x, source.train_labels, val, target.val_labels
    fit = fit_linear(*split, len(source.classes), solver=SOLVERS[kind])
    return fit.logits, fit.top1
