"""Files of pyskl's and mmaction2's form: read, checked, and the clips of train and val chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from msclr.data.prepare._safe_pickle import read_pickle
from msclr.data.store import SPLITS
from msclr.errors import InputError

Annotation = Mapping[str, Any]


@dataclass(frozen=True)
class PysklClips:
    """The annotations of train and of val by the clips' names, all of one kind.

    where: the file or files, in words. absent: names in the splits that have no annotation.
    """

    where: str
    train: dict[str, Annotation]
    val: dict[str, Annotation]
    absent: list[str]

    @property
    def names(self) -> list[str]:
        return [*self.train, *self.val]

    @property
    def annotations(self) -> list[Annotation]:
        return [*self.train.values(), *self.val.values()]


def read_clips(files: Sequence[Path], protocol: str | None) -> PysklClips:
    """The clips of one file with splits, or of two lists, train's and val's. Raises InputError."""
    if len(files) == 2:
        return _from_lists(files, protocol)
    if len(files) != 1:
        raise InputError(f"got {len(files)} files; give one, or two that are train's and val's")
    file = files[0]
    annotations, splits = _read(file)
    pair = _choose_pair(list(splits), protocol, file)
    wanted = _split_of([splits[name] for name in pair], file)
    chosen: tuple[dict[str, Annotation], ...] = ({}, {})
    everyone = _by_name(annotations, str(file))
    for name, annotation in everyone.items():
        if name in wanted:
            chosen[wanted[name]][name] = annotation
    for number, split in enumerate(SPLITS):
        names = [name for name, of in wanted.items() if of == number]
        if not names:
            raise InputError(f"{file} has no clip with a body for {split}; give at least one")
        if not chosen[number]:
            _refuse_unlike_names(names[0], everyone, f"{file}: none of the names in {pair[number]}")
    absent = [name for name in wanted if name not in everyone]
    return _checked(PysklClips(f"{file}, {pair[0]} and {pair[1]}", *chosen, absent))


def check_images(clips: PysklClips) -> None:
    """Raise InputError unless each clip comes with the size of its image."""
    for name, annotation in zip(clips.names, clips.annotations, strict=True):
        _check_image(annotation.get("img_shape"), f"{clips.where}: {name!r}")


def _from_lists(files: Sequence[Path], protocol: str | None) -> PysklClips:
    train, val = files
    if protocol is not None:
        raise InputError(f"two files are train's and val's; they have no protocol {protocol!r}")
    if "train" in val.name and "train" not in train.name:
        raise InputError(f"{val} comes second, as the clips of val; give the file of train first")
    chosen = []
    for file in files:
        annotations = read_pickle(file)
        if not isinstance(annotations, list | tuple):
            raise InputError(
                f"{file} holds {type(annotations).__name__}; of two files each is a list of "
                "annotations, and one with splits comes alone"
            )
        chosen.append(_by_name(annotations, str(file)))
        if not annotations:
            raise InputError(f"{file} is empty; give at least one clip")
    twice = next((name for name in chosen[0] if name in chosen[1]), None)
    if twice is not None:
        raise InputError(f"{twice!r} is in both {train} and {val}; wanted in one")
    return _checked(PysklClips(f"{train} and {val}", *chosen, []))


def _checked(clips: PysklClips) -> PysklClips:
    first = clips.annotations[0]
    for name, annotation in zip(clips.names, clips.annotations, strict=True):
        _check(annotation, first, f"{clips.where}: {name!r}")
    return clips


def _by_name(annotations: Sequence[Any], where: str) -> dict[str, Annotation]:
    """The annotations by name: `filename`, as mmaction2 has it, if the first one has that."""
    found: dict[str, Annotation] = {}
    first = annotations[0] if annotations else None
    key = "filename" if isinstance(first, dict) and "filename" in first else "frame_dir"
    for number, annotation in enumerate(annotations):
        name = annotation.get(key) if isinstance(annotation, dict) else None
        if not isinstance(name, str):
            other = " or filename" if number == 0 else ""
            raise InputError(
                f"{where}: annotation {number} has no {key}{other}; wanted a dict with one"
            )
        if name in found:
            raise InputError(f"{where}: {name!r} has several annotations; wanted one a clip")
        found[name] = annotation
    return found


def _refuse_unlike_names(name: str, annotations: Mapping[str, Annotation], none: str) -> None:
    if not annotations:
        raise InputError(f"{none} has an annotation: there is none at all")
    raise InputError(
        f"{none} has an annotation: there the first is {name!r}, among the annotations "
        f"{next(iter(annotations))!r}; write the names alike"
    )


def _read(file: Path) -> tuple[list[Any], dict[str, Any]]:
    content = read_pickle(file)
    if isinstance(content, list | tuple):
        raise InputError(
            f"{file} holds a list of {len(content):,}, which does not say train from val; wanted a "
            "dict of split and annotations, or two such files: that of train, then that of val"
        )
    if not isinstance(content, dict) or not {"split", "annotations"} <= content.keys():
        there = (
            ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
        )
        raise InputError(f"{file} holds {there[:200]}; wanted a dict of split and annotations")
    splits, annotations = content["split"], content["annotations"]
    if not isinstance(splits, dict) or not all(isinstance(key, str) for key in splits):
        raise InputError(f"{file}: split is {type(splits).__name__}; wanted a dict by name")
    if not isinstance(annotations, list | tuple):
        raise InputError(f"{file}: annotations are {type(annotations).__name__}; wanted a list")
    return list(annotations), splits


def _choose_pair(names: list[str], protocol: str | None, file: Path) -> tuple[str, str]:
    """The names of the splits that become train and val."""
    pairs: dict[str, tuple[str, str]] = {}
    for train in names:
        for partner in (train.replace("train", word, 1) for word in ("test", "val")):
            if partner in names and partner != train:
                pairs[train.replace("train", "", 1).strip("_-")] = (train, partner)
    if not pairs:
        raise InputError(
            f"{file} has the splits {', '.join(names) or 'none'}; wanted a pair such as xsub_train "
            "and xsub_val"
        )
    if protocol is None and len(pairs) == 1:
        return next(iter(pairs.values()))
    if protocol not in pairs:
        known = ", ".join(f"{key!r} ({' and '.join(pair)})" for key, pair in pairs.items())
        came = "several protocols" if protocol is None else f"no protocol {protocol!r}"
        raise InputError(f"{file} has {came}; choose one of {known}")
    return pairs[protocol]


def _split_of(splits: list[Any], file: Path) -> dict[str, int]:
    """Name -> 0 for train, 1 for val."""
    found: dict[str, int] = {}
    for number, names in enumerate(splits):
        if not isinstance(names, list | tuple | set | frozenset | np.ndarray):
            raise InputError(f"{file}: a split is {type(names).__name__}; wanted a list of names")
        for name in names:
            if not isinstance(name, str):
                raise InputError(f"{file}: a split holds {name!r}; wanted names")
            if name in found:
                raise InputError(f"{file}: {name!r} is twice in its splits; wanted once")
            found[name] = number
    return found


def _check(annotation: Annotation, reference: Annotation, where: str) -> None:
    """Raise InputError unless an annotation is whole, and of one kind with the file's first."""
    keypoint = annotation.get("keypoint")
    if (
        not isinstance(keypoint, np.ndarray)
        or keypoint.ndim != 4
        or keypoint.dtype.kind not in "iuf"
    ):
        came = _describe(keypoint)
        raise InputError(f"{where} has keypoint {came}; wanted numbers of shape (M, T, V, C)")
    if keypoint.shape[3] not in (2, 3) or keypoint.shape[2:] != reference["keypoint"].shape[2:]:
        raise InputError(
            f"{where} has keypoint {keypoint.shape}; wanted (M, T, V, C) with C = 2 or 3, V and C "
            "as in all clips"
        )
    frames = annotation.get("total_frames", keypoint.shape[1])
    if not isinstance(frames, int | np.integer) or frames != keypoint.shape[1]:
        raise InputError(f"{where} has total_frames {frames!r}, but keypoint {keypoint.shape}")
    score, wanted = annotation.get("keypoint_score"), keypoint.shape[:3]
    if score is not None:
        numbers = isinstance(score, np.ndarray) and score.dtype.kind in "iuf"
        if not numbers or score.shape != wanted:
            came = _describe(score)
            raise InputError(f"{where} has keypoint_score {came}; wanted numbers of shape {wanted}")
    label = annotation.get("label")
    if isinstance(label, bool) or not isinstance(label, int | np.integer):
        raise InputError(f"{where} has the label {label!r}; wanted an integer")


def _check_image(shape: Any, where: str) -> None:
    size = shape if isinstance(shape, tuple | list | np.ndarray) else ()
    numbers = all(isinstance(n, int | float | np.integer | np.floating) and n > 0 for n in size)
    if len(size) != 2 or not numbers:
        raise InputError(
            f"{where} has img_shape {shape!r}; clips of two dimensions want (height, width)"
        )


def _describe(value: Any) -> str:
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else f"{value!r:.50}"
