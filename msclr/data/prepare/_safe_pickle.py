"""Pickles of other projects, read without running what they say.

A pickle is a program: it names functions of any module and calls them. Here it may name what
numbers and text are made of, and each name means a small object of ours that checks its
arguments; numpy's own functions are not called with what a file says, since a forged dtype or array
state makes them read memory that is not theirs.
"""

from __future__ import annotations

import math
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from msclr.data.prepare._mapped_bytes import MappedBytes, without_long_bytes
from msclr.errors import InputError

_OTHERS = {  # how files of other kinds begin
    b"\x93NUMPY": "an .npy file",
    b"PK\x03\x04": "a zip archive, such as an .npz or .pt file",
    b"\x1f\x8b": "a gzip file",
    b"\x89HDF": "an HDF5 file",
}
_CODE = re.compile(r"[biufSU](\d+)")  # bool, integers, floats, text; no objects, no records


def read_pickle(path: str | os.PathLike[str]) -> Any:
    """The content of a pickle file of lists, dicts, tuples, sets, numbers, text and numpy arrays.

    Protocols 0 to 5, by Python 2 (its text as Latin-1) and 3, numpy 1 and 2. Arrays may hold
    booleans, integers, floats and text. Raises InputError, with the name, for a pickle that wants
    anything else, and for one that is damaged. Of protocols 3 and later, arrays of some size stay
    in the file and are read from there (`_mapped_bytes`), so that memory does not grow with them.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} is not a file; give the pickle")
    try:
        with open(path, "rb") as file:
            start = file.read(6)
            for magic, kind in _OTHERS.items():
                if start.startswith(magic):
                    raise InputError(f"it is {kind}, not a pickle; {_mend(path, magic)}")
        short, long = without_long_bytes(path)
        with short:
            return _settled(_Unpickler(short, long).load(), {})
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except Exception as error:  # a damaged pickle can raise anything that its parts can
        raise InputError(f"{path} is no whole pickle ({_one_line(error)}); copy it again") from None


def _mend(path: Path, magic: bytes) -> str:
    array = magic.endswith(b"NUMPY")
    return f"rename it to {path.with_suffix('.npy').name}" if array else "give the pickle"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO, long: list[MappedBytes]) -> None:
        super().__init__(file, encoding="latin1")
        self._long = long

    def find_class(self, module: str, name: str) -> Any:
        found = _GLOBALS.get((module, name))
        if found is None:
            raise InputError(
                f"it asks for {module}.{name}; only numbers, text, lists, dicts and numpy arrays "
                "are read from a pickle, since anything else could run code"
            )
        return found

    def persistent_load(self, pid: Any) -> Any:
        if self._long:  # then the file has no others
            return self._long[pid]
        raise InputError("it refers to objects outside the file; save it with plain pickle.dump")


def _settled(content: Any, known: dict[int, tuple[Any, Any]]) -> Any:
    """The content with arrays in the place of what `_reconstruct` made, lists and dicts in place.

    known: id -> what has been seen, and what comes of it.
    """
    if isinstance(content, _Array):
        _require(hasattr(content, "array"), "an array")
        return content.array
    if isinstance(content, MappedBytes):
        return bytes(content)
    if id(content) in known:
        return known[id(content)][1]
    if isinstance(content, list | dict):
        known[id(content)] = content, content
        entries = content if isinstance(content, dict) else range(len(content))
        for key in entries:
            content[key] = _settled(content[key], known)
    elif isinstance(content, tuple):
        known[id(content)] = content, tuple(_settled(entry, known) for entry in content)
        return known[id(content)][1]
    return content


class _Array:
    """An array while its pickle is read; its state is checked before numpy sees it."""

    __slots__ = ("array",)
    __hash__ = None  # as an array has none

    def __setstate__(self, state: Any) -> None:
        _require(isinstance(state, tuple) and len(state) in (4, 5), "an array's state")
        shape, dtype, fortran, data = state[-4:]
        data = data.encode("latin1") if isinstance(data, str) else data  # Python 2's bytes
        array = _make_array(data, dtype, shape, "F" if fortran else "C")
        native = array.dtype.newbyteorder("=")  # as numpy gives it
        self.array = array if array.dtype.isnative else array.astype(native)


def _make_array(data: Any, dtype: Any, shape: Any, order: str) -> np.ndarray:
    _require(isinstance(data, bytes | bytearray | MappedBytes), "an array's data")
    real = _check_array(shape, dtype, data)
    if isinstance(data, MappedBytes):
        return data.array(shape, real, order)
    return np.ndarray(shape, real, data, order=order)


class _DType:
    """What a pickle says of a dtype; `real` is the dtype, made of a checked code."""

    __slots__ = ("_code", "_order")

    def __init__(self, code: str) -> None:
        self._code, self._order = code, "="

    def __setstate__(self, state: Any) -> None:
        plain = isinstance(state, tuple) and len(state) >= 8 and state[1] in ("<", ">", "|", "=")
        _require(plain and all(entry is None for entry in state[2:5]), "a dtype's state")
        self._order = state[1]

    @property
    def real(self) -> np.dtype:
        return np.dtype(self._code).newbyteorder(self._order)


def _check_array(shape: Any, dtype: Any, data: bytes | bytearray | MappedBytes) -> np.dtype:
    sizes = isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape)
    _require(sizes and isinstance(dtype, _DType), "an array's shape and dtype")
    _require(len(data) == math.prod(shape) * dtype.real.itemsize, "an array's number of bytes")
    return dtype.real


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise InputError(f"{what} in the pickle is not as numpy writes it; save the file again")


# The functions that pickles may call


def _dtype(code: Any, *_: Any) -> _DType:
    """numpy.dtype(code, align, copy)"""
    code = code if isinstance(code, str) else str(code)
    if not _CODE.fullmatch(code):
        raise InputError(
            f"it holds an array of dtype {code!r}; booleans, integers, floats and text are read"
        )
    return _DType(code)


def _reconstruct(kind: Any, *_: Any) -> _Array:
    """numpy's _reconstruct(ndarray, (0,), b"b"): an empty array, its state follows."""
    _require(kind is _NDARRAY, "an array's class")
    return _Array()


