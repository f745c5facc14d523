"""Import the folders that AimCLR, CrosSCLR and projects before and after them read."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from msclr import layouts as layout_registry
from msclr.data.prepare._aimclr_folder import AimclrFolder, match, open_folder
from msclr.data.prepare._detect import layout_of, looks_like_score
from msclr.data.prepare._want import want_one_of
from msclr.data.prepare.arrays import prepare_arrays
from msclr.data.prepare.report import PrepareReport
from msclr.data.store import COORDINATES, require_free
from msclr.errors import InputError
from msclr.layouts.layout import Layout
from msclr.paths import as_path

PathLike = str | os.PathLike[str]


def prepare_aimclr(
    out: PathLike,
    views: PathLike | Mapping[str | Layout, PathLike],
    *,
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
    """Prepare a data set from folders in the form of AimCLR and CrosSCLR.

    views: for each layout its folder, each with the same clips, which are matched by their names;
        or one folder, where its form fixes the layout: 25 joints are kinectv2_25, and of
        "xy_score" 17 are coco_17 and 18 openpose_18. 33, 42 and 43 joints are taken for
        mediapipe_33, smplx_42 and berkeley_mhad_43, with a note in the report.
    coordinates: what the three channels are, "xyz" or "xy_score" (`prepare_arrays`). None is
        "xyz", but clips whose third channel looks like a score are refused.

    A folder holds, for train and val each,
        <split>_position.npy    (N, 3, T, V, M) floating point, metres or with `scale`; or
                                <split>_data_joint.npy or <split>_data.npy, as 2s-AGCN and ST-GCN
                                name the same array; the first of them that is there is read
        <split>_label.pkl       (names, labels): N texts and N integers from 0 on; or, where that
                                is absent,
        <split>_label.npy       (N,) or (N, 1) integers; such clips are called train_0, train_1, …,
                                val_0, …, and matched by their order

    The clips are memory-mapped and read one by one. They are cleaned as `prepare_arrays` does it,
    whose options the others are. A body is missing in a frame if all its joints are 0 there; a
    single joint at 0 is measured, since these files are centred on one. Frames of zeros at the ends
    of a clip are cut.

    The frame is "camera" unless another is asked for.

    Returns what `prepare_arrays` returns. Raises InputError, before anything is written, for files
    that are missing, damaged, empty or do not fit together.
    Source: github.com/Levigty/AimCLR and github.com/LinguoLi/CrosSCLR, their feeders.
    """
    out = as_path(out)
    require_free(out)
    if coordinates is not None:
        want_one_of(coordinates, "coordinates", tuple(COORDINATES))
    folders, notes = _open_folders(views, coordinates)
    first = next(iter(folders.values()))
    clips = {layout: _Clips(folder, match(first, folder)) for layout, folder in folders.items()}
    return prepare_arrays(
        out,
        clips,
        first.labels,
        first.split,
        names=first.names,
        classes=classes,
        frames=frames,
        scale=scale,
        bodies=bodies,
        name=name,
        source="AimCLR folders " + ", ".join(str(folder.path) for folder in folders.values()),
        coordinates=coordinates or "xyz",  # checked by now
        zeros="body",
        frame=frame,
        size=size,
        derive=derive,
        strict=strict,
        notes=notes,
    )


class _Clips(Sequence):
    """The clips of a folder as (M, T, V, 3) arrays, each read when it is asked for."""

    def __init__(self, folder: AimclrFolder, order: list[int]) -> None:
        self._positions, self._order = folder.positions, order

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: int) -> np.ndarray:
        row = self._order[index]
        train, val = self._positions
        xyz = train[row] if row < len(train) else val[row - len(train)]  # (3, T, V, M)
        return xyz.transpose(3, 1, 2, 0)  # (M, T, V, 3)


def _open_folders(
    views: Any, coordinates: str | None
) -> tuple[dict[Layout, AimclrFolder], list[str]]:
    """Layout -> folder, and notes for the report."""
    if not isinstance(views, Mapping):
        folder = _open_folder(views, coordinates)
        joints = folder.positions[0].shape[3]
        layout, notes = layout_of(
            joints,
            coordinates or "xyz",
            str(folder.path),
            how="give LAYOUT=DIR",
        )
        return {layout: folder}, notes
    if not views:
        raise InputError("there is no view; give the folder of at least one layout")
    folders: dict[Layout, AimclrFolder] = {}
    for key, path in views.items():
        layout = key if isinstance(key, Layout) else layout_registry.get(key)
        if layout in folders:
            raise InputError(f"layout {layout.name} is given twice; give each view once")
        folders[layout] = _open_folder(path, coordinates)
    if len(folders) > 1 and not any(folder.named for folder in folders.values()):
        return folders, ["the clips have no names; those of the folders were matched by order"]
    return folders, []


def _open_folder(path: PathLike, coordinates: str | None) -> AimclrFolder:
    folder = open_folder(as_path(path))
    rows = (np.moveaxis(row, 0, -1) for split in folder.positions for row in split)  # (T, V, M, 3)
    if coordinates is None and looks_like_score(rows):
        raise InputError(
            f"the third channel in {folder.path} lies in 0..1 and is 0 exactly where x and y are, "
            "as a score does; choose --coordinates xy_score, or xyz if it is z in metres"
        )
    return folder
