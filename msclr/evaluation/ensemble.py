"""Ensembles: the scores of several classifiers for the same clips, added up."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from msclr import layouts as layout_registry
from msclr.data.store import open_store
from msclr.errors import InputError
from msclr.evaluation.linear import BATCH_SIZE, EPOCHS, LR
from msclr.evaluation.metrics import per_class_accuracy, top_k_accuracy
from msclr.evaluation.protocols import LINEAR_DEFAULTS, _linear, linear_options
from msclr.evaluation.results import PerClip, digest, flags, keep_result
from msclr.evaluation.run import Run
from msclr.evaluation.splits import check_layouts, data_layouts
from msclr.paths import as_path

# Of the joint, bone and motion streams, as CrosSCLR and AimCLR weigh them.
STREAM_WEIGHTS = {"joint": 0.6, "bone": 0.6, "motion": 0.4}


def ensemble_logits(logits: Sequence[Tensor], weights: Sequence[float] | None = None) -> Tensor:
    """sum_i w_i logits_i; by default every w_i is 1/n, the mean.

    logits: n tensors (N, classes) of the same clips in the same order. The multi-skeleton ensemble
    is the mean over one linear classifier per layout; streams are added with `STREAM_WEIGHTS`.

    Raises InputError where there is nothing to add, shapes differ, a number is not finite, or
    `weights` are not one finite number each.
    """
    if len(logits) == 0:
        raise InputError("an ensemble of no logits; give one (N, classes) tensor per classifier")
    shapes = [tuple(each.shape) for each in logits]
    if len(shapes[0]) != 2 or any(shape != shapes[0] for shape in shapes):
        raise InputError(
            f"logits of an ensemble have shapes {shapes}; wanted one (N, classes) for all, "
            "of the same clips and classes"
        )
    if not all(each.isfinite().all() for each in logits):
        raise InputError(
            "logits of an ensemble hold NaN or infinite numbers; fit that classifier again"
        )
    if weights is None:
        weights = [1.0 / len(logits)] * len(logits)
    if len(weights) != len(logits) or not all(map(math.isfinite, weights)):
        raise InputError(
            f"ensemble weights are {list(weights)}; wanted {len(logits)} numbers, one each"
        )
    total = torch.zeros_like(logits[0])
    for weight, each in zip(weights, logits, strict=True):
        total = total + weight * each
    return total


def rows_by_name(names: Sequence[str], wanted: Sequence[str], whose: str, others: str) -> list[int]:
    """The row in `names` of each clip of `wanted`: the same clips, whatever their order.

    `whose` and `others` are what an error calls the two. Raises InputError unless both hold the
    same names, and each of them once if their order differs.
    """
    if list(names) == list(wanted):
        return list(range(len(names)))
    row = {name: number for number, name in enumerate(names)}
    if strange := row.keys() ^ set(wanted):
        name = min(strange)
        has, lacks = (whose, others) if name in row else (others, whose)
        raise InputError(
            f"an ensemble needs the same val clips in all data: clip {name!r} is in {has}, not in "
            f"{lacks}; prepare both from the same clips with the same names"
        )
    if len(row) < max(len(names), len(wanted)):
        raise InputError(
            f"the val clips of {whose} and {others} are in another order and cannot be matched, "
            "for their names repeat; give every clip a name of its own"
        )
    return [row[name] for name in wanted]


def evaluate_ensemble(
    runs: Sequence[Run],
    layouts: Sequence[str] | None = None,
    data: str | Path | None = None,
    *,
    epochs: int = EPOCHS,
    lr: float = LR,
    batch_size: int = BATCH_SIZE,
    solver: str = "sgd",
    route: str = "auto",
    mirror: bool = False,
) -> dict[str, Any]:
    """Add up the logits of a linear classifier per run and layout.

    Layouts count alike; streams by ``STREAM_WEIGHTS`` where the runs are of several. Data of
    several runs must hold the same val clips, which are matched by their names; for the options see
    :func:`fit_linear`.

    Returns:
        What ``msclr ensemble --json`` prints; ``members`` are the single classifiers. It also goes
        to the folder of the first run, see :func:`evaluate_linear`, as the members' results go to
        their own runs'.

    Raises:
        InputError: data without the same clips, or clips with other labels, or a run that is given
            twice; see also :func:`evaluate_linear`.
    """
    options = {"epochs": epochs, "lr": lr, "batch_size": batch_size, "solver": solver}
    options = {k: v for k, v in linear_options(options).items() if k != "seed"}
    fits = _fit_members(runs, layouts, data, options | {"route": route, "mirror": mirror})
    labels, classes = fits[0].labels, list(fits[0].result["per_class"])
    several = len({run.recipe.stream for run in runs}) > 1
    weights = [STREAM_WEIGHTS[fit.result["stream"]] if several else 1.0 for fit in fits]
    total = ensemble_logits([fit.logits for fit in fits], weights)
    results = [fit.result for fit in fits]
    result = _described(runs, results, weights) | options | {"mirror": mirror}
    result |= {
        "top1": top_k_accuracy(total, labels, 1),
        "top5": top_k_accuracy(total, labels, min(5, len(classes))),
        "best_top1": None,  # the members' last epochs are added up, no epoch is chosen
        "per_class": dict(
            zip(classes, per_class_accuracy(total, labels, len(classes)), strict=True)
        ),
        "notes": [
            f"{member['layout']} ({member['stream']}, {member['run']}): {note}"
            for member in results
            for note in member["notes"]
        ],
    }
    changed = {k: v for k, v in options.items() if v != LINEAR_DEFAULTS[k]}
    if route != "auto" and not all(member["seen_in_pretraining"] for member in results):
        changed["route"] = route
    changed |= {"mirror": True} if mirror else {}
    if (command := _command(runs, layouts, data, changed)) is not None:
        result["command"] = command
    store = open_store(runs[0].data_of(data), verify=False)
    clips = PerClip.of_logits(store.split("val").names, labels, classes, total)
    keep_result(runs[0], store, result, changed | _of_others(runs, data, result["members"]), clips)
    return result


def _described(
    runs: Sequence[Run], results: Sequence[dict[str, Any]], weights: Sequence[float]
) -> dict[str, Any]:
    """What the result says of its members; of the first alone, where a run has one value."""
    names = {
        key: "+".join(dict.fromkeys(result[key] for result in results))
        for key in ("layout", "stream", "encoder")
    }
    of_each = ("run", "layout", "stream", "encoder", "data", "step", "top1")
    return {
        "protocol": "ensemble",
        **names,
        **{key: results[0][key] for key in ("run", "data", "step", "versions")},
        "runs": list(dict.fromkeys(str(run.path) for run in runs)),
        "members": [
            {k: result[k] for k in of_each} | {"weight": weight}
            for result, weight in zip(results, weights, strict=True)
        ],
    }


def _command(
    runs: Sequence[Run],
    layouts: Sequence[str] | None,
    data: str | Path | None,
    options: Mapping[str, Any],
) -> str | None:
    """What prints the result again; None where only Python can ask for such members."""
    streams: dict[str, list[str]] = {}
    for run in runs:
        streams.setdefault(str(run.path), []).append(run.recipe.stream)
    words = ["msclr", "ensemble", *streams]
    words += ["--layout", ",".join(layouts)] if layouts else []
    words += ["--data", str(as_path(data))] if data is not None else []
    if any(run.encoders and streams[str(run.path)] != list(run.encoders) for run in runs):
        chosen, *others = dict.fromkeys("+".join(names) for names in streams.values())
        if others:
            return None
        words += ["--stream", chosen]
    if any(run.random for run in runs):
        if not all(run.random for run in runs):
            return None
        words += ["--random"]
    return shlex.join(words + flags(options))


def _of_others(
    runs: Sequence[Run], data: str | Path | None, members: Sequence[dict[str, Any]]
) -> dict[str, str]:
    """Of several runs: what tells their ensemble from others that lie in the first one's folder."""
    paths = {run.path.resolve(): open_store(run.data_of(data), verify=False) for run in runs}
    if len(paths) == 1:
        return {}
    what = [[str(path), store.meta["checksums"]] for path, store in paths.items()]
    what += [[member[key] for key in ("layout", "stream", "encoder")] for member in members]
    return {"runs": f"{len(paths)}_{digest(what)}"}


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
    given = Counter((run.path.resolve(), run.recipe.stream, run.kind) for run in runs)
    for (path, stream, _), times in given.items():
        if times > 1:
            raise InputError(f"an ensemble names the {stream} stream of {path} twice; give it once")
    for run in runs:
        check_layouts(run, layouts or (), data)
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
    return open_store(run.data_of(data), verify=False).split("val").names


def _names_in(run: Run, layouts: Sequence[str] | None, data: str | Path | None) -> list[str]:
    """Those layouts of the data that are asked for, each once even if an alias names it again."""
    available = data_layouts(run, data)
    names = (x if x in available else layout_registry.get(x).name for x in layouts or available)
    return list(dict.fromkeys(names))
