"""Import the folders that AimCLR, CrosSCLR and projects after them read."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from msclr import layouts as layout_registry
from msclr.data.prepare._inputs import layout_of
from msclr.data.prepare._npy_rows import NpyRows
from msclr.data.prepare._safe_pickle import read_pickle
from msclr.data.prepare.arrays import prepare_arrays
from msclr.data.prepare.report import PrepareReport
from msclr.data.store import SPLITS, require_free
from msclr.errors import InputError
from msclr.layouts.layout import Layout

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
    coordinates: str = "xyz",
) -> PrepareReport:
    """Prepare a data set from folders in the form of AimCLR and CrosSCLR.

    views: a folder, whose number of joints tells its layout (25 are kinectv2_25); or for each
        layout its folder, each with the same clips, which are matched by their names.

    A folder holds, for train and val each,
        <split>_position.npy    (N, 3, T, V, M) floating point, metres or with `scale`
        <split>_label.pkl       (names, labels): N texts and N integers from 0 on

    The clips are memory-mapped and read one by one. They are cleaned as `prepare_arrays` does it,
    whose options the others are. A body is missing in a frame if all its joints are 0 there; a
    single joint at 0 is measured, since these files are centred on one. Frames of zeros at the ends
    of a clip are cut.

    Returns what `prepare_arrays` returns. Raises InputError, before anything is written, for files
    that are missing, damaged, empty or do not fit together.
    Source: github.com/Levigty/AimCLR and github.com/LinguoLi/CrosSCLR, their feeders.
    """
    require_free(out)
    folders = _open_folders(views)
    first = next(iter(folders.values()))
    clips = {layout: _Clips(folder, _match(first, folder)) for layout, folder in folders.items()}
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
        coordinates=coordinates,
        zeros="body",
    )


@dataclass(frozen=True)
class _Folder:
    """A folder's clips, train first: the two arrays and the text beside them."""

    path: Path
    positions: list[NpyRows]  # of each split (N, 3, T, V, M)
    names: list[str]
    labels: list[int]
    split: list[str]


class _Clips(Sequence):
    """The clips of a folder as (M, T, V, 3) arrays, each read when it is asked for."""

    def __init__(self, folder: _Folder, order: list[int]) -> None:
        self._positions, self._order = folder.positions, order

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: int) -> np.ndarray:
        row = self._order[index]
        train, val = self._positions
        xyz = train[row] if row < len(train) else val[row - len(train)]  # (3, T, V, M)
        return xyz.transpose(3, 1, 2, 0)  # (M, T, V, 3)


def _open_folders(views: Any) -> dict[Layout, _Folder]:
    if not isinstance(views, Mapping):
        folder = _open_folder(Path(views))
        joints = folder.positions[0].shape[3]
        return {layout_of(joints, f"{folder.path / 'train_position.npy'}"): folder}
    if not views:
        raise InputError("there is no view; give the folder of at least one layout")
    folders: dict[Layout, _Folder] = {}
    for key, path in views.items():
        layout = key if isinstance(key, Layout) else layout_registry.get(key)
        if layout in folders:
            raise InputError(f"layout {layout.name} is given twice; give each view once")
        folders[layout] = _open_folder(Path(path))
    return folders


def _open_folder(path: Path) -> _Folder:
    if not path.is_dir():
        raise InputError(f"{path} is not a folder; give the one with train_position.npy")
    wanted = [f"{split}_{what}" for split in SPLITS for what in ("position.npy", "label.pkl")]
    missing = [file for file in wanted if not (path / file).is_file()]
    if missing:
        raise InputError(f"{path} lacks {', '.join(missing)}; it needs {', '.join(wanted)}")
    folder = _Folder(path, [], [], [], [])
    for split in SPLITS:
        positions = _open_positions(path / f"{split}_position.npy")
        names, labels = _read_labels(path / f"{split}_label.pkl", len(positions))
        folder.positions.append(positions)
        folder.names.extend(names)
        folder.labels.extend(labels)
        folder.split.extend([split] * len(names))
    return folder


def _open_positions(path: Path) -> NpyRows:
    try:
        with open(path, "rb") as file:
            positions = NpyRows(file)
    except (ValueError, OSError) as error:
        raise InputError(f"{path} cannot be read ({error}); copy it again") from error
    if len(positions.shape) != 5 or positions.shape[1] != 3 or positions.dtype.kind != "f":
        raise InputError(
            f"{path} holds {positions.dtype} {positions.shape}; "
            "wanted floating point of shape (N, 3, T, V, M)"
        )
    if 0 in positions.shape:
        raise InputError(f"{path} is empty, shape {positions.shape}; give at least one clip")
    return positions


def _read_labels(path: Path, count: int) -> tuple[list[str], list[int]]:
    content = read_pickle(path)
    if not isinstance(content, tuple | list) or len(content) != 2:
        raise InputError(f"{path} holds {_kind(content)}; wanted (names, labels)")
    names, labels = (list(x) if isinstance(x, list | tuple | np.ndarray) else x for x in content)
    for what, entries in (("names", names), ("labels", labels)):
        if not isinstance(entries, list) or len(entries) != count:
            came = len(entries) if isinstance(entries, list) else _kind(entries)
            raise InputError(
                f"{path} holds {came} {what}, but there are {count} clips in the .npy file beside "
                "it; they belong together"
            )
    for entry in names:
        if not isinstance(entry, str):
            raise InputError(f"{path} holds the name {entry!r}; wanted a text a clip")
    for label in labels:
        if isinstance(label, bool) or not isinstance(label, int | np.integer):
            raise InputError(f"{path} holds the label {label!r}; wanted an integer a clip")
    return names, [int(label) for label in labels]


def _kind(content: Any) -> str:
    length = f" of {len(content)}" if hasattr(content, "__len__") else ""
    return f"a {type(content).__name__.lstrip('_')}{length}"


def _match(first: _Folder, other: _Folder) -> list[int]:
    """For each clip of `first`, its row in `other`."""
    rows = {name: row for row, name in enumerate(other.names)}
    if len(rows) < len(other.names):
        twice = next(name for row, name in enumerate(other.names) if rows[name] != row)
        raise InputError(f"{other.path} has several clips of the name {twice!r}; make it unique")
    for one, two in ((first, other), (other, first)):
        absent = sorted(set(one.names) - set(two.names))
        if absent:
            raise InputError(
                f"{len(absent)} clips of {one.path} are not in {two.path}, {absent[0]!r} among "
                "them; the folders of a data set hold the same clips"
            )
    order = [rows[name] for name in first.names]
    for i, row in enumerate(order):
        ours, theirs = ((x.split[k], x.labels[k]) for x, k in ((first, i), (other, row)))
        if ours != theirs:
            raise InputError(
                f"{first.names[i]!r} is in {ours[0]} with label {ours[1]} in {first.path}, but in "
                f"{theirs[0]} with label {theirs[1]} in {other.path}; the folders must agree"
            )
    return order
