"""What reading and writing a prepared data set share: the names of its files, JSON, checksums."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from msclr.data.size import body_size
from msclr.errors import InputError
from msclr.paths import as_path

FORMAT_VERSION = 1
SPLITS = ("train", "val")
COORDINATES = {  # what the last axis holds, and the units of its positions
    "xyz": "metre",
    "xy_score": "half of the image's width and height, from its middle",
}
FRAMES = ("body", "camera", "ntu", "none")  # what coordinates are relative to (`prepare_arrays`)
CENTRED = ("camera", "ntu")  # of which the centre joint is subtracted in each frame
SIZES = ("torso", "none")
TORSO = "torso, from the middle of the hips to the base of the neck"  # the unit of size "torso"
_BLOCK = 1 << 20  # bytes hashed at a time


def require_free(out: str | os.PathLike[str]) -> None:
    """Raise InputError unless `out` does not exist or is an empty folder."""
    path = as_path(out)
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file; choose a folder that does not exist yet")
    if path.is_dir() and any(path.iterdir()):
        raise InputError(f"{path} exists and is not empty; choose another folder or remove it")


def keeps_constants(frame: str, size_by: str) -> bool:
    """Whether each clip has constants that led into its frame."""
    return frame == "body" or size_by == "torso"


def frame_of(meta: Mapping[str, Any]) -> str:
    """The frame of a data set; of older versions, which did not record it, the one they used."""
    report = meta.get("report")
    older = "ntu" if isinstance(report, dict) and "protocol" in report else "camera"
    return meta.get("frame", older)


def files_of(layouts: Iterable[str], constants: bool) -> list[str]:
    """Every file of a data set besides dataset.json, as the checksums name them."""
    layouts = list(layouts)
    arrays = [*layouts, *(f"{name}.frame" for name in layouts if constants), "bodies", "labels"]
    return [
        f"{split}/{file}"
        for split in SPLITS
        for file in [*(f"{array}.npy" for array in arrays), "names.json"]
    ]


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    require_file(path)
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:  # broken JSON and broken UTF-8 alike
        raise InputError(f"{path} is not JSON ({error}); prepare the data set again") from error


def require_file(path: Path) -> None:
    if not path.is_file():
        raise InputError(f"{path} is missing; copy the whole folder or prepare the data set again")


def sizes(
    folder: Path, layouts: Iterable[str], splits: Mapping[str, int], coordinates: str
) -> dict[str, float | None]:
    """Layout name -> the size of the bodies in the files of `folder`, see `Store.size`."""
    split = "train" if splits["train"] else "val"
    maps = {name: np.load(folder / split / f"{name}.npy", mmap_mode="r") for name in layouts}
    return {name: body_size(clips, coordinates == "xy_score") for name, clips in maps.items()}


def checksums(folder: Path, files: Iterable[str]) -> dict[str, str]:
    """File -> SHA-256; one thread per core, as hashing releases Python's lock."""
    files = list(files)
    with ThreadPoolExecutor() as pool:
        digests = pool.map(sha256, [folder / file for file in files])
        return dict(zip(files, digests, strict=True))


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
