"""The usual rule for NTU RGB+D: a clip is turned about y until the shoulders lie along x."""

from __future__ import annotations

import math

import numpy as np

_SHORTEST = 1e-3  # metres of shoulder line, seen from above, that have a direction


def shoulder_line(left: np.ndarray, right: np.ndarray) -> tuple[float, float] | None:
    """(x, z) of length 1 from the left to the right shoulder, in the first frame that shows both.

    left, right: (T, 3) metres, NaN where a shoulder is not seen. None: no frame shows both apart.
    """
    for x, _, z in (right.astype(np.float64) - left).tolist():
        length = math.hypot(x, z)
        if length >= _SHORTEST:  # not so for NaN
            return x / length, z / length
    return None


def turn(xyz: np.ndarray, cos: float, sin: float) -> None:
    """Turn (..., 3) about y, in place, so that the direction (x, z) = (cos, sin) becomes (1, 0)."""
    x, z = xyz[..., 0].copy(), xyz[..., 2]
    xyz[..., 0] = cos * x + sin * z
    xyz[..., 2] = cos * z - sin * x
