"""`StoreWriter`: a prepared data set written clip by clip, whole or not at all."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

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
    require_free,
    sizes,
    write_json,
)
from msclr.data.skeleton.frame import Frame
from msclr.errors import InputError
from msclr.layouts.layout import Layout
from msclr.paths import as_path

logger = logging.getLogger(__name__)


class StoreWriter:
    """Writes a prepared data set clip by clip; nothing stands at `out` before `finish`.

        with StoreWriter(out, name="mine", layouts=[layout], classes=["sit", "stand"],
                         frames=50, bodies=2, source="arrays") as writer:
            writer.add("train", {layout.name: xyz}, present, label=0, name="clip 1")
            writer.finish(report)

    Clips go to disk as they come, so memory holds one clip. They lie in a sibling folder
    `.<out>.partial-<pid>` until `finish` renames it; leaving the block without `finish`, by an
    exception or otherwise, removes it. Raises InputError if `out` exists and is not an empty
    folder, or cannot be written.
    """

    def __init__(
        self,
        out: str | os.PathLike[str],
        *,
        name: str,
        layouts: Iterable[Layout],
        classes: Iterable[str],
        frames: int,
        bodies: int,
        source: str,
        coordinates: str = "xyz",
        frame: str = "camera",
        size_by: str = "none",
        derived_from: Mapping[str, str] | None = None,
    ) -> None:
        require_free(out)
        self.out = as_path(out).resolve()
        self.layouts = {layout.name: layout for layout in layouts}
        for taken in self.layouts.keys() & {"bodies", "labels"}:
            raise InputError(f"a layout cannot be called {taken!r}, a file of that name is written")
        self.frames, self.bodies = frames, bodies
        self._meta = {"name": name, "classes": list(classes), "source": source}
        self._coordinates, self._frame, self._size_by = coordinates, frame, size_by
        self._derived_from = dict(derived_from or {})
        self._constants = keeps_constants(frame, size_by)
        self._partial = self.out.parent / f".{self.out.name}.partial-{os.getpid()}"
        self._rows = {
            layout.name: (bodies, frames, layout.num_joints, 3)  # (M, T, V, 3)
            for layout in self.layouts.values()
        }
        self._splits = {split: _OpenSplit(self._partial / split) for split in SPLITS}
        self._made_parents: list[Path] = []

    def __enter__(self) -> StoreWriter:
        parents = [self.out.parent, *self.out.parent.parents]
        self._made_parents = [parent for parent in parents if not parent.exists()]
        try:
            self._partial.mkdir(parents=True)
            for split in self._splits.values():
                split.start(self._rows)
        except OSError as error:
            self._discard()
            raise InputError(
                f"cannot write to {self.out.parent}: {error.strerror or error}; "
                "choose another folder"
            ) from error
        return self

    def __exit__(self, *_: object) -> None:
        if self._partial.exists():
            self._discard()

    def add(
        self,
        split: str,
        views: Mapping[str, np.ndarray],
        present: np.ndarray,
        label: int,
        name: str,
        frames: Mapping[str, Frame] | None = None,
    ) -> None:
        """Append one clip: `views` layout name -> (M, T, V, 3), `present` (M,) bool.

        frames: layout name -> the constants of the clip's frame, where the data set has such.
        """
        if set(views) != set(self.layouts):
            raise InputError(
                f"clip {name!r} comes under {', '.join(views)}, the data set has "
                f"{', '.join(self.layouts)}; give every clip under each of them"
            )
        if not 0 <= label < len(self._meta["classes"]):
            raise InputError(
                f"clip {name!r} has label {label}, the data set has "
                f"{len(self._meta['classes'])} classes; name every class"
            )
        # + 0 makes zeros of negative zeros, so that equal clips have equal checksums.
        views = {key: np.asarray(xyz, np.float32) + 0 for key, xyz in views.items()}
        rows = {key: np.ascontiguousarray(xyz, dtype="<f4") for key, xyz in views.items()}
        for key, row in rows.items():
            if row.shape != self._rows[key]:
                raise InputError(
                    f"clip {name!r} has shape {row.shape} under {key}, "
                    f"wanted (M, T, V, 3) = {self._rows[key]}"
                )
        present = np.asarray(present, dtype=bool)
        if present.shape != (self.bodies,):
            raise InputError(
                f"clip {name!r} has a body mask of shape {present.shape}, wanted ({self.bodies},)"
            )
        constants = {}
        if self._constants:
            constants = {key: frames[key].to_row() for key in self.layouts}  # (13,) each
        self._splits[split].append(rows, present, label, name, constants)

    def finish(self, report: Mapping[str, Any] | None = None) -> Path:
        """Write labels, names, checksums and dataset.json, and move the folder to `out`."""
        for split in self._splits.values():
            split.close(self._rows, self.bodies, self._constants)
        splits = {name: len(split.labels) for name, split in self._splits.items()}
        meta = {
            "format_version": FORMAT_VERSION,
            "version": __version__,
            "name": self._meta["name"],
            "layouts": {name: layout.to_dict(True) for name, layout in self.layouts.items()},
            "coordinates": self._coordinates,
            "units": TORSO if self._size_by == "torso" else COORDINATES[self._coordinates],
            "frame": self._frame,
            "size_by": self._size_by,
            "derived_from": self._derived_from,
            "size": sizes(self._partial, self.layouts, splits, self._coordinates),
            "frames": self.frames,
            "bodies": self.bodies,
            "classes": self._meta["classes"],
            "splits": splits,
            "source": self._meta["source"],
            "checksums": checksums(self._partial, files_of(self.layouts, self._constants)),
            "report": dict(report or {}),
        }
        write_json(self._partial / "dataset.json", meta)
        require_free(self.out)  # again: preparing takes a while
        if self.out.exists():
            self.out.rmdir()  # empty; some systems do not rename onto it
        os.rename(self._partial, self.out)
        logger.info("wrote %s", self.out)
        return self.out

    def _discard(self) -> None:
        for split in self._splits.values():
            split.abandon()
        shutil.rmtree(self._partial, ignore_errors=True)
        for parent in self._made_parents:
            with contextlib.suppress(OSError):  # not made after all, or in use by others by now
                parent.rmdir()


class _OpenSplit:
    """The files of one split while they grow: an .npy a layout, the small arrays in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.labels: list[int] = []
        self._names: list[str] = []
        self._present: list[np.ndarray] = []
        self._constants: dict[str, list[np.ndarray]] = {}
        self._files: dict[str, BinaryIO] = {}

    def start(self, rows: Mapping[str, tuple[int, ...]]) -> None:
        self.folder.mkdir()
        for layout, row in rows.items():
            # Held open from clip to clip; `close` and `abandon` close it.
            self._files[layout] = open(self.folder / f"{layout}.npy", "wb")  # noqa: SIM115
            _write_header(self._files[layout], (0, *row))

    def append(
        self,
        rows: dict[str, np.ndarray],
        present: np.ndarray,
        label: int,
        name: str,
        constants: dict[str, np.ndarray],
    ) -> None:
        for layout, xyz in rows.items():
            self._files[layout].write(xyz.data)
        for layout, row in constants.items():
            self._constants.setdefault(layout, []).append(row)
        self._present.append(present)
        self.labels.append(int(label))
        self._names.append(name)

    def close(self, rows: Mapping[str, tuple[int, ...]], bodies: int, constants: bool) -> None:
        count = len(self.labels)
        for layout, file in self._files.items():
            file.seek(0)
            _write_header(file, (count, *rows[layout]))
            file.close()
        for layout in rows if constants else ():
            table = np.array(self._constants.get(layout, []), "<f8").reshape(count, 13)
            np.save(self.folder / f"{layout}.frame.npy", table)
        present = np.array(self._present, dtype=bool).reshape(count, bodies)
        np.save(self.folder / "bodies.npy", present)
        np.save(self.folder / "labels.npy", np.array(self.labels, dtype=np.int64))
        write_json(self.folder / "names.json", self._names)

    def abandon(self) -> None:
        for file in self._files.values():
            with contextlib.suppress(OSError):  # a full disk: the flush on closing fails once more
                file.close()


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    """The .npy header of a float32 array; as long for any number of rows, NumPy pads it so."""
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
