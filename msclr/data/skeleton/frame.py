"""The frame of a body: its up, left and forward, where its hips are and how large it is.

Clips of two sensors differ in where the sensors stood; bodies do not. The frame is found from
landmarks of the body (docs/layouts.md), so that it is the same whatever the convention of joints.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from msclr.layouts.layout import Layout

LOOKED_AT = 20  # frames that decide, the first in which the landmarks are seen

# Heights in torso lengths, from the middle of the hips (0) to the base of the neck (1). Two of them
# give the others; the first ones of each list are the most trustworthy.
_Candidate = tuple[Mapping[str, float], float]  # weights over landmarks, and the height
_HEAD = 0.6  # torso lengths from the base of the neck to the top of the head
_LOWER = (
    ({"mid_hip": 1.0}, 0.0),
    ({"lhip": 0.5, "rhip": 0.5}, 0.0),
    ({"pelvis": 1.0}, 0.15),
    ({"lumbar": 1.0}, 0.33),
    ({"spine_mid": 1.0}, 0.56),
    ({"lhip": 1.0, "lshoulder": -0.25, "rshoulder": 0.25}, 0.0),  # hips half as wide as shoulders
    ({"rhip": 1.0, "rshoulder": -0.25, "lshoulder": 0.25}, 0.0),
)
_UPPER = (
    ({"neck_base": 1.0}, 1.0),
    ({"lshoulder": 0.5, "rshoulder": 0.5}, 1.0),
    ({"neck": 1.0}, 1 + 0.2 * _HEAD),
    ({"head_base": 1.0}, 1 + 0.3 * _HEAD),
    ({"head": 1.0}, 1 + 0.65 * _HEAD),
    ({"lear": 0.5, "rear": 0.5}, 1 + 0.65 * _HEAD),
    ({"chest": 1.0}, 0.65),
)
_SIDES = ("shoulder", "hip"), ("clavicle",), ("knee",), ("ear",)  # those of an entry are averaged
_SHORTEST = 0.3  # torso lengths between two places that can tell the others
_ROUNDS = 12  # of the geometric median
_TINY = 1e-6  # of a torso: what is shorter has no direction
_NEARLY_ALONG = 0.1  # the sine of the angle below which left and up do not span a plane


@dataclass(frozen=True, eq=False)
class Frame:
    """A body's own frame: ``apply`` takes clips into it, ``invert`` back.

    Attributes:
        rotation: (3, 3) float64, its rows the body's left, up and forward; right-handed. x of what
            ``apply`` returns grows to the body's left, y up, z forward.
        origin: (3,) float64, the middle of the hips.
        scale: the length that becomes 1, in the unit of the clip.
        lacking: what of the body was not seen, in words, so that the axes of the clip stay; or "".
    """

    rotation: np.ndarray
    origin: np.ndarray
    scale: float = 1.0
    lacking: str = ""

    def apply(self, xyz: np.ndarray, missing: np.ndarray | None = None) -> np.ndarray:
        """rotation (xyz - origin) / scale: (..., 3) to (..., 3) float64.

        missing: bool, to be broadcast to (...), the joints that come out as 0; None: those of
            which all three coordinates are 0. NaN stays NaN.

        A joint that is not missing does not come out as 0, see `off_zero`.
        """
        xyz = np.asarray(xyz, np.float64)
        missing = (xyz == 0).all(axis=-1) if missing is None else missing
        placed = (xyz - self.origin) @ self.rotation.T / self.scale
        off_zero(placed)
        placed[np.broadcast_to(missing, placed.shape[:-1])] = 0
        return placed

    def invert(self, xyz: np.ndarray) -> np.ndarray:
        """What ``apply`` was given: (..., 3) to (..., 3) float64. 0 and NaN stay."""
        xyz = np.asarray(xyz, np.float64)
        placed = xyz * self.scale @ self.rotation + self.origin
        placed[(xyz == 0).all(axis=-1)] = 0
        return placed

    def to_row(self) -> np.ndarray:
        """The constants as (13,) float64: rotation row by row, origin, scale."""
        return np.concatenate([self.rotation.ravel(), self.origin, [self.scale]])

    @classmethod
    def from_row(cls, row: np.ndarray) -> Frame:
        """The frame that ``to_row`` described."""
        return cls(row[:9].reshape(3, 3), row[9:12], float(row[12]))


def off_zero(xyz: np.ndarray) -> None:
    """Move joints (..., 3) that are at 0 a billionth away, in place: 0 says that one is missing."""
    xyz[(xyz == 0).all(axis=-1)] = 1e-9, 0, 0


def body_frame(
    xyz: np.ndarray, layout: Layout, seen: np.ndarray | None = None, main: int | None = None
) -> Frame:
    """The frame of the main body of a clip.

    Args:
        xyz: (M, T, V, 3) of any real dtype and unit.
        layout: of its joints; its ``landmarks`` say where the body is.
        seen: (M, T, V) bool, which joints were measured. None: those that are finite and not all 0.
        main: the main body. None: the one whose joints move most, summed over the frames in which
            they are seen. Where it does not show the landmarks, the next one that does is taken.

    Up leads from the middle of the hips to the base of the neck; left, at right angles to it, from
    right to left, shoulders and hips averaged. Both, and the origin, are geometric medians over the
    first 20 frames that show what they need; the scale, the distance from the middle of the hips to
    the base of the neck, is a median. So turning, moving or scaling a clip as a whole turns, moves
    and scales its frame and nothing else.

    Where a landmark is not seen, the nearest that is replaces it: on the trunk and the head by the
    usual proportions, for left the collar bones, the knees or the ears. Where even those lack, the
    axes of the clip stay and its scale is 1, the origin is the layout's centre joint (else the
    middle of the joints that are seen), and ``lacking`` says what was wanted.
    """
    xyz = np.asarray(xyz)
    if seen is None:
        seen = np.isfinite(xyz).all(axis=-1) & (xyz != 0).any(axis=-1)
    seen = np.asarray(seen, bool)
    order = _most_moving_first(xyz, seen)
    if main is not None:
        order = [main, *(body for body in order if body != main)]
    lacking = "any body"
    for body in order:
        found = _find(Landmarks(xyz[body], seen[body], layout))
        if isinstance(found, Frame):
            return found
        lacking = found if body == order[0] else lacking
    origin = _middle(xyz[order[0]], seen[order[0]], layout.center_index) if order else np.zeros(3)
    return Frame(np.eye(3), origin, lacking=lacking)


def tells_frame(layout: Layout) -> bool:
    """Whether the landmarks of a layout are enough for `body_frame` where all joints are seen."""
    rules = dict(layout.landmarks)

    def known(candidates) -> list[float]:
        return [height for landmarks, height in candidates if landmarks.keys() <= rules.keys()]

    lower, upper = known(_LOWER), known(_UPPER)
    parts = [part for parts in _SIDES for part in parts]
    sided = any(f"l{part}" in rules and f"r{part}" in rules for part in parts)
    return sided and bool(lower) and bool(upper) and upper[0] - lower[0] >= _SHORTEST


def _find(body: Landmarks) -> Frame | str:
    """The frame of one body, or what is not seen of it."""
    lower, upper = body.best(_LOWER), body.best(_UPPER)
    if lower is None or upper is None or upper[1] - lower[1] < _SHORTEST:
        return "hips or back" if lower is None else "shoulders, neck or head"
    (low, bottom), (high, top) = lower, upper
    torso = (body.place(high) - body.place(low)) / (top - bottom)  # (T, 3), NaN: not seen
    trunk = _first_seen(torso)
    hips = _first_seen(body.place(low) - bottom * torso)
    side = _left(body)
    if not len(trunk) or side is None:
        return "left and right" if len(trunk) else "both ends of the trunk at once"
    scale = float(np.median(np.linalg.norm(trunk, axis=1)))
    rotation = _rotation(_geometric_median(trunk), side)
    if rotation is None or not scale > 0:
        return "a trunk and sides that are apart"
    return Frame(rotation, _geometric_median(hips), scale)


def _middle(xyz: np.ndarray, seen: np.ndarray, center: int) -> np.ndarray:
    """The centre joint of one body in the first frames that show it, else the mean joint. (3,)"""
    where = xyz[seen[:, center], center] if seen[:, center].any() else xyz[seen]
    return _geometric_median(where[:LOOKED_AT].astype(np.float64)) if len(where) else np.zeros(3)


class Landmarks:
    """Where the landmarks of one body are: xyz (T, V, 3), seen (T, V)."""

    def __init__(self, xyz: np.ndarray, seen: np.ndarray, layout: Layout) -> None:
        self._xyz = np.where(seen[..., None], xyz, np.nan).astype(np.float64)
        self._rules = dict(layout.landmarks)
        self._joint = {joint: v for v, joint in enumerate(layout.joints)}

    def place(self, landmarks: Mapping[str, float]) -> np.ndarray:
        """A weighted sum of landmarks, (T, 3); NaN where one of the joints is not seen."""
        total = np.zeros((len(self._xyz), 3))
        for landmark, share in landmarks.items():
            for joint, weight in self._rules.get(landmark, ()):
                total += share * weight * self._xyz[:, self._joint[joint]]
            if landmark not in self._rules:
                total += np.nan
        return total

    def best(self, candidates: tuple[_Candidate, ...]) -> _Candidate | None:
        """The first that is seen at least half as often as the one seen most; None: none is."""
        often: list[int] = []
        for landmarks, _ in candidates:
            often.append(np.isfinite(self.place(landmarks)).all(axis=1).sum())
            if often[-1] == len(self._xyz):
                break  # no other is seen more often
        if not max(often):
            return None
        return candidates[next(i for i, count in enumerate(often) if 2 * count >= max(often))]


def _left(body: Landmarks) -> np.ndarray | None:
    """From right to left: the mean over shoulders and hips, else what else has two sides. (3,)"""
    for pairs in _SIDES:
        lines = [_first_seen(body.place({f"l{part}": 1.0, f"r{part}": -1.0})) for part in pairs]
        medians = [_geometric_median(line) for line in lines if len(line)]
        if medians:
            return np.mean(medians, axis=0)
    return None


def _rotation(up: np.ndarray, left: np.ndarray) -> np.ndarray | None:
    """Rows left, up and forward of length 1 at right angles, up exactly kept; None if left is along
    up, or either is 0."""
    lengths = np.linalg.norm(up), np.linalg.norm(left)
    if not min(lengths) > _TINY * max(lengths):
        return None
    up, left = up / lengths[0], left / lengths[1]
    left = left - (left @ up) * up
    if np.linalg.norm(left) < _NEARLY_ALONG:
        return None
    left /= np.linalg.norm(left)
    return np.stack([left, up, np.cross(left, up)])


def _first_seen(vectors: np.ndarray) -> np.ndarray:
    """The first frames of (T, 3) that are whole, at most `LOOKED_AT`."""
    return vectors[np.isfinite(vectors).all(axis=1)][:LOOKED_AT]


def _geometric_median(points: np.ndarray) -> np.ndarray:
    """The point (3,) whose distances to the points (N, 3) have the least sum, by Weiszfeld's rule.

    Unlike medians of each coordinate it turns with the points. Where they lie so close that
    rounding decides, it is their mean.
    """
    middle = points.mean(axis=0)
    spread = np.linalg.norm(points - middle, axis=1).mean()
    if spread <= 1e-12 * np.abs(points).max(initial=0):
        return middle
    for _ in range(_ROUNDS):
        weight = 1 / np.maximum(np.linalg.norm(points - middle, axis=1), 1e-3 * spread)
        middle = weight @ points / weight.sum()
    return middle


def _most_moving_first(xyz: np.ndarray, seen: np.ndarray) -> list[int]:
    """The bodies that are seen, in the order of how much they move while they are."""
    if len(xyz) == 1:
        return [0] if seen.any() else []
    clean = np.where(seen[..., None], xyz, 0).astype(np.float64)  # (M, T, V, 3)
    count = np.maximum(seen.sum(axis=1), 1)[:, None, :, None]
    apart = np.where(seen[..., None], clean - clean.sum(axis=1, keepdims=True) / count, 0)
    moved = (apart**2).sum(axis=(1, 2, 3))
    order = np.lexsort((-seen.sum(axis=(1, 2)), -moved))
    return [int(body) for body in order if seen[body].any()]