def _refuse_call(*_: Any) -> None:
    """numpy.ndarray itself, which only _reconstruct is given."""
    _require(False, "an array")


def _scalar(dtype: Any, data: Any) -> np.generic:
    """numpy's scalar(dtype, bytes)"""
    data = data.encode("latin1") if isinstance(data, str) else data
    _require(isinstance(data, bytes), "a number's data")
    return np.frombuffer(data, _check_array((), dtype, data))[0]


def _frombuffer(data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    """numpy's _frombuffer(bytes, dtype, shape, order), protocol 5"""
    _require(order in ("C", "F"), "an array's data")
    return _make_array(data, dtype, shape, order)


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """_codecs.encode(text, "latin1"): how protocols 0 to 2 of Python 3 write bytes."""
    _require(isinstance(text, str) and encoding in ("latin1", "latin-1"), "text for bytes")
    return text.encode("latin1")


def _bytes(*content: Any) -> bytes | MappedBytes:
    """bytes() and bytearray(bytes or text, "latin-1")"""
    if not content:
        return b""
    return content[0] if isinstance(content[0], bytes | MappedBytes) else _encode(*content)


class _Call:
    """A function that a pickle may call and not change: BUILD sets attributes where it can."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable) -> None:
        object.__setattr__(self, "_function", function)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{name} cannot be set")

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)


_NDARRAY = _Call(_refuse_call)

_GLOBALS: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _Call(_dtype),
    ("_codecs", "encode"): _Call(_encode),
}
for _core in ("numpy.core", "numpy._core"):  # numpy 1 and 2
    _GLOBALS[f"{_core}.multiarray", "_reconstruct"] = _Call(_reconstruct)
    _GLOBALS[f"{_core}.multiarray", "scalar"] = _Call(_scalar)
    _GLOBALS[f"{_core}.numeric", "_frombuffer"] = _Call(_frombuffer)
for _builtins in ("builtins", "__builtin__"):  # Python 3 and 2
    _GLOBALS |= {(_builtins, kind.__name__): kind for kind in (set, frozenset)}
    _GLOBALS |= {(_builtins, kind): _Call(_bytes) for kind in ("bytes", "bytearray")}
