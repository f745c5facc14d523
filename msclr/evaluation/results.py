"""What an evaluation leaves in the folder of its run."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import os
import re
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from msclr import __version__
from msclr.data.store import Store
from msclr.errors import InputError
from msclr.evaluation.metrics import best_class, confusion_matrix
from msclr.evaluation.run import Run
from msclr.evaluation.splits import SplitClips, SplitFeatures, distinct
from msclr.paths import as_path

SCORES, CONFUSION = "scores", "confusion"  # what may be kept next to a result
_FLAGS = {"seed": "--seeds"}  # of options that have another name on the command line


@dataclass(frozen=True)
class PerClip:
    """What an evaluation found for each of N val clips.

    names: N strings.
    labels: (N,) int64.
    classes: their names.
    arrays: {name: (N, ...)}, such as logits.
    predicted: (N,) int64, the class that was found; None where none is.
    """

    names: Sequence[str]
    labels: Tensor
    classes: Sequence[str]
    arrays: Mapping[str, Tensor] = field(default_factory=dict)
    predicted: Tensor | None = None

    @classmethod
    def of_logits(
        cls, names: Sequence[str], labels: Tensor, classes: Sequence[str], logits: Tensor
    ) -> PerClip:
        return cls(names, labels, classes, {"logits": logits}, best_class(logits))


def check_also(also: Collection[str], predicts: bool = True) -> None:
    """Raise InputError for what an evaluation cannot keep next to its result."""
    for name in also:
        if name not in (SCORES, CONFUSION):
            raise InputError(f"also is {name!r}; choose among {SCORES} and {CONFUSION}")
    if CONFUSION in also and not predicts:
        raise InputError("retrieval predicts no class and has no confusion matrix; leave it out")


def describe(
    run: Run, protocol: str, f: SplitClips | SplitFeatures, data: Any, stream: str | None
) -> dict[str, Any]:
    """What every result says of the run, the data and the way from one to the other."""
    return {
        "protocol": protocol,
        "layout": f.layout,
        "stream": stream or run.recipe.stream,
        "encoder": run.kind,
        "run": str(run.path),
        "data": str(as_path(run.data_of(data))),
        "step": run.step,
        "versions": {"msclr": __version__, "torch": str(torch.__version__)},
        "seen_in_pretraining": f.seen,
        "route": f.route.kind,
        "mirror": f.route.mirror,
    }


def of_route(f: SplitClips | SplitFeatures, route: str) -> dict[str, str | bool]:
    """The route that was asked for, as options of a result, where it made a difference."""
    kind = {"route": f.route.kind} if route != "auto" and not f.seen else {}
    return kind | ({"mirror": True} if f.route.mirror else {})


def keep_result(
    run: Run,
    store: Store,
    result: dict[str, Any],
    options: Mapping[str, Any],
    clips: PerClip,
    also: Collection[str] = (),
    train_store: Store | None = None,
) -> None:
    """Complete a result and write it to the run's folder, each variant to a file of its own.

    ``evaluation/<protocol>-<layout>-<stream>-<encoder>.json`` is that of the run's own data by the
    protocol's defaults. A checkpoint other than the last one adds its name, other data their name
    and eight digits of the hash of their checksums, and ``options`` are those that differ from the
    defaults; ``train_store`` is where the labels are from, if not from ``store``. With "scores" in
    ``also`` an .npz file next to it has what was found for each clip, with "confusion" the
    confusion matrix is kept as .csv and .png.

    The result gets ``command``, where it is no ensemble's, ``files`` and, where a class is
    predicted, ``confusion``: rows are true classes, columns those predicted. Where a file cannot be
    written, as on a read-only disk, it gets a note instead.
    """
    parts = [result["protocol"], _short(result["layout"]), result["stream"], result["encoder"]]
    parts += [Path(run.checkpoint).stem] if run.path != run.folder else []
    parts += _data_suffix(run, store)
    if train_store is not None and train_store.meta["checksums"] != store.meta["checksums"]:
        source = _data_suffix(run, train_store)
        parts += ["from", *source] if source else []
    stem = "-".join([*parts, *_suffixes(options)])
    folder = run.folder / "evaluation"
    if result["protocol"] != "ensemble":
        result["command"] = _command(run, result, options)
    matrix = None
    if clips.predicted is not None:
        matrix = confusion_matrix(clips.predicted, clips.labels, len(clips.classes))
        result["confusion"] = matrix.tolist()
    contents = dict(_details(clips, matrix, also, stem))
    result["files"] = {kind: str(folder / f"{stem}.{kind}") for kind in ("json", *contents)}
    contents["json"] = _json(result)
    for kind, content in contents.items():
        path = folder / f"{stem}.{kind}"
        try:
            path.parent.mkdir(exist_ok=True)
            _write_whole(path, content)
        except OSError as error:
            del result["files"][kind]
            what = "result" if kind == "json" else kind
            reason = error.strerror or error
            result["notes"].append(f"the {what} could not be kept in {path}: {reason}")


def _data_suffix(run: Run, store: Store) -> list[str]:
    checksums = store.meta["checksums"]
    if checksums == run.checksums:
        return []
    return [re.sub(r"[^\w.]+", "_", store.meta["name"])[:40], digest(checksums)]


def digest(what: Any) -> str:
    """Eight digits that tell what JSON can hold from other such things."""
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:8]


def _short(layouts: str) -> str:
    """Layouts as a part of a file's name, which has room for a few."""
    return layouts if len(layouts) <= 100 else f"{layouts[:80]}_{digest(layouts)}"


