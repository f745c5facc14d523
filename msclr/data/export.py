"""Write a prepared data set in the forms that other projects read."""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from msclr.data.store import SPLITS, Split, Store, open_store
from msclr.errors import InputError
from msclr.layouts import get

PathLike = str | os.PathLike[str]
IMAGE = (1080, 1920)  # height and width that clips of two dimensions are written for
_CLIPS_AT_ONCE = 64


def export_aimclr(store: Store | PathLike, out: PathLike, layout: str | None = None) -> Path:
    """Write one layout of a prepared data set as a folder in the form of AimCLR and CrosSCLR.

    store: an open data set or its folder. out: a folder that does not exist yet. layout: which one;
    may be left out where the data set has only one.

    For train and val each:
        <split>_position.npy    (N, 3, T, V, M) float32, absent bodies 0; the axes of the data set
        <split>_label.pkl       (names, labels): a tuple of a list of str and a list of int

    `prepare_aimclr(again, {layout: out}, frames=T, bodies=M)` gives the same arrays again, byte for
    byte; the classes' names have no place in this form. Clips are copied a few at a time. The
    folder appears when it is whole. Returns it. Raises InputError.
    """
    store, layout = _open(store, layout)
    with _whole(out) as partial:
        partial.mkdir()
        for name in SPLITS:
            split = store.split(name)
            _write_positions(partial / f"{name}_position.npy", split.views[layout])
            labels = (list(split.names), split.labels.tolist())
            (partial / f"{name}_label.pkl").write_bytes(pickle.dumps(labels, protocol=4))
    return Path(out)


def export_pyskl(store: Store | PathLike, out: PathLike, layout: str | None = None) -> Path:
    """Write one layout of a prepared data set as a pickle in the form of pyskl and mmaction2.

    store: an open data set or its folder. out: a file that does not exist yet. layout: which one;
    may be left out where the data set has only one.

    The file holds {"split": {"train": [name, …], "val": […]}, "annotations": [{…}, …]}, each
    annotation with
        frame_dir, label, total_frames      the clip's name, its label, T
        keypoint            (M, T, V, 3) float32 of the M bodies that are there, metres
    or, of "xy_score" coordinates,
        keypoint            (M, T, V, 2) float32, pixels: x_pixel = (x + 1) width / 2, y likewise
        keypoint_score      (M, T, V) float32
        img_shape, original_shape           (1080, 1920), height and width of that image

    `prepare_pyskl(again, out, layout=…, frames=T, bodies=M)` gives the same arrays again: of "xyz"
    byte for byte, of "xy_score" to float32 rounding where no score is 0. The present bodies of a
    clip must be its first ones for that, as `prepare_arrays` puts them.

    It is a pickle of protocol 4 that names what numpy 1 and 2 both know, and is written clip by
    clip. The file appears when it is whole. Returns it. Raises InputError.
    """
    store, layout = _open(store, layout)
    splits = {name: store.split(name) for name in SPLITS}
    with _whole(out) as partial, open(partial, "wb") as file:
        _Pickle(file).write(
            {
                "split": {name: split.names for name, split in splits.items()},
                "annotations": (
                    annotation
                    for split in splits.values()
                    for annotation in _annotations(split, layout, store.coordinates)
                ),
            }
        )
    return Path(out)


def _open(store: Store | PathLike, layout: str | None) -> tuple[Store, str]:
    store = store if isinstance(store, Store) else open_store(store)
    known = ", ".join(store.layouts)
    if layout is None:
        if len(store.layouts) != 1:
            raise InputError(f"{store.path} has the layouts {known}; choose one to write")
        return store, next(iter(store.layouts))
    name = layout if layout in store.layouts else get(layout).name
    if name not in store.layouts:
        raise InputError(f"{store.path} has no layout {layout!r}; it has {known}")
    return store, name


@contextlib.contextmanager
def _whole(out: PathLike) -> Iterator[Path]:
    """A path next to `out` to write to; renamed to it at the end, removed if anything fails."""
    out = Path(out).resolve()
    if out.exists():
        raise InputError(f"{out} exists; choose another name or remove it")
    if not out.parent.is_dir():
        raise InputError(f"{out.parent} is not a folder; make it first")
    partial = out.parent / f".{out.name}.partial-{os.getpid()}"
    try:
        yield partial
        os.rename(partial, out)
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror or error}") from error
    finally:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        with contextlib.suppress(OSError):
            partial.unlink()


