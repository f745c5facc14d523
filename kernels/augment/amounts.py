"""How strong each augmentation is: checked, and as the kernels take it."""

from __future__ import annotations

import difflib
import math
import struct
from collections.abc import Mapping
from typing import NamedTuple

PAPER = {
    "shear": 0.5,
    "crop": 1 / 6,
    "rotation": 30.0,
    "noise": 0.01,
    "blur": 2.0,
    "flip": 0.5,
    "axis": 0.5,
}
LEAST_BLUR = 0.1
_MOST = {"crop": 1.0, "rotation": 180.0, "flip": 1.0, "axis": 1.0}


class Amounts(NamedTuple):
    """An amount of 0 switches its augmentation off."""

    pad: float  # frames mirrored onto each end before the crop, a whole number
    shear: float  # off-diagonals in -shear..shear
    rotation: float  # degrees, about one axis; about the others up to 1
    noise: float  # standard deviation
    blur: float  # largest standard deviation, frames
    flip: float  # probability
    axis: float  # probability


def amounts_of(strengths: Mapping[str, float] | None, frames: int) -> Amounts:
    """Strengths by name, the others as in the papers, for clips of so many frames."""
    given = PAPER | dict(strengths or {})
    for name, value in given.items():
        if name not in PAPER:
            close = difflib.get_close_matches(str(name), PAPER, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(PAPER)}"
            raise ValueError(f"strengths has no {name!r}; {hint}")
        most = _MOST.get(name, math.inf)
        if not (0 <= value <= most and math.isfinite(value)):
            wanted = f"in 0..{most:g}" if most < math.inf else "finite and not negative"
            raise ValueError(f"strengths: {name} must be {wanted}, got {value!r}")
    if 0 < given["blur"] < LEAST_BLUR:
        raise ValueError(f"strengths: blur must be 0 or at least {LEAST_BLUR}, got {given['blur']}")
    pad = math.floor(given["crop"] * frames + 1e-9)  # a sixth of 6 frames is 1
    flip, axis = (_single(given[name]) for name in ("flip", "axis"))
    rest = (float(given[name]) for name in ("shear", "rotation", "noise", "blur"))
    return Amounts(float(pad), *rest, flip, axis)


def _single(probability: float) -> float:
    """As a float32 holds it, so that all backends compare with the same number."""
    return struct.unpack("f", struct.pack("f", probability))[0]
