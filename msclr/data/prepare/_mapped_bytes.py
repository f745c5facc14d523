"""Long texts of bytes in a pickle, left in the file instead of being read with the rest."""

from __future__ import annotations

import io
import mmap
import pickletools
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np

_LONG = 4096  # bytes; shorter ones are not worth a reference
# What comes before the bytes themselves: the operation and their number.
_HEADS = {"BINBYTES": 5, "BINBYTES8": 9, "BYTEARRAY8": 9}
_FRAME = 9  # bytes of the operation that says how much may be read ahead
_FOREIGN = ("PERSID", "BINPERSID")


class MappedBytes:
    """Bytes that lie in a memory map; only an array is made of them, or a copy."""

    __slots__ = ("_map", "_size", "_start")
    __hash__ = None  # compares as the bytes do not

    def __init__(self, file: mmap.mmap, start: int, size: int) -> None:
        self._map, self._start, self._size = file, start, size

    def __len__(self) -> int:
        return self._size

    def __bytes__(self) -> bytes:
        return self._map[self._start : self._start + self._size]

    def array(self, shape: tuple[int, ...], dtype: np.dtype, order: str) -> np.ndarray:
        """Of exactly so many bytes. Its pages stay in memory once read, until `forget`."""
        return np.ndarray(shape, dtype, self._map, self._start, order=order)


def forget(array: np.ndarray) -> None:
    """Give back the pages of a mapped file that were read for this array, and for others."""
    if isinstance(array.base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        array.base.madvise(mmap.MADV_DONTNEED)


def without_long_bytes(path: Path) -> tuple[BinaryIO, list[MappedBytes]]:
    """A pickle as one with persistent ids 0, 1, … in the place of long bytes, and those bytes.

    The file itself and an empty list where there are none, or where the file breaks the rules of
    pickles or has persistent ids itself: reading it then says so.
    """
    short, found = io.BytesIO(), []
    with open(path, "rb") as file, open(path, "rb") as again:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        copied = 0

        def copy(up_to: int, on: int) -> None:
            nonlocal copied
            again.seek(copied)
            short.write(again.read(up_to - copied))
            copied = on

        try:
            for operation, argument, at in pickletools.genops(file):
                if operation.name in _FOREIGN:
                    return open(path, "rb"), []
                if operation.name == "FRAME":
                    copy(at, at + _FRAME)
                elif operation.name in _HEADS and len(argument) >= _LONG:
                    start = at + _HEADS[operation.name]
                    copy(at, start + len(argument))
                    short.write(b"J" + struct.pack("<i", len(found)) + b"Q")
                    found.append(MappedBytes(mapped, start, len(argument)))
            copy(file.tell(), file.tell())
        except Exception:  # whatever a damaged pickle makes of the reader
            return open(path, "rb"), []
    short.seek(0)
    return (short, found) if found else (open(path, "rb"), [])
