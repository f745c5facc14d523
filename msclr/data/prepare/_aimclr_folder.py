"""One folder of AimCLR's form: its files found, opened and checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from msclr.data.prepare._npy_rows import NpyRows
from msclr.data.prepare._safe_pickle import read_pickle
from msclr.data.store import SPLITS
from msclr.errors import InputError

# What follows train_ and val_, the first that is there: AimCLR's, 2s-AGCN's, ST-GCN's.
_POSITIONS = ("position.npy", "data_joint.npy", "data.npy")
_LABELS = ("label.pkl", "label.npy")


@dataclass(frozen=True)
class AimclrFolder:
    """A folder's clips, train first: the two arrays and the text next to them.

    named: whether the clips have names of their own, or only a place in their split.
    """

    path: Path
    named: bool
    positions: list[NpyRows]  # of each split (N, 3, T, V, M)
    names: list[str]
    labels: list[int]
    split: list[str]


def open_folder(path: Path) -> AimclrFolder:
    """Open a folder as `prepare_aimclr` describes it. Raises InputError."""
    if not path.is_dir():
        raise InputError(f"{path} is not a folder; give the one with train_position.npy")
    position, label = _choose(path, _POSITIONS), _choose(path, _LABELS)
    wanted = [f"{split}_{what}" for split in SPLITS for what in (position, label)]
    missing = [file for file in wanted if not (path / file).is_file()]
    if missing:
        raise InputError(f"{path} lacks {', '.join(missing)}; it needs {', '.join(wanted)}")
    folder = AimclrFolder(path, label == _LABELS[0], [], [], [], [])
    for split in SPLITS:
        positions = _open_positions(path / f"{split}_{position}")
        read = _read_labels if folder.named else _read_bare_labels
        names, labels = read(path / f"{split}_{label}", split, len(positions))
        folder.positions.append(positions)
        folder.names.extend(names)
        folder.labels.extend(labels)
        folder.split.extend([split] * len(names))
    return folder


def _choose(path: Path, choices: tuple[str, ...]) -> str:
    """The first of `choices` that all splits have, or that any has, or the first of all."""
    for enough in (all, any):
        for choice in choices:
            if enough((path / f"{split}_{choice}").is_file() for split in SPLITS):
                return choice
    return choices[0]


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


def _read_labels(path: Path, split: str, count: int) -> tuple[list[str], list[int]]:
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
            raise InputError(f"{path} holds the name {entry!r}; wanted one text per clip")
    for label in labels:
        if isinstance(label, bool) or not isinstance(label, int | np.integer):
            raise InputError(f"{path} holds the label {label!r}; wanted one integer per clip")
    return names, [int(label) for label in labels]


def _kind(content: Any) -> str:
    length = f" of {len(content)}" if hasattr(content, "__len__") else ""
    return f"a {type(content).__name__.lstrip('_')}{length}"


def _read_bare_labels(path: Path, split: str, count: int) -> tuple[list[str], list[int]]:
    try:
        labels = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise InputError(f"{path} cannot be read ({error}); copy it again") from error
    fits = isinstance(labels, np.ndarray) and labels.shape in ((count,), (count, 1))
    if not fits or labels.dtype.kind not in "iu":
        came = f"{labels.dtype} {labels.shape}" if isinstance(labels, np.ndarray) else "an archive"
        raise InputError(f"{path} holds {came}; wanted {count} integers, one a clip, ({count}, 1)")
    return [f"{split}_{i}" for i in range(count)], labels.reshape(-1).tolist()


def match(first: AimclrFolder, other: AimclrFolder) -> list[int]:
    """For each clip of `first`, its row in `other`.

    Raises InputError where the folders do not hold the same clips with the same labels.
    """
    if first.named != other.named:
        with_names, without = (first, other) if first.named else (other, first)
        raise InputError(
            f"{with_names.path} names its clips and {without.path} does not, so that they cannot "
            "be matched; give both their <split>_label.pkl"
        )
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
