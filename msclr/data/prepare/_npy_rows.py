"""The rows of an .npy array too large to load, read one by one in flat memory."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from typing import BinaryIO

import numpy as np


class NpyRows(Sequence):
    """The rows along the first axis of an array that a file holds as .npy content.

    file: an open file with a descriptor, positioned where the content begins; it may be closed
    afterwards. size: bytes of the content; up to the file's end if not given.

    Raises ValueError for content that is cut off, or that is no array of numbers.

    Each row is a copy. The pages of the memory map that it came from are given back at once: else
    the process would seem to hold all that it ever read.
    """

    def __init__(self, file: BinaryIO, size: int | None = None) -> None:
        end = 0 if size is None else file.tell() + size  # 0: map all of the file
        version = np.lib.format.read_magic(file)
        header = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        self.shape, fortran, self.dtype = header(file)
        if self.dtype.hasobject or not self.shape:
            raise ValueError(f"it holds {self.dtype} {self.shape}")
        start = file.tell()
        self._map = mmap.mmap(file.fileno(), end, access=mmap.ACCESS_READ)
        order = "F" if fortran else "C"
        try:
            self._array = np.ndarray(self.shape, self.dtype, self._map, start, order=order)
        except TypeError as error:  # "buffer is too small"
            raise ValueError("it is cut off") from error

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int) -> np.ndarray:
        row = np.array(self._array[index])
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)
        return row
