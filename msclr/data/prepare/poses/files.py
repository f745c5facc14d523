"""One pose file, in any of the forms that are accepted, as a list of frames."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from reprlib import repr as short
from typing import Any, NamedTuple

import numpy as np

from msclr.errors import InputError

SUFFIXES = (".pt", ".npz", ".npy")
_WRITERS = {".npz": "savez", ".npy": "save"}

_RAGGED = (
    "write unlike numbers of people as .npz with poses3d (F, V, 3), all people end to end, and "
    "num_people (T,)"
)


class PoseFile(NamedTuple):
    """frames: T arrays (m_t, V, 3) in the file's units and joint order, (0,) for nobody too."""

    frames: list[np.ndarray]
    joint_names: tuple[str, ...] | None


def read_pose_file(path: Path) -> PoseFile:
    """The poses of one video.

    Accepted, T frames, m_t people in frame t, F the sum of m_t, V joints; any real dtype:

        .npy   (T, V, 3), or (T, M, V, 3) where M people have places, NaN or all zero where absent
        .npz   the same under `poses3d`, or as its only array;
               `poses3d` (F, V, 3), all people end to end, with `num_people` (T,) or `offset`
               (T + 1,): frame t is rows offset[t] to offset[t + 1];
               or one array (m_t, V, 3) a frame, under names that end in the frame's number
        .pt    a tensor as in .npy; a list of T tensors (m_t, V, 3); or a dict that holds either
               under `poses3d`, or the ragged form of .npz

    `joint_names`, V texts in an .npz or in the dict of a .pt, are kept; other entries besides
    `poses3d`, such as boxes, are left alone. Files are never unpickled: .pt by
    torch.load(weights_only=True), the others with allow_pickle=False.

    Raises InputError with what came, for anything else; the caller puts the file's name in front.
    """
    return _frames_of(_load_torch(path) if path.suffix == ".pt" else _load_numpy(path))


