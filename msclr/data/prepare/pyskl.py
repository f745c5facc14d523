"""Import the pickles that pyskl and mmaction2 read."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from msclr import layouts as layout_registry
from msclr.data.prepare._inputs import layout_of
from msclr.data.prepare._safe_pickle import read_pickle
from msclr.data.prepare.arrays import prepare_arrays
from msclr.data.prepare.report import PrepareReport
from msclr.data.store import require_free
from msclr.errors import InputError
from msclr.layouts.layout import Layout

Annotation = Mapping[str, Any]
_LAYOUTS_2D = {17: "coco_17", 18: "openpose_18"}


def prepare_pyskl(
    out: str | os.PathLike[str],
    file: str | os.PathLike[str],
    *,
    protocol: str | None = None,
    layout: str | Layout | None = None,
    classes: Sequence[str] | None = None,
    frames: int = 50,
    scale: float = 1.0,
    bodies: int | None = None,
    name: str | None = None,
) -> PrepareReport:
    """Prepare a data set from a pickle in the form of pyskl and mmaction2.

    The file holds a dict of `split`, split name -> list of clip names, and `annotations`, a list of
    dicts, a clip each: `frame_dir` its name, `label`, `keypoint` (M, T, V, C) of any floating-point
    dtype, `total_frames` T, and where C = 2 `img_shape` (height, width) and `keypoint_score`
    (M, T, V), if not given 0 for joints at pixel (0, 0) and 1 for others. Other keys are not read.

    protocol: which pair of splits becomes train and val: "xsub" for xsub_train and xsub_val, "" for
        train and val; "test" in the place of "val" as well. Needed where there are several.
    layout: of V joints. Without it 25 are kinectv2_25 (pyskl's own graph is kinectv2_25_pyskl), 17
        of two dimensions coco_17.

    Clips are cleaned as `prepare_arrays` does it, whose options the others are. C = 3: x, y, z in
    metres or with `scale`; a body is missing in a frame if all its joints are 0 there, a joint if
    it has a score that is not positive. C = 2: the data set is one of "xy_score" coordinates,
        x = (x_pixel - width / 2) / (width / 2),  y = (y_pixel - height / 2) / (height / 2)
    with the score as it is; joints without a positive score are missing. Clips that no body is in,
    and names in a split that have no annotation, are left out and counted in the report.

    The file is held in memory as a whole. Returns what `prepare_arrays` returns. Raises InputError,
    before anything is written, for a file that is damaged or does not fit together.
    Source: github.com/kennymckormick/pyskl, tools/data/README.md.
    """
    require_free(out)
    file = Path(file)
    annotations, splits = _read(file)
    pair = _choose_pair(list(splits), protocol, file)
    chosen, left_out = _choose_clips(annotations, [splits[name] for name in pair], file)
    clips = [annotation for split in chosen for annotation in split]
    flat = clips[0]["keypoint"].shape[3] == 2
    if flat and scale != 1:
        raise InputError(f"{file} is in two dimensions, in pixels; it takes no scale")
    return prepare_arrays(
        out,
        {_layout(clips[0], layout, file): _Clips(clips)},
        [int(annotation["label"]) for annotation in clips],
        ["train"] * len(chosen[0]) + ["val"] * len(chosen[1]),
        names=[annotation["frame_dir"] for annotation in clips],
        classes=classes,
        frames=frames,
        scale=scale,
        bodies=bodies,
        name=name,
        source=f"pyskl file {file}, {pair[0]} and {pair[1]}",
        coordinates="xy_score" if flat else "xyz",
        zeros="body",
        left_out=left_out,
    )


class _Clips(Sequence):
    """The annotations' joints as (M, T, V, 3) arrays, each made when it is asked for."""

    def __init__(self, annotations: list[Annotation]) -> None:
        self._annotations = annotations

    def __len__(self) -> int:
        return len(self._annotations)

    def __getitem__(self, index: int) -> np.ndarray:
        return _joints(self._annotations[index])


def _joints(annotation: Annotation) -> np.ndarray:
    """(M, T, V, 3): x, y, z with NaN where the score says so; or normalised x and y, and score."""
    keypoint, score = np.asarray(annotation["keypoint"]), annotation.get("keypoint_score")
    if keypoint.shape[3] == 3:
        return keypoint if score is None else np.where(score[..., None] > 0, keypoint, np.nan)
    height, width = annotation["img_shape"]
    half = np.array([width / 2, height / 2])
    joints = np.empty((*keypoint.shape[:3], 3))
    joints[..., :2] = (keypoint - half) / half
    joints[..., 2] = (keypoint != 0).any(axis=-1) if score is None else score
    return joints


def _has_body(annotation: Annotation) -> bool:
    keypoint, score = annotation["keypoint"], annotation.get("keypoint_score")
    seen = np.isfinite(keypoint).all(axis=-1)  # (M, T, V)
    if keypoint.shape[3] == 3 or score is None:
        seen &= (keypoint != 0).any(axis=-1)
    if score is not None:
        seen &= score > 0
    return bool(seen.any())


def _layout(clip: Annotation, layout: str | Layout | None, file: Path) -> Layout:
    if layout is not None:
        return layout if isinstance(layout, Layout) else layout_registry.get(layout)
    joints, dimensions = clip["keypoint"].shape[2:]
    if dimensions == 2 and joints in _LAYOUTS_2D:
        return layout_registry.get(_LAYOUTS_2D[joints])
    return layout_of(joints, str(file))


# Reading and checking the file


def _read(file: Path) -> tuple[list[Any], dict[str, Any]]:
    content = read_pickle(file)
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


def _choose_clips(
    annotations: list[Any], splits: list[Any], file: Path
) -> tuple[list[list[Annotation]], dict[str, int]]:
    """The annotations of train and of val, checked, and how many were left out, and why."""
    by_name: dict[str, Annotation] = {}
    wanted = _split_of(splits, file)
    for number, annotation in enumerate(annotations):
        name = annotation.get("frame_dir") if isinstance(annotation, dict) else None
        if not isinstance(name, str):
            raise InputError(
                f"{file}: annotation {number} has no frame_dir; wanted a dict with one"
            )
        if name in by_name:
            raise InputError(f"{file}: {name!r} has several annotations; wanted one a clip")
        if name in wanted:
            by_name[name] = annotation
    chosen: list[list[Annotation]] = [[], []]
    first = next(iter(by_name.values()), None)
    for name, annotation in by_name.items():
        _check(annotation, first, f"{file}: {name!r}")
        if _has_body(annotation):
            chosen[wanted[name]].append(annotation)
    for split, clips in zip(("train", "val"), chosen, strict=True):
        if not clips:
            raise InputError(f"{file} has no clip with a body for {split}; give at least one")
    left_out = {
        "in a split, without an annotation": len(wanted) - len(by_name),
        "no body in any frame": len(by_name) - sum(map(len, chosen)),
    }
    return chosen, {why: count for why, count in left_out.items() if count}


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
    if keypoint.shape[3] == 2:
        _check_image(annotation.get("img_shape"), where)


def _check_image(shape: Any, where: str) -> None:
    size = shape if isinstance(shape, tuple | list | np.ndarray) else ()
    numbers = all(isinstance(n, int | float | np.integer | np.floating) and n > 0 for n in size)
    if len(size) != 2 or not numbers:
        raise InputError(
            f"{where} has img_shape {shape!r}; clips of two dimensions want (height, width)"
        )


def _describe(value: Any) -> str:
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else f"{value!r:.50}"
