"""Import the pickles that pyskl and mmaction2 read."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from msclr.data.prepare._detect import layout_of, looks_like_score
from msclr.data.prepare._mapped_bytes import forget
from msclr.data.prepare._pyskl_file import Annotation, PysklClips, check_images, read_clips
from msclr.data.prepare._want import want_one_of
from msclr.data.prepare.arrays import prepare_arrays
from msclr.data.prepare.report import PrepareReport
from msclr.data.store import COORDINATES, require_free
from msclr.errors import InputError
from msclr.layouts.layout import Layout
from msclr.paths import as_path

PathLike = str | os.PathLike[str]
_ABSENT = "in a split, without an annotation"


def prepare_pyskl(
    out: PathLike,
    file: PathLike | tuple[PathLike, PathLike],
    *,
    protocol: str | None = None,
    layout: str | Layout | None = None,
    classes: Sequence[str] | None = None,
    frames: int = 50,
    scale: float = 1.0,
    bodies: int | None = None,
    name: str | None = None,
    coordinates: str | None = None,
    frame: str | None = "camera",
    size: str | None = None,
    derive: Sequence[str | Layout] = (),
    strict: bool = False,
) -> PrepareReport:
    """Prepare a data set from a pickle in the form of pyskl and mmaction2.

    The file holds a dict of `split`, split name -> list of clip names, and `annotations`, a list of
    dicts, a clip each: its name, `frame_dir` or, where the first has that, `filename`; `label`;
    `keypoint` (M, T, V, C) of any floating-point dtype; `total_frames` T; and where C = 2
    `img_shape` (height, width) and `keypoint_score` (M, T, V), if not given 0 for joints at pixel
    (0, 0) and 1 for others. Other keys are not read. Two files are lists of annotations, those of
    train and those of val.

    protocol: which pair of splits becomes train and val: "xsub" for xsub_train and xsub_val, "" for
        train and val; "test" in the place of "val" as well. Needed where there are several.
    layout: of V joints. Without it, what the form fixes: 25 joints of three dimensions are
        kinectv2_25 (pyskl's own graph is kinectv2_25_pyskl), of two dimensions 17 are coco_17 and
        18 openpose_18. 33, 42 and 43 joints are taken for mediapipe_33, smplx_42 and
        berkeley_mhad_43, with a note in the report.
    coordinates: what C = 3 is, "xyz", or "xy_score" for pixels and a score, as with C = 2. None is
        "xyz", but clips whose third channel looks like a score are refused, and a note says where
        `img_shape` makes it doubtful.

    Clips are cleaned as `prepare_arrays` does it, whose options the others are. C = 3: x, y, z in
    metres or with `scale`; a body is missing in a frame if all its joints are 0 there, a joint if
    it has a score that is not positive. C = 2: the data set is one of "xy_score" coordinates,
        x = (x_pixel - width / 2) / (width / 2),  y = (y_pixel - height / 2) / (height / 2)
    with the score as it is; joints without a positive score are missing. Names in a split that have
    no annotation are left out, however many, and named in the report.

    The frame is "camera" unless another is asked for.

    Joints stay in the file and are read clip by clip; only a pickle of protocols 0 to 2 is held in
    memory as a whole. Returns what `prepare_arrays` returns. Raises InputError, before anything is
    written, for a file that is damaged or does not fit together.
    Source: github.com/kennymckormick/pyskl, tools/data/README.md.
    """
    out = as_path(out)
    require_free(out)
    files = [file] if isinstance(file, str | os.PathLike) else list(file)
    clips = read_clips([as_path(path) for path in files], protocol)
    chosen, notes = _coordinates(clips, coordinates)
    if chosen == "xy_score":
        check_images(clips)
        if scale != 1:
            raise InputError(f"{clips.where} is in two dimensions, in pixels; it takes no scale")
    if layout is None:
        joints = clips.annotations[0]["keypoint"].shape[2]
        layout, guessed = layout_of(joints, chosen, str(files[0]), how="give --layout")
        notes += guessed
    return prepare_arrays(
        out,
        {layout: _Clips(clips.annotations, flat=chosen == "xy_score")},
        [int(annotation["label"]) for annotation in clips.annotations],
        ["train"] * len(clips.train) + ["val"] * len(clips.val),
        names=clips.names,
        classes=classes,
        frames=frames,
        scale=scale,
        bodies=bodies,
        name=name,
        source=f"pyskl file {clips.where}",
        coordinates=chosen,
        zeros="body",
        frame=frame,
        size=size,
        derive=derive,
        strict=strict,
        left_out={_ABSENT: clips.absent} if clips.absent else None,
        notes=notes,
    )


def _coordinates(clips: PysklClips, coordinates: str | None) -> tuple[str, list[str]]:
    """What the clips hold, and notes for the report."""
    if coordinates is not None:
        want_one_of(coordinates, "coordinates", tuple(COORDINATES))
    if clips.annotations[0]["keypoint"].shape[3] == 2:
        if coordinates == "xyz":
            raise InputError(f"{clips.where} is in two dimensions; it takes no coordinates xyz")
        return "xy_score", []
    if coordinates is not None:
        return coordinates, []
    in_image = all("img_shape" in annotation for annotation in clips.annotations)
    if looks_like_score((annotation["keypoint"] for annotation in clips.annotations), in_image):
        raise InputError(
            f"{clips.where}: the third channel of keypoint looks like a score, not like z; choose "
            "--coordinates xy_score for pixels and a score, or xyz for metres"
        )
    note = f"{clips.where} has img_shape, as clips in pixels have; its keypoint was read as x, y, z"
    return "xyz", [note] if in_image else []


class _Clips(Sequence):
    """The annotations' joints as (M, T, V, 3) arrays, each made when it is asked for."""

    def __init__(self, annotations: list[Annotation], flat: bool) -> None:
        self._annotations, self._flat = annotations, flat

    def __len__(self) -> int:
        return len(self._annotations)

    def __getitem__(self, index: int) -> np.ndarray:
        annotation = self._annotations[index]
        joints = np.array(_joints(annotation, self._flat))  # a copy, as the file's pages go
        forget(annotation["keypoint"])
        return joints


def _joints(annotation: Annotation, flat: bool) -> np.ndarray:
    """(M, T, V, 3): x, y, z with NaN where the score says so; or normalised x and y, and score."""
    keypoint, score = np.asarray(annotation["keypoint"]), annotation.get("keypoint_score")
    if not flat:
        return keypoint if score is None else np.where(score[..., None] > 0, keypoint, np.nan)
    if keypoint.shape[3] == 3:
        keypoint, score = keypoint[..., :2], keypoint[..., 2]
    height, width = annotation["img_shape"]
    half = np.array([width / 2, height / 2])
    joints = np.empty((*keypoint.shape[:3], 3))
    joints[..., :2] = (keypoint - half) / half
    joints[..., 2] = (keypoint != 0).any(axis=-1) if score is None else score
    return joints
