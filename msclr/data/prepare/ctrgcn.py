"""Import the .npz files that CTR-GCN and projects after it read."""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

import numpy as np

from msclr.data.prepare._npy_rows import NpyRows
from msclr.data.prepare.arrays import prepare_arrays
from msclr.data.prepare.report import PrepareReport
from msclr.data.store import SPLITS, require_free
from msclr.errors import InputError
from msclr.layouts.layout import Layout
from msclr.paths import as_path

BODIES, JOINTS = 2, 25
_PARTS = {"train": "train", "val": "test"}  # our splits -> the file's
_BLOCK = 1 << 20  # bytes unpacked at a time
# RuntimeError: a password, or a compression that this Python has not.
_DAMAGE = (ValueError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


def prepare_ctrgcn(
    out: str | os.PathLike[str],
    file: str | os.PathLike[str],
    *,
    layout: str | Layout = "kinectv2_25",
    classes: Sequence[str] | None = None,
    frames: int = 50,
    bodies: int | None = None,
    name: str | None = None,
    frame: str | None = "camera",
    size: str | None = None,
    derive: Sequence[str | Layout] = (),
    strict: bool = False,
) -> PrepareReport:
    """Prepare a data set from an .npz file in the form of CTR-GCN.

    The file holds, for train and test each,
        x_<part>    (N, T, 150) floating point, metres: 2 bodies x 25 joints x 3, frames of zeros
                    at the end
        y_<part>    (N, classes), one-hot

    "test" becomes the split "val"; the clips, which have no names there, are called train_0,
    train_1, …, test_0, …. They are cleaned as `prepare_arrays` does it, whose options the others
    are. A body is missing in a frame if all its joints are 0 there; a single joint at 0 is
    measured, since these files are centred on one. Frames of zeros at the end are cut.

    The clips are memory-mapped where they lie in the file. Those of a compressed file are unpacked
    first, to a file next to `out` that has no name and goes with the process.

    The frame is "camera" unless another is asked for.

    Returns what `prepare_arrays` returns. Raises InputError, before anything is written, for a file
    that is damaged or holds something else.
    Source: github.com/Uason-Chen/CTR-GCN, data/ntu/seq_transformation.py and its feeder.
    """
    out, file = as_path(out), as_path(file)
    require_free(out)
    scratch = _existing_parent(out)
    parts, labels, split, names = [], [], [], []
    with _open(file) as archive:
        _require_arrays(archive, file)
        for ours in SPLITS:
            part = _PARTS[ours]
            x = _map_clips(archive, part, scratch, file)  # (N, T, 150)
            y = _read_labels(archive, part, len(x), file)  # (N, classes)
            parts.append(x)
            labels.append(y)
            split += [ours] * len(x)
            names += [f"{part}_{i}" for i in range(len(x))]
    counts = [y.shape[1] for y in labels]
    if counts[0] != counts[1]:
        raise InputError(
            f"{file}: y_train has {counts[0]} classes, y_test {counts[1]}; they must be the same"
        )
    return prepare_arrays(
        out,
        {layout: _Clips(parts)},
        np.concatenate([y.argmax(axis=1) for y in labels]),
        split,
        names=names,
        classes=range(counts[0]) if classes is None else classes,
        frames=frames,
        bodies=bodies,
        name=name,
        source=f"CTR-GCN file {file}",
        coordinates="xyz",
        zeros="body",
        frame=frame,
        size=size,
        derive=derive,
        strict=strict,
    )


class _Clips(Sequence):
    """The clips of both parts, one after the other, as (M, T, V, 3) arrays."""

    def __init__(self, parts: list[NpyRows]) -> None:
        self._parts = parts

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def __getitem__(self, index: int) -> np.ndarray:
        train, test = self._parts
        row = train[index] if index < len(train) else test[index - len(train)]  # (T, 150)
        return row.reshape(-1, BODIES, JOINTS, 3).swapaxes(0, 1)  # (M, T, V, 3)


def _open(file: Path) -> zipfile.ZipFile:
    if not file.is_file():
        raise InputError(f"{file} is not a file; give the .npz file")
    try:
        return zipfile.ZipFile(file)
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{file} is not an .npz file ({error}); copy it again") from error


def _require_arrays(archive: zipfile.ZipFile, file: Path) -> None:
    there = archive.namelist()
    wanted = [f"{letter}_{part}.npy" for part in _PARTS.values() for letter in "xy"]
    missing = [entry for entry in wanted if entry not in there]
    if missing:
        raise InputError(
            f"{file} lacks {', '.join(missing)}; it holds {', '.join(there) or 'nothing'}"
        )


def _map_clips(archive: zipfile.ZipFile, part: str, scratch: Path, file: Path) -> NpyRows:
    """x of a part, (N, T, 150)."""
    where = f"{file}: x_{part}"
    entry = archive.getinfo(f"x_{part}.npy")
    stored = entry.compress_type == zipfile.ZIP_STORED
    try:
        with open(file, "rb") if stored else TemporaryFile(dir=scratch) as plain:
            with archive.open(entry) as packed:
                while block := packed.read(_BLOCK):  # holds every byte against the checksum
                    if not stored:
                        plain.write(block)
            plain.flush()
            plain.seek(_data_start(plain, entry) if stored else 0)
            x = NpyRows(plain, entry.file_size)
    except _DAMAGE as error:
        raise InputError(f"{where} cannot be read ({error}); copy the file again") from error
    if len(x.shape) != 3 or x.shape[2] != BODIES * JOINTS * 3 or x.dtype.kind != "f":
        raise InputError(f"{where} is {x.dtype} {x.shape}; wanted floating point (N, T, 150)")
    if 0 in x.shape:
        raise InputError(f"{where} is empty, shape {x.shape}; give at least one clip")
    return x


def _data_start(file: BinaryIO, entry: zipfile.ZipInfo) -> int:
    """Where an entry's bytes begin: behind a header of 30 bytes, its name and extra fields."""
    file.seek(entry.header_offset + 26)
    return entry.header_offset + 30 + sum(struct.unpack("<HH", file.read(4)))


def _read_labels(archive: zipfile.ZipFile, part: str, count: int, file: Path) -> np.ndarray:
    """y of a part, checked: (N, classes)."""
    where = f"{file}: y_{part}"
    try:
        with archive.open(f"y_{part}.npy") as packed:
            y = np.lib.format.read_array(packed, allow_pickle=False)
    except _DAMAGE as error:
        raise InputError(f"{where} cannot be read ({error}); copy the file again") from error
    if y.ndim != 2 or y.dtype.kind not in "biuf" or len(y) != count:
        raise InputError(f"{where} is {y.dtype} {y.shape}; wanted one-hot ({count}, classes)")
    wrong = np.nonzero(((y != 0).sum(axis=1) != 1) | (y.max(axis=1, initial=0) != 1))[0]
    if len(wrong):
        raise InputError(f"{where}: row {wrong[0]} is not one-hot; wanted a single 1")
    return y


def _existing_parent(path: Path) -> Path:
    return next(parent for parent in path.resolve().parents if parent.is_dir())
