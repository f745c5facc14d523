"""Clips in one .npz file, as `msclr prepare arrays` reads them."""

from __future__ import annotations

import logging
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from msclr.errors import InputError
from msclr.paths import as_path

_VIEW = "view/"
_NEEDED = ("labels", "split", "offset")
_OPTIONAL = ("names", "classes")

logger = logging.getLogger(__name__)


def read_npz(
    path: str | os.PathLike[str], needed: Sequence[str] = ("labels", "split", "offset")
) -> dict[str, Any]:
    """The clips of an .npz file as keyword arguments of `prepare_arrays`.

    needed: which of labels, split and offset must be there. Without an offset a view is one clip;
        labels and split are left out of the result where they are not there.

    The file holds all clips end to end, clip i in the rows offset[i] to offset[i + 1]:

        labels          (N,) integers
        split           (N,) text, "train" or "val"
        offset          (N + 1,) integers from 0 to F, never falling
        names, classes  text, (N,) and (classes,); both may be left out
        view/<layout>   (F, V, 3), or (F, M, V, 3) for M bodies; one array per layout

    Other arrays are left alone. The clips are slices of the view arrays, not copies. Raises
    InputError if the file cannot be read so; `prepare_arrays` checks what the arrays hold.
    """
    path = as_path(path)
    arrays = _load(path)
    keys = [key for key in arrays if key.startswith(_VIEW)]
    missing = [key for key in needed if key not in arrays]
    if missing or not keys:
        lacking = ", ".join([*missing, *([] if keys else ["view/<layout>"])])
        there = ", ".join(arrays) or "nothing"
        raise InputError(f"{path} lacks {lacking}; it holds {there}")
    ignored = set(arrays) - {*keys, *_NEEDED, *_OPTIONAL}
    if ignored:
        logger.info("%s: not read: %s", path, ", ".join(sorted(ignored)))

    whole = np.array([0, len(arrays[keys[0]])])
    offset = _check_offset(arrays.get("offset", whole), path)
    views = {key.removeprefix(_VIEW): _cut(arrays[key], offset, key, path) for key in keys}
    texts = {key: _text(arrays[key], key, path) for key in ("split", *_OPTIONAL) if key in arrays}
    labels = {"labels": arrays["labels"]} if "labels" in arrays else {}
    return {"views": views, **labels, **texts}


def _load(path: Path) -> Mapping[str, np.ndarray]:
    if not path.is_file():
        raise InputError(f"{path} is not a file; give the .npz file that holds the clips")
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path} is not an .npz file; write it with numpy.savez")
    try:
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(
            f"{path} cannot be read ({error}); write it with numpy.savez, without Python objects"
        ) from error


def _check_offset(offset: np.ndarray, path: Path) -> np.ndarray:
    if offset.ndim != 1 or offset.dtype.kind not in "iu" or not offset.size:
        raise InputError(
            f"{path}: offset is {offset.dtype} of shape {offset.shape}; wanted (N + 1,) integers"
        )
    offset = offset.astype(np.int64)
    if offset[0] != 0:
        raise InputError(f"{path}: offset starts at {offset[0]}; the first clip starts at row 0")
    falls = np.nonzero(np.diff(offset) < 0)[0]
    if len(falls):
        i = falls[0]
        raise InputError(
            f"{path}: offset falls from {offset[i]} to {offset[i + 1]} after clip {i}; "
            "clips lie end to end, in order"
        )
    return offset


def _cut(rows: np.ndarray, offset: np.ndarray, key: str, path: Path) -> list[np.ndarray]:
    """The clips of one view: (T, V, 3) slices, or (M, T, V, 3) where the rows hold bodies."""
    if rows.ndim not in (3, 4):
        raise InputError(f"{path}: {key} has shape {rows.shape}; wanted (F, V, 3) or (F, M, V, 3)")
    if len(rows) != offset[-1]:
        raise InputError(
            f"{path}: offset ends at {offset[-1]}, but {key} has {len(rows)} rows; "
            "the last offset is the number of rows"
        )
    time_first = rows if rows.ndim == 3 else rows.swapaxes(0, 1)  # (F, V, 3) or (M, F, V, 3)
    return [
        time_first[..., start:end, :, :] for start, end in zip(offset[:-1], offset[1:], strict=True)
    ]


def _text(array: np.ndarray, key: str, path: Path) -> list[str]:
    if array.ndim != 1 or array.dtype.kind != "U":
        raise InputError(
            f"{path}: {key} is {array.dtype} of shape {array.shape}; wanted a row of text"
        )
    return array.tolist()
