"""The prepared data set on disk: one folder, written whole or not at all, read by memory map.

dataset.json         layouts, units, frame, size, splits, classes, frames, bodies, source,
                     checksums, report
train/  val/         <layout>.npy  (N, M, T, V, 3) float32, one file per layout; the last axis is
                                   x, y, z in metres, or x, y, score (see COORDINATES)
                     bodies.npy    (N, M) bool: which bodies are there
                     labels.npy    (N,) int64
                     names.json    list of N names
                     <layout>.frame.npy  (N, 13) float64, where clips were put into a frame of their
                                   own: the constants that did so, see `Frame.to_row`
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from msclr import layouts as layout_registry
from msclr.data._store_files import (
    CENTRED,
    COORDINATES,
    FORMAT_VERSION,
    FRAMES,
    SIZES,
    SPLITS,
    files_of,
    frame_of,
    keeps_constants,
    read_json,
    require_file,
    require_free,
    sha256,
    sizes,
)
from msclr.data.skeleton.frame import Frame
from msclr.data.store_writer import StoreWriter
from msclr.errors import InputError
from msclr.layouts.layout import Layout
from msclr.paths import as_path

__all__ = [
    "CENTRED",
    "COORDINATES",
    "FRAMES",
    "SIZES",
    "SPLITS",
    "Split",
    "Store",
    "StoreWriter",
    "open_store",
    "require_free",
]

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


@dataclass(frozen=True)
class Split:
    """The clips of one split, in the order they were written.

    views: layout name -> (N, M, T, V, 3) float32, read-only memory map: x, y, z in metres, or
        what else `Store.coordinates` says
    bodies: (N, M) bool, False where a body is absent (its coordinates are 0)
    labels: (N,) int64
    names: N strings
    frame: what the coordinates are relative to (`prepare_arrays`)
    constants: layout name -> (N, 13) float64, the constants that took each clip into its frame
        (`Frame.to_row`); empty where there are none
    """

    views: dict[str, np.ndarray]
    bodies: np.ndarray
    labels: np.ndarray
    names: list[str]
    frame: str = "camera"
    constants: dict[str, np.ndarray] = field(default_factory=dict)

    def metres(self, layout: str, clip: int) -> np.ndarray:
        """A clip as the sensor saw it, cleaned and resampled: (M, T, V, 3) float64 metres.

        In the axes and about the origin that the clip had before it was put into its frame. Joints
        that were never seen, and absent bodies, are 0. Raises InputError for a data set of the
        frames "camera" and "ntu", from which the centre joint was subtracted in each frame.
        """
        if self.frame in CENTRED:
            raise InputError(
                f"the frame {self.frame!r} does not keep where bodies were; prepare the clips with "
                "--frame body or none"
            )
        xyz = np.asarray(self.views[layout][clip], np.float64)
        if layout not in self.constants:
            return xyz
        return Frame.from_row(self.constants[layout][clip]).invert(xyz)

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Store:
    """A prepared data set, as `open_store` returns it. `meta` is dataset.json as it was read.

    coordinates: what the last axis of the clips holds. "xyz": x, y, z in metres, each body about
        its centre joint. "xy_score": x and y from the middle of the image in halves of its width
        and height (x to the right, y down, -1 to 1 inside), and the score of the joint, 0 where it
        was not seen.
    frame: what the coordinates are relative to: "body", "camera", "ntu" or "none", see
        `prepare_arrays`.
    size_by: "torso" where each clip was divided by the length of its main body's torso, else
        "none".
    """

    path: Path
    layouts: dict[str, Layout]
    classes: list[str]
    frames: int
    bodies: int
    meta: dict[str, Any] = field(repr=False)
    coordinates: str = "xyz"
    frame: str = "camera"
    size_by: str = "none"

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
        return sizes(self.path, self.layouts, self.meta["splits"], self.coordinates)

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
        names = read_json(folder / "names.json")
        if not isinstance(names, list) or len(names) != count:
            raise InputError(
                f"{folder / 'names.json'} is not a list of {count} names, as dataset.json says; "
                "prepare the data set again"
            )
        constants = {}
        if keeps_constants(self.frame, self.size_by):
            constants = {
                name: _load(folder / f"{name}.frame.npy", (count, 13), np.float64)
                for name in self.layouts
            }
        return Split(views, bodies, labels, names, self.frame, constants)


def open_store(path: str | os.PathLike[str], verify: bool = True) -> Store:
    """Open the prepared data set in the folder `path`.

    `verify` compares the SHA-256 of every file with dataset.json, one to two seconds per gigabyte.
    That the files are there and have the right shapes and dtypes is checked in any case. Layouts
    of the data set that are not known yet are registered. Every fault is an InputError.
    """
    folder = as_path(path).absolute()  # so that it is found from another working folder as well
    meta = _read_meta(folder)
    store = Store(
        path=folder,
        layouts=_read_layouts(folder, meta["layouts"]),
        classes=meta["classes"],
        frames=meta["frames"],
        bodies=meta["bodies"],
        meta=meta,
        coordinates=meta.get("coordinates", "xyz"),
        frame=frame_of(meta),
        size_by=meta.get("size_by", "none"),
    )
    for file in files_of(store.layouts, keeps_constants(store.frame, store.size_by)):
        require_file(folder / file)
        if verify and sha256(folder / file) != meta["checksums"].get(file):
            raise InputError(
                f"{folder / file} does not match its checksum in dataset.json: it was damaged or "
                "changed; copy it again or prepare the data set again"
            )
    for split in SPLITS:
        store.split(split)
    for layout in store.layouts.values():
        layout_registry.register(layout)
    return store


def _read_meta(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give the folder that `msclr prepare` wrote")
    path = folder / "dataset.json"
    if not path.is_file():
        raise InputError(
            f"{folder} has no dataset.json: it is not a prepared data set; give the folder that "
            "`msclr prepare` wrote"
        )
    meta = read_json(path)
    version = meta.get("format_version") if isinstance(meta, dict) else None
    if version != FORMAT_VERSION:
        raise InputError(
            f"{path} has format_version {version!r}, this msclr reads {FORMAT_VERSION}; "
            "prepare the data set again"
        )
    kinds = {"coordinates": tuple(COORDINATES), "frame": FRAMES, "size_by": SIZES}
    for key, known in kinds.items():
        if key in meta and meta[key] not in known:  # whatever JSON holds there
            raise InputError(
                f"{path}: {key} is {meta[key]!r}, this msclr reads {' and '.join(known)}; "
                "prepare the data set again"
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
    require_file(path)
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