def _load_torch(path: Path) -> Any:
    import torch  # here, as most pose files need none of it

    try:
        return _to_numpy(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # a damaged file makes the unpickler raise anything
        # torch explains at length how to unpickle the file all the same, which nobody should.
        reason = "" if "weights_only" in str(error) else f" ({_brief(error)})"
        raise InputError(
            f"cannot be read{reason}; wanted a file of torch.save that holds dense tensors, lists, "
            "dicts and texts only"
        ) from None


def _to_numpy(content: Any) -> Any:
    """The same with arrays for tensors. Floats become double: NumPy has no bfloat16."""
    import torch

    if isinstance(content, torch.Tensor):
        content = content.detach()
        return (content.double() if content.dtype.is_floating_point else content).numpy()
    if isinstance(content, Mapping):
        return {key: _to_numpy(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_to_numpy(value) for value in content]
    return content


def _load_numpy(path: Path) -> Any:
    try:
        content = np.load(path, allow_pickle=False)
        if isinstance(content, np.ndarray):
            return content
        with content:
            return {key: content[key] for key in content.files}
    except Exception as error:  # a damaged header makes NumPy raise anything, TokenError too
        if "Object arrays" in str(error):
            raise InputError(f"holds Python objects (dtype object); {_RAGGED}") from None
        reason = "not its format" if "pickle" in str(error) else _brief(error)
        raise InputError(
            f"cannot be read ({reason}); write it with numpy.{_WRITERS[path.suffix]}"
        ) from None


def _brief(error: Exception) -> str:
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return text if len(text) < 90 else text[:80] + "…"


def _frames_of(content: Any) -> PoseFile:
    if not isinstance(content, Mapping):
        return PoseFile(_checked(_split(content)), None)
    entries = dict(content)
    names = _names(entries.pop("joint_names")) if "joint_names" in entries else None
    if "poses3d" in entries:
        poses = entries["poses3d"]
        offset = _offset(entries)
        frames = _split(poses) if offset is None else _cut(_array(poses, "poses3d"), offset)
    elif len(entries) == 1:
        frames = _split(next(iter(entries.values())))
    else:
        frames = _one_array_a_frame(entries)
    return PoseFile(_checked(frames), names)


def _split(poses: Any) -> list[np.ndarray]:
    """A whole clip as frames: (T, V, 3), (T, M, V, 3), or a list of (m_t, V, 3)."""
    if isinstance(poses, list | tuple):
        return [_array(frame, f"frame {t}") for t, frame in enumerate(poses)]
    poses = _array(poses, "poses")
    if poses.ndim not in (3, 4):
        raise InputError(
            f"holds poses of shape {poses.shape}; wanted (T, V, 3), (T, M, V, 3) or a list of "
            "(people, V, 3)"
        )
    return list(poses[:, None] if poses.ndim == 3 else poses)


def _offset(entries: Mapping[str, Any]) -> np.ndarray | None:
    """(T + 1,) rows of each frame, from `offset` or `num_people`; None where neither is given."""
    given = [key for key in ("offset", "num_people") if key in entries]
    if not given:
        return None
    key = given[0]
    rows = _array(entries[key], key)
    if rows.ndim != 1 or rows.dtype.kind not in "iu":
        raise InputError(f"{key} is {rows.dtype} of shape {rows.shape}; wanted a row of integers")
    rows = rows.astype(np.int64)
    if key == "num_people":
        rows = np.concatenate([[0], rows.cumsum()])
    if not len(rows) or rows[0] != 0 or (np.diff(rows) < 0).any():
        raise InputError(f"{key} is no count of rows; offset rises from 0, num_people is 0 or more")
    return rows


def _cut(poses: np.ndarray, offset: np.ndarray) -> list[np.ndarray]:
    if poses.ndim != 3 or len(poses) != offset[-1]:
        raise InputError(
            f"poses3d has shape {poses.shape}, but offset or num_people speak of {offset[-1]} rows "
            "(F, V, 3)"
        )
    return [poses[a:b] for a, b in zip(offset[:-1], offset[1:], strict=True)]


def _one_array_a_frame(entries: Mapping[str, Any]) -> list[np.ndarray]:
    numbers: dict[int, str] = {}
    for key in entries:
        match = re.search(r"\d+$", str(key))
        if match is None or int(match[0]) in numbers:
            raise InputError(
                f"holds {', '.join(map(str, entries)) or 'nothing'}; wanted poses3d, or one array "
                "a frame under names that end in the frame's number"
            )
        numbers[int(match[0])] = key
    first = min(numbers, default=0)
    gap = next((n for n in range(first, first + len(numbers)) if n not in numbers), None)
    if gap is not None:
        raise InputError(f"has no array for frame {gap}; write frames without people as (0, V, 3)")
    return [_array(entries[numbers[n]], str(numbers[n])) for n in sorted(numbers)]


def _names(names: Any) -> tuple[str, ...]:
    names = names.tolist() if isinstance(names, np.ndarray) else names
    if not isinstance(names, list) or not all(isinstance(name, str | bytes) for name in names):
        raise InputError(f"joint_names is {short(names)}; wanted a row of texts")
    names = [os.fsdecode(name) for name in names]
    twice = [name for i, name in enumerate(names) if name in names[:i]]
    if twice:
        raise InputError(f"joint_names holds {twice[0]!r} twice")
    return tuple(names)


def _array(value: Any, what: str) -> np.ndarray:
    if not isinstance(value, np.ndarray):
        raise InputError(f"{what} is a {type(value).__name__}; wanted an array of numbers")
    if value.dtype.kind not in "iuf":
        raise InputError(f"{what} holds {value.dtype}; wanted integers or floating-point numbers")
    return value


def _checked(frames: list[np.ndarray]) -> list[np.ndarray]:
    """Frames that are (m_t, V, 3) with one V, or empty; else InputError."""
    if not frames:
        raise InputError("holds no frame")
    joints = next((frame.shape[1] for frame in frames if frame.ndim == 3), None)
    for t, frame in enumerate(frames):
        if frame.size and (frame.ndim != 3 or frame.shape[1:] != (joints, 3)):
            raise InputError(
                f"frame {t} has shape {frame.shape}; wanted (people, V, 3) with one V in all frames"
            )
    return frames
