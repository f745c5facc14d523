"""The steps of cleaning: find what is missing, fill it, centre, resample.

Every function takes and returns the coordinates of the bodies of one clip under one layout,
B bodies x T frames x V joints x 3. Nothing here knows of files or of data sets.
"""

from __future__ import annotations

from functools import cache

import numpy as np


def seen_joints(xyz: np.ndarray) -> np.ndarray:
    """Which joints were measured: all three coordinates finite, and not all three exactly 0.

    `xyz` is (..., 3) of any real dtype; the result is (...) bool. Sensors and pose estimators
    write a joint that they lost as NaN or as the origin.
    """
    # Column by column: reductions over an axis of length 3 are several times slower.
    x, y, z = xyz[..., 0], xyz[..., 1], xyz[..., 2]
    seen = (x != 0) | (y != 0) | (z != 0)  # (B, T, V)
    if xyz.dtype.kind == "f":
        seen &= np.isfinite(x) & np.isfinite(y) & np.isfinite(z)
    return seen


def fill_gaps(xyz: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Interpolate missing joints linearly over time; beyond a joint's first and last sight, hold.

    `xyz` (B, T, V, 3) float, `seen` (B, T, V) bool. Seen joints come back untouched; a joint that
    is seen in no frame comes back as 0. Between its neighbours in time at frames a < t < b a
    missing joint becomes ((b - t) x[a] + (t - a) x[b]) / (b - a).
    """
    if seen.all():
        return xyz
    frames = xyz.shape[1]
    time = np.arange(frames)[:, None]  # (T, 1)
    before = np.maximum.accumulate(np.where(seen, time, -1), axis=1)  # (B, T, V)
    after = np.where(seen, time, frames)[:, ::-1]
    after = np.minimum.accumulate(after, axis=1)[:, ::-1]  # (B, T, V)

    filled = np.where(seen[..., None], xyz, 0)  # (B, T, V, 3)
    body, t, joint = np.nonzero(~seen & seen.any(axis=1, keepdims=True))
    a, b = before[body, t, joint], after[body, t, joint]
    a, b = np.where(a < 0, b, a), np.where(b == frames, a, b)  # hold the nearest at the ends
    weight = ((t - a) / np.maximum(b - a, 1))[:, None]
    filled[body, t, joint] = (1 - weight) * xyz[body, a, joint] + weight * xyz[body, b, joint]
    return filled


def center_bodies(xyz: np.ndarray, ever: np.ndarray, center: int) -> np.ndarray:
    """Subtract the joint `center` from each body in each frame.

    `xyz` (B, T, V, 3) without gaps, `ever` (B, V) bool: joints seen in at least one frame. The
    others come out as 0, that is at the body's centre. Where the centre joint itself was never
    seen, the mean of the joints that were takes its place.
    """
    origin = xyz[:, :, center].copy()  # (B, T, 3)
    for body in np.nonzero(~ever[:, center])[0]:
        origin[body] = xyz[body][:, ever[body]].mean(axis=1)
    centred = xyz - origin[:, :, None]
    if not ever.all():
        centred *= ever[:, None, :, None]
    return centred


def resample(xyz: np.ndarray, frames: int) -> np.ndarray:
    """Linear resampling over time to `frames` frames, both ends kept.

    `xyz` (B, T, V, 3) float; the new frame i lies at i (T - 1) / (frames - 1). A clip of one frame
    is repeated; `frames=1` keeps the first.
    """
    left, right, weight = _between(xyz.shape[1], frames)
    return (1 - weight) * xyz.take(left, axis=1) + weight * xyz.take(right, axis=1)


@cache
def _between(length: int, frames: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The old frames left and right of each new one (frames,), and how far right (frames, 1, 1)."""
    position = np.linspace(0, length - 1, frames)
    left = position.astype(np.int64)
    return left, np.minimum(left + 1, length - 1), (position - left)[:, None, None]


def motion(xyz: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """How much each body moves: the sum over joints and axes of the variance over time.

    `xyz` (B, T, V, 3), `seen` (B, T, V) bool; returns (B,). Missing joints do not count.
    """
    count = np.maximum(seen.sum(axis=1), 1)[:, None, :, None]  # (B, 1, V, 1)
    mask = seen[..., None]
    mean = np.where(mask, xyz, 0).sum(axis=1, keepdims=True) / count
    deviation = np.where(mask, xyz - mean, 0)
    return (deviation**2 / count).sum(axis=(1, 2, 3))
