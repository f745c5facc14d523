"""The prepared data set on disk: one folder, written whole or not at all, read by memory map.

dataset.json         layouts, units, size, splits, classes, frames, bodies, source, checksums,
                     report
train/  val/         <layout>.npy  (N, M, T, V, 3) float32, one file a layout; the last axis is
                                   x, y, z in metres, or x, y, score (see COORDINATES)
                     bodies.npy    (N, M) bool: which bodies are there
                     labels.npy    (N,) int64
                     names.json    list of N names
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import os
import shutil
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from msclr import __version__
from msclr import layouts as layout_registry
from msclr.data.size import body_size
from msclr.errors import InputError
from msclr.layouts.layout import Layout

FORMAT_VERSION = 1
SPLITS = ("train", "val")
COORDINATES = {  # what the last axis holds, and the units of its positions
    "xyz": "metre",
    "xy_score": "half of the image's width and height, from its middle",
}
_BLOCK = 1 << 20  # bytes hashed at a time
_FIELDS = {
    "name": str,
    "layouts": dict,
    "frames": int,
    "bodies": int,
    "classes": list,
    "splits": dict,
    "source": str,
    "checksums": dict,
}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Split:
    """The clips of one split, in the order they were written.

    views: layout name -> (N, M, T, V, 3) float32, read-only memory map: x, y, z in metres, or
        what else `Store.coordinates` says
    bodies: (N, M) bool, False where a body is absent (its coordinates are 0)
    labels: (N,) int64
    names: N strings
    """

    views: dict[str, np.ndarray]
    bodies: np.ndarray
    labels: np.ndarray
    names: list[str]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Store:
    """A prepared data set, as `open_store` returns it. `meta` is dataset.json as it stands.

    coordinates: what the last axis of the clips holds. "xyz": x, y, z in metres, each body about
        its centre joint. "xy_score": x and y from the middle of the image in halves of its width
        and height (x to the right, y down, -1 to 1 inside), and the score of the joint, 0 where it
        was not seen.
    """

    path: Path
    layouts: dict[str, Layout]
    classes: list[str]
    frames: int
    bodies: int
    meta: dict[str, Any] = field(repr=False)
    coordinates: str = "xyz"

    @cached_property
    def size(self) -> dict[str, float | None]:
        """Layout name -> the usual extent of a body, in the unit of the clips (see `body_size`).

        Of the training clips, or of the validation clips where there are no others; None where no
        clip can be measured. Read from dataset.json; measured now if it was prepared before the
        size was kept there.
        """
        kept = self.meta.get("size") or {}
        if self.layouts.keys() <= kept.keys():
            return {name: kept[name] for name in self.layouts}
        return _sizes(self.path, self.layouts, self.meta["splits"], self.coordinates)

    def split(self, name: str) -> Split:
        """The split `name` ("train" or "val"), memory-mapped. Raises InputError."""
        if name not in SPLITS:
            raise InputError(f"split {name!r} is not known; choose one of {', '.join(SPLITS)}")
        folder, count = self.path / name, self.meta["splits"][name]
        views = {}
        for layout in self.layouts.values():
            shape = (count, self.bodies, self.frames, layout.num_joints, 3)
            views[layout.name] = _load(folder / f"{layout.name}.npy", shape, np.float32, "r")
        bodies = _load(folder / "bodies.npy", (count, self.bodies), np.bool_)
        labels = _load(folder / "labels.npy", (count,), np.int64)
        if count and (labels.min() < 0 or labels.max() >= len(self.classes)):
            raise InputError(
                f"{folder / 'labels.npy'} holds labels from {labels.min()} to {labels.max()}, "
                f"dataset.json lists {len(self.classes)} classes; prepare the data set again"
            )
        names = _read_json(folder / "names.json")
        if not isinstance(names, list) or len(names) != count:
            raise InputError(
                f"{folder / 'names.json'} is not a list of {count} names, as dataset.json says; "
                "prepare the data set again"
            )
        return Split(views, bodies, labels, names)


def open_store(path: str | os.PathLike[str], verify: bool = True) -> Store:
    """Open the prepared data set in the folder `path`.

    `verify` compares the SHA-256 of every file with dataset.json, one to two seconds a gigabyte.
    That the files are there and have the right shapes and dtypes is checked in any case. Layouts
    of the data set that are not known yet are registered. Every fault is an InputError.
    """
    folder = Path(path)
    meta = _read_meta(folder)
    store = Store(
        path=folder,
        layouts=_read_layouts(folder, meta["layouts"]),
        classes=meta["classes"],
        frames=meta["frames"],
        bodies=meta["bodies"],
        meta=meta,
        coordinates=meta.get("coordinates", "xyz"),
    )
    for file in _files(store.layouts):
        _require_file(folder / file)
        if verify and _sha256(folder / file) != meta["checksums"].get(file):
            raise InputError(
                f"{folder / file} does not match its checksum in dataset.json: it was damaged or "
                "changed; copy it again or prepare the data set again"
            )
    for split in SPLITS:
        store.split(split)
    for layout in store.layouts.values():
        layout_registry.register(layout)
    return store


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
    ) -> None:
        require_free(out)
        self.out = Path(out).resolve()
        self.layouts = {layout.name: layout for layout in layouts}
        for taken in self.layouts.keys() & {"bodies", "labels"}:
            raise InputError(f"a layout cannot be called {taken!r}, a file of that name is written")
        self.frames, self.bodies = frames, bodies
        self._meta = {"name": name, "classes": list(classes), "source": source}
        self._coordinates = coordinates
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
    ) -> None:
        """Append one clip: `views` layout name -> (M, T, V, 3), `present` (M,) bool."""
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
        self._splits[split].append(rows, present, label, name)

    def finish(self, report: Mapping[str, Any] | None = None) -> Path:
        """Write labels, names, checksums and dataset.json, and move the folder to `out`."""
        for split in self._splits.values():
            split.close(self._rows, self.bodies)
        splits = {name: len(split.labels) for name, split in self._splits.items()}
        meta = {
            "format_version": FORMAT_VERSION,
            "version": __version__,
            "name": self._meta["name"],
            "layouts": {name: layout.to_dict() for name, layout in self.layouts.items()},
            "coordinates": self._coordinates,
            "units": COORDINATES[self._coordinates],
            "size": _sizes(self._partial, self.layouts, splits, self._coordinates),
            "frames": self.frames,
            "bodies": self.bodies,
            "classes": self._meta["classes"],
            "splits": splits,
            "source": self._meta["source"],
            "checksums": _checksums(self._partial, _files(self.layouts)),
            "report": dict(report or {}),
        }
        _write_json(self._partial / "dataset.json", meta)
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
        self._files: dict[str, BinaryIO] = {}

    def start(self, rows: Mapping[str, tuple[int, ...]]) -> None:
        self.folder.mkdir()
        for layout, row in rows.items():
            # Held open from clip to clip; `close` and `abandon` close it.
            self._files[layout] = open(self.folder / f"{layout}.npy", "wb")  # noqa: SIM115
            _write_header(self._files[layout], (0, *row))

    def append(self, rows: dict[str, np.ndarray], present: np.ndarray, label: int, name: str):
        for layout, xyz in rows.items():
            self._files[layout].write(xyz.data)
        self._present.append(present)
        self.labels.append(int(label))
        self._names.append(name)

    def close(self, rows: Mapping[str, tuple[int, ...]], bodies: int) -> None:
        count = len(self.labels)
        for layout, file in self._files.items():
            file.seek(0)
            _write_header(file, (count, *rows[layout]))
            file.close()
        present = np.array(self._present, dtype=bool).reshape(count, bodies)
        np.save(self.folder / "bodies.npy", present)
        np.save(self.folder / "labels.npy", np.array(self.labels, dtype=np.int64))
        _write_json(self.folder / "names.json", self._names)

    def abandon(self) -> None:
        for file in self._files.values():
            with contextlib.suppress(OSError):  # a full disk: the flush on closing fails once more
                file.close()


def require_free(out: str | os.PathLike[str]) -> None:
    """Raise InputError unless `out` does not exist or is an empty folder."""
    path = Path(out)
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file; choose a folder that does not exist yet")
    if path.is_dir() and any(path.iterdir()):
        raise InputError(f"{path} exists and is not empty; choose another folder or remove it")


def _files(layouts: Iterable[str]) -> list[str]:
    """Every file of a data set beside dataset.json, as the checksums name them."""
    arrays = [*layouts, "bodies", "labels"]
    return [
        f"{split}/{file}"
        for split in SPLITS
        for file in [*(f"{array}.npy" for array in arrays), "names.json"]
    ]


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    """The .npy header of a float32 array; as long for any number of rows, NumPy pads it so."""
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _read_json(path: Path) -> Any:
    _require_file(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # broken JSON and broken UTF-8 alike
        raise InputError(f"{path} is not JSON ({error}); prepare the data set again") from error


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise InputError(f"{path} is missing; copy the whole folder or prepare the data set again")


def _read_meta(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give the folder that `msclr prepare` wrote")
    path = folder / "dataset.json"
    if not path.is_file():
        raise InputError(
            f"{folder} has no dataset.json: it is not a prepared data set; give the folder that "
            "`msclr prepare` wrote"
        )
    meta = _read_json(path)
    version = meta.get("format_version") if isinstance(meta, dict) else None
    if version != FORMAT_VERSION:
        raise InputError(
            f"{path} has format_version {version!r}, this msclr reads {FORMAT_VERSION}; "
            "prepare the data set again"
        )
    if meta.get("coordinates", "xyz") not in tuple(COORDINATES):  # whatever JSON holds there
        raise InputError(
            f"{path}: coordinates are {meta['coordinates']!r}, this msclr reads "
            f"{' and '.join(COORDINATES)}; prepare the data set again"
        )
    for key, kind in _FIELDS.items():
        if not isinstance(meta.get(key), kind):
            raise InputError(
                f"{path}: {key!r} is {meta.get(key)!r}, wanted a JSON {kind.__name__}; "
                "prepare the data set again"
            )
    for split in SPLITS:
        if not isinstance(meta["splits"].get(split), int):
            raise InputError(f"{path}: no clip count for {split!r}; prepare the data set again")
    _check_size(path, meta.get("size"))
    return meta


def _check_size(path: Path, size: Any) -> None:
    """Data sets of older versions have no `size`; a layout without any body has None."""
    if size is None:
        return
    if not isinstance(size, dict) or not all(
        x is None or (type(x) in (int, float) and 0 < x < math.inf) for x in size.values()
    ):
        raise InputError(
            f"{path}: 'size' is {size!r}, wanted a length above 0 for each layout; "
            "prepare the data set again"
        )


def _read_layouts(folder: Path, described: Mapping[str, Any]) -> dict[str, Layout]:
    """The layouts of dataset.json; where one of that name is known already, the known one.

    Its joints, bones and centre must then be the same: the data were made with them.
    """
    found = {}
    for name, fields in described.items():
        layout = Layout.from_dict(fields, source=f"{folder / 'dataset.json'}: layout {name}")
        if layout.name != name:
            raise InputError(
                f"{folder / 'dataset.json'}: layout {name} calls itself {layout.name}; "
                "prepare the data set again"
            )
        known = layout_registry.get(name) if name in layout_registry.names() else layout
        for part in ("joints", "bones", "center"):
            if getattr(known, part) != getattr(layout, part):
                raise InputError(
                    f"the {part} of layout {name} in {folder} differ from those of the layout "
                    "that msclr knows under this name; rename your layout and prepare again"
                )
        found[name] = known
    return found


def _load(path: Path, shape: tuple[int, ...], dtype: Any, mmap_mode: Any = None) -> np.ndarray:
    _require_file(path)
    try:
        array = np.load(path, mmap_mode=mmap_mode, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise InputError(
            f"{path} cannot be read ({error}); copy it again or prepare the data set again"
        ) from error
    if array.shape != shape or array.dtype != dtype:
        raise InputError(
            f"{path} holds {array.dtype} {array.shape}, dataset.json says {np.dtype(dtype)} "
            f"{shape}; prepare the data set again"
        )
    return array


def _sizes(
    folder: Path, layouts: Iterable[str], splits: Mapping[str, int], coordinates: str
) -> dict[str, float | None]:
    """Layout name -> the size of the bodies in the files of `folder`, see `Store.size`."""
    split = "train" if splits["train"] else "val"
    maps = {name: np.load(folder / split / f"{name}.npy", mmap_mode="r") for name in layouts}
    return {name: body_size(clips, coordinates == "xy_score") for name, clips in maps.items()}


def _checksums(folder: Path, files: Iterable[str]) -> dict[str, str]:
    """File -> SHA-256; a thread a core, for hashing leaves Python free."""
    files = list(files)
    with ThreadPoolExecutor() as pool:
        digests = pool.map(_sha256, [folder / file for file in files])
        return dict(zip(files, digests, strict=True))


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