def _write_positions(path: Path, clips: np.ndarray) -> None:
    count, bodies, frames, joints, axes = clips.shape
    shape = (count, axes, frames, joints, bodies)
    with open(path, "wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, count, _CLIPS_AT_ONCE):
            block = clips[start : start + _CLIPS_AT_ONCE].transpose(0, 4, 2, 3, 1)
            file.write(np.ascontiguousarray(block, "<f4").data)  # (n, 3, T, V, M)


def _annotations(split: Split, layout: str, coordinates: str) -> Iterator[dict[str, Any]]:
    for i, name in enumerate(split.names):
        joints = split.views[layout][i][split.bodies[i]]  # (M, T, V, 3)
        annotation = {
            "frame_dir": name,
            "label": int(split.labels[i]),
            "total_frames": joints.shape[1],
        }
        if coordinates == "xyz":
            yield annotation | {"keypoint": joints}
        else:
            half = np.array(IMAGE[::-1]) / 2
            yield annotation | {
                "keypoint": ((joints[..., :2] + 1.0) * half).astype(np.float32),
                "keypoint_score": joints[..., 2],
                "img_shape": IMAGE,
                "original_shape": IMAGE,
            }


class _Pickle:
    """Writes dicts, lists, tuples, text, integers and float32 arrays as a pickle, item by item.

    `pickle.dump` remembers each object until it is done, so that all the clips would be held, and
    names numpy's functions as the installed numpy does, which older ones do not know.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._put = file.write

    def write(self, content: Any) -> None:
        self._put(pickle.PROTO + b"\x04")
        self._item(content)
        self._put(pickle.STOP)

    def _item(self, item: Any) -> None:
        if isinstance(item, str):
            text = item.encode("utf-8", "surrogatepass")
            self._put(pickle.BINUNICODE + struct.pack("<I", len(text)) + text)
        elif isinstance(item, int):
            size = item.to_bytes(8, "little", signed=True)
            self._put(pickle.LONG1 + b"\x08" + size)
        elif isinstance(item, np.ndarray):
            self._array(item)
        elif isinstance(item, tuple):
            self._all(pickle.MARK, item, pickle.TUPLE)
        elif isinstance(item, dict):
            pairs = (part for pair in item.items() for part in pair)
            self._all(pickle.EMPTY_DICT + pickle.MARK, pairs, pickle.SETITEMS)
        else:  # a list, or an iterator that becomes one
            self._all(pickle.EMPTY_LIST + pickle.MARK, item, pickle.APPENDS)

    def _all(self, start: bytes, items: Any, end: bytes) -> None:
        self._put(start)
        for item in items:
            self._item(item)
        self._put(end)

    def _array(self, array: np.ndarray) -> None:
        data = np.ascontiguousarray(array, "<f4").tobytes()
        self._put(_EMPTY_ARRAY + pickle.MARK + pickle.BININT1 + b"\x01")  # the state's version
        self._item(array.shape)
        self._put(_FLOAT32 + pickle.NEWFALSE)  # not in Fortran order
        self._put(pickle.BINBYTES8 + struct.pack("<Q", len(data)) + data)
        self._put(pickle.TUPLE + pickle.BUILD)


def _call(function: bytes, *arguments: bytes) -> bytes:
    return function + pickle.MARK + b"".join(arguments) + pickle.TUPLE + pickle.REDUCE


def _text(text: bytes) -> bytes:
    return pickle.SHORT_BINUNICODE + bytes([len(text)]) + text


# What numpy's own pickles say of an array and of a dtype, before their state.
_NONE, _ZERO = pickle.NONE, pickle.BININT1 + b"\x00"
_MINUS_ONE = pickle.BININT + struct.pack("<i", -1)
_EMPTY_ARRAY = _call(
    pickle.GLOBAL + b"numpy.core.multiarray\n_reconstruct\n",
    pickle.GLOBAL + b"numpy\nndarray\n",
    pickle.MARK + _ZERO + pickle.TUPLE,
    pickle.SHORT_BINBYTES + b"\x01b",
)
_FLOAT32 = (
    _call(pickle.GLOBAL + b"numpy\ndtype\n", _text(b"f4"), pickle.NEWFALSE, pickle.NEWTRUE)
    + pickle.MARK
    + pickle.BININT1
    + b"\x03"
    + _text(b"<")
    + _NONE * 3
    + _MINUS_ONE * 2
    + _ZERO
    + pickle.TUPLE
    + pickle.BUILD
)
