"""The linear classifier of an evaluation, to be exported with the encoder."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msclr.errors import InputError
from msclr.export.model import Head
from msclr.paths import as_path

if TYPE_CHECKING:
    from msclr.evaluation import Run

_APART = 1.0  # points of accuracy that rounding on another machine may move


def head_of(run: Run, evaluation: str | os.PathLike[str]) -> Head:
    """The classifier of a linear evaluation, trained once more as its result says.

    A result holds figures, not weights: those follow from the run, the data and the seed.

    Args:
        run: see :func:`msclr.evaluation.open_run`; of several streams, the one to be exported.
        evaluation: a result in the run's folder, by its path or its name there with or without
            ``.json``, such as "linear-coco_17-joint-pretrained".

    Raises:
        InputError: no such result; one of another protocol, stream or step, or of a random
            encoder; or the classifier's accuracy is another than the result's.
    """
    from msclr.evaluation.linear import fit_linear
    from msclr.evaluation.protocols import LINEAR_DEFAULTS, features_of

    path, result = _read(run.folder, evaluation)
    _check(run, result, path)
    route = result["route"] if result["route"] != "known" else "auto"
    f = features_of(run, result["layout"], result["data"], result["stream"], route)
    options = {key: result[key] for key in LINEAR_DEFAULTS if key in result}
    fit = fit_linear(f.train, f.train_labels, f.val, f.val_labels, len(f.classes), **options)
    if abs(fit.top1 - result["top1"]) > _APART:
        raise InputError(
            f"the classifier has top-1 {fit.top1:.1f} %, {path.name} says {result['top1']:.1f} %: "
            "the run or its data have changed since; evaluate it again"
        )
    return Head(f.layout, fit.weight.cpu(), fit.bias.cpu(), list(f.classes), path.name)


def _read(folder: Path, evaluation: str | os.PathLike[str]) -> tuple[Path, dict[str, Any]]:
    given = as_path(evaluation)
    kept = folder / "evaluation"
    places = [given, kept / given.name, kept / f"{given.name}.json"]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        there = sorted(x.stem for x in kept.glob("linear-*.json"))
        mend = f"there are {', '.join(there)}" if there else "run msclr evaluate linear first"
        raise InputError(f"{folder} has no evaluation {str(evaluation)!r}; {mend}")
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        return path, {**result, "layout": result["layout"], "protocol": result["protocol"]}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path} is no result of an evaluation ({error!r})") from None


def _check(run: Run, result: dict[str, Any], path: Path) -> None:
    if result["protocol"] != "linear":
        raise InputError(f"{path} is of protocol {result['protocol']}; give one of linear")
    if result["encoder"] != "pretrained":
        raise InputError(f"{path} is of a random encoder; give one of the pretrained encoder")
    if result.get("mirror"):
        raise InputError(
            f"{path} is of clips with their mirror images, an exported encoder sees no images; "
            "give one without --mirror"
        )
    if result["stream"] != run.recipe.stream:
        raise InputError(
            f"{path} is of stream {result['stream']}, exported is {run.recipe.stream}; give one of "
            "that stream, or export the other with --stream"
        )
    if result["step"] != run.step:
        raise InputError(
            f"{path} is of step {result['step']} of the run, which is at step {run.step}; evaluate "
            "it again"
        )
