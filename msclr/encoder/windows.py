"""Windows of long recordings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from msclr.errors import InputError


class Windows(NamedTuple):
    """Stretches of recordings, in order.

    clips: each (T, V, 3) or (M, T, V, 3), a slice of its recording. recording, start, end: (N,)
    int64: which recording, and its frames from start up to end. left_out: how many had no joint.
    """

    clips: list[np.ndarray]
    recording: np.ndarray
    start: np.ndarray
    end: np.ndarray
    left_out: int


def windows_of(
    recordings: Sequence[np.ndarray], window: int | None, stride: int | None = None
) -> Windows:
    """Windows of `window` frames, one each `stride` frames (None: half a window).

    The last window of a recording ends with it; a recording that is no longer than a window is one,
    and so is any where `window` is None. Those in which every joint is NaN or 0 are left out.
    """
    if window is None and stride is not None:
        raise InputError("a stride without a window; give both, or neither")
    for name, frames in (("window", window), ("stride", stride)):
        if frames is not None and frames < 1:
            raise InputError(f"{name} is {frames}; give a number of frames from 1 on")
    clips, places, left_out = [], [], 0
    for number, recording in enumerate(recordings):
        length = recording.shape[-3]
        for start, end in _spans(length, window, stride):
            clip = recording[..., start:end, :, :]
            if window is not None and not _has_joint(clip):
                left_out += 1
                continue
            clips.append(clip)
            places.append((number, start, end))
    if recordings and not clips:
        raise InputError("no window has a joint: all are NaN or 0")
    table = np.array(places, np.int64).reshape(-1, 3)
    return Windows(clips, *table.T, left_out)


def _spans(length: int, window: int | None, stride: int | None) -> list[tuple[int, int]]:
    if window is None or length <= window:
        return [(0, length)]
    step = stride or max(window // 2, 1)
    starts = list(range(0, length - window + 1, step))
    if starts[-1] + window < length:
        starts.append(length - window)
    return [(start, start + window) for start in starts]


def _has_joint(clip: np.ndarray) -> bool:
    return bool((np.isfinite(clip).all(axis=-1) & (clip != 0).any(axis=-1)).any())