def _suffixes(options: Mapping[str, Any]) -> Iterator[str]:
    for name, value in options.items():
        if name == "ks":
            yield from (f"k{k}" for k in value)
        elif value is True:
            yield name
        else:
            yield f"{name}_{value}" if name in ("route", "solver") else f"{name}{value}"


def _command(run: Run, result: dict[str, Any], options: Mapping[str, Any]) -> str:
    """What prints the result again."""
    words = ["msclr", "evaluate", result["protocol"], result["run"]]
    if "train_layout" in result:
        words += ["--train-layout", result["train_layout"], "--test-layout", result["test_layout"]]
    else:
        words += ["--layout", result["layout"]]
    own = str(as_path(run.recipe.data)) if isinstance(run.recipe.data, str) else None
    for key in ("train_data", "data"):
        if result.get(key, own) != own:
            words += ["--" + key.replace("_", "-"), result[key]]
    if run.encoders or result["stream"] != run.recipe.stream:
        words += ["--stream", result["stream"]]
    words += ["--random"] if run.random else []
    return shlex.join(words + flags(options))


def flags(options: Mapping[str, Any]) -> list[str]:
    """Options of an evaluation as words of a command."""
    words = []
    for name, value in options.items():
        if name != "ks":  # only Python can ask for others
            words += [_FLAGS.get(name, "--" + name.replace("_", "-"))]
            words += [] if value is True else [str(value)]
    return words


def _details(
    clips: PerClip, matrix: Tensor | None, also: Collection[str], title: str
) -> Iterator[tuple[str, bytes]]:
    """The files next to a result: {ending: content}."""
    classes = distinct(clips.classes)
    if SCORES in also:
        arrays = {name: x.cpu().numpy() for name, x in clips.arrays.items()}
        about = {"names": np.array(list(clips.names)), "labels": clips.labels.cpu().numpy()}
        file = io.BytesIO()
        np.savez_compressed(file, classes=np.array(classes), **about, **arrays)
        yield "npz", file.getvalue()
    if CONFUSION in also:
        from msclr.evaluation.confusion import confusion_picture

        rows = io.StringIO()
        writer = csv.writer(rows, lineterminator="\n")
        writer.writerow(["true class", *classes])
        writer.writerows([name, *row] for name, row in zip(classes, matrix.tolist(), strict=True))
        yield "csv", rows.getvalue().encode()
        yield "png", confusion_picture(matrix, classes, title)


def _json(result: dict[str, Any]) -> bytes:
    """Indented, but for lists of numbers, which take a line each."""
    text = json.dumps(result, indent=2)
    text = re.sub(r"\[\s+([-\d.,\s]*?)\s+\]", lambda x: "[" + " ".join(x[1].split()) + "]", text)
    return (text + "\n").encode()


def _write_whole(path: Path, content: bytes) -> None:
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise
