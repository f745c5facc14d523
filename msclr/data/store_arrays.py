"""The files of a prepared data set while they are written, row by row and in any order."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from msclr import __version__
from msclr.data._store_files import (
    COORDINATES,
    FORMAT_VERSION,
    SPLITS,
    TORSO,
    checksums,
    files_of,
    keeps_constants,
    sizes,
    write_json,
)
from msclr.data.skeleton.frame import Frame
from msclr.layouts.layout import Layout


@dataclass(frozen=True)
class Description:
    """What dataset.json says of a data set, apart from its clips; see `Store`."""

    name: str
    layouts: Mapping[str, Layout]
    classes: Sequence[str]
    frames: int
    bodies: int
    source: str
    coordinates: str = "xyz"
    frame: str = "camera"
    size_by: str = "none"
    derived_from: Mapping[str, str] = field(default_factory=dict)

    @property
    def constants(self) -> bool:
        """Whether each clip has constants that led into its frame."""
        return keeps_constants(self.frame, self.size_by)


class StoreArrays:
    """The files of a data set in `folder`. Several processes may write rows of the same files.

    Files are opened when they are first needed; `close` closes them.
    """

    def __init__(self, folder: Path, description: Description) -> None:
        self.folder, self.about = folder, description
        self.shapes = {
            name: (description.bodies, description.frames, layout.num_joints, 3)  # (M, T, V, 3)
            for name, layout in description.layouts.items()
        }
        self._rows = {f"{name}.npy": _Rows.of(row, "<f4") for name, row in self.shapes.items()}
        if description.constants:
            self._rows |= {f"{name}.frame.npy": _Rows.of((13,), "<f8") for name in self.shapes}
        self._open: dict[tuple[str, str], BinaryIO] = {}

    def create(self) -> None:
        """Make the folder, and the files without any row."""
        self.folder.mkdir(exist_ok=True)
        for split in SPLITS:
            (self.folder / split).mkdir()
            for file, rows in self._rows.items():
                (self.folder / split / file).write_bytes(rows.header(0))

    def put(
        self, split: str, row: int, clip: Mapping[str, np.ndarray], frames: Mapping[str, Frame]
    ) -> list[bytes]:
        """Write a clip, layout name -> (m, T, V, 3) with m <= M bodies, the others are 0.

        frames: its constants, where the data set has such. Returns what `get` gives of it.
        """
        written = []
        for name, shape in self.shapes.items():
            xyz = np.zeros(shape, "<f4")
            xyz[: len(clip[name])] = clip[name]
            xyz += 0  # makes zeros of negative zeros, so that equal clips have equal checksums
            written.append(self._put(split, f"{name}.npy", row, xyz))
            if self.about.constants:
                constants = frames[name].to_row().astype("<f8")
                written.append(self._put(split, f"{name}.frame.npy", row, constants))
        return written

    def get(self, split: str, row: int) -> Iterator[bytes]:
        """The bytes of a row, file by file; shorter ones where it was not written."""
        for file in self._rows:
            yield self._read(split, file, row)

    def keep(
        self, split: str, rows: Sequence[int], present: np.ndarray, labels: Any, names: list[str]
    ) -> None:
        """Make these rows, which rise, the split's only ones, and write what else it has.

        present: (N, M) bool. labels: N integers. names: N texts.
        """
        folder = self.folder / split
        for file in self._rows:
            for new, old in enumerate(rows):
                if new != old:
                    content = self._read(split, file, old)
                    self._at(split, file, new).write(content)
            self._at(split, file, len(rows)).truncate()
            opened = self._open[split, file]
            opened.seek(0)
            opened.write(self._rows[file].header(len(rows)))
        np.save(folder / "bodies.npy", present)
        np.save(folder / "labels.npy", np.array(labels, dtype=np.int64))
        write_json(folder / "names.json", names)

    def describe(self, report: Mapping[str, Any], splits: Mapping[str, int]) -> None:
        """Write dataset.json, with the checksums of all files. `splits`: their number of clips."""
        self.close()
        about = self.about
        meta = {
            "format_version": FORMAT_VERSION,
            "version": __version__,
            "name": about.name,
            "layouts": {name: layout.to_dict(True) for name, layout in about.layouts.items()},
            "coordinates": about.coordinates,
            "units": TORSO if about.size_by == "torso" else COORDINATES[about.coordinates],
            "frame": about.frame,
            "size_by": about.size_by,
            "derived_from": dict(about.derived_from),
            "size": sizes(self.folder, about.layouts, splits, about.coordinates),
            "frames": about.frames,
            "bodies": about.bodies,
            "classes": list(about.classes),
            "splits": dict(splits),
            "source": about.source,
            "checksums": checksums(self.folder, files_of(about.layouts, about.constants)),
            "report": dict(report),
        }
        write_json(self.folder / "dataset.json", meta)

    def flush(self) -> None:
        """Hand to the system what was written, so that it outlives this process."""
        for file in self._open.values():
            file.flush()

    def close(self) -> None:
        while self._open:
            with contextlib.closing(self._open.popitem()[1]) as file:
                file.flush()

    def abandon(self) -> None:
        """Close the files, whatever becomes of what they hold."""
        while self._open:
            with contextlib.suppress(OSError):  # a full disk: the flush fails once more
                self._open.popitem()[1].close()

    def _put(self, split: str, file: str, row: int, content: np.ndarray) -> bytes:
        data = content.tobytes()
        self._at(split, file, row).write(data)
        return data

    def _read(self, split: str, file: str, row: int) -> bytes:
        return self._at(split, file, row).read(self._rows[file].size)

    def _at(self, split: str, file: str, row: int) -> BinaryIO:
        """The open file, at the beginning of a row."""
        if (split, file) not in self._open:
            self._open[split, file] = open(self.folder / split / file, "r+b")  # noqa: SIM115
        rows, opened = self._rows[file], self._open[split, file]
        opened.seek(rows.begin + row * rows.size)
        return opened


class _Rows(NamedTuple):
    """An .npy file of rows: the shape and dtype of each, its bytes, and where the first begins."""

    shape: tuple[int, ...]
    dtype: str
    size: int
    begin: int

    @classmethod
    def of(cls, shape: tuple[int, ...], dtype: str) -> _Rows:
        rows = cls(shape, dtype, math.prod(shape) * np.dtype(dtype).itemsize, 0)
        return rows._replace(begin=len(rows.header(0)))

    def header(self, count: int) -> bytes:
        """Of a file of so many rows; as long for any number, NumPy pads it so."""
        header = io.BytesIO()
        entries = {"descr": self.dtype, "fortran_order": False, "shape": (count, *self.shape)}
        np.lib.format.write_array_header_1_0(header, entries)
        return header.getvalue()
