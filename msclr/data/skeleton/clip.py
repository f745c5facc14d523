"""What a ``.skeleton`` file holds, as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from msclr.errors import InputError


@dataclass(frozen=True, eq=False, slots=True)
class Skeleton:
    """The bodies of one clip: a row per body id, in order of appearance, 0 where a body is absent.

    Attributes:
        body_ids: (P,) uint64, or text where an id does not fit into 64 bits.
        present: (P, T) bool.
        xyz: (P, T, V, 3) float32, metres in the sensor's frame; V = 25, the joints of Kinect v2.
        tracking: (P, T, V) uint8, in Kinect's words 0 not tracked, 1 inferred, 2 tracked.
        depth: (P, T, V, 2) float32, pixels of the depth picture, or None where not asked for.
        color: the same of the colour picture.
    """

    body_ids: np.ndarray
    present: np.ndarray
    xyz: np.ndarray
    tracking: np.ndarray
    depth: np.ndarray | None = None
    color: np.ndarray | None = None


def unreadable(name: str, line: int, reason: str) -> InputError:
    """Of a file that cannot be read, or breaks the format in a line; 0: in none."""
    return InputError(f"{name}:{line}: {reason}" if line else f"{name}: {reason}", line, reason)


def id_array(ids: Sequence[str]) -> np.ndarray:
    """Body ids, digits without leading zeros, as (P,) uint64, or as text where one is too large."""
    try:
        return np.array([int(text) for text in ids], np.uint64)
    except (OverflowError, ValueError):  # the second of int(), past 4,300 digits
        return np.array(ids, np.str_)
