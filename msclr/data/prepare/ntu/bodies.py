"""Which bodies of a clip are people, which of them are kept, and in what order.

A Kinect gives one person two ids where it lost and found them again, and takes chairs and mirrors
for people. Everything here is in the sensor's space: x to the side, y up, metres.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np

from msclr.data.prepare.steps import motion, seen_joints
from msclr.errors import InputError


@dataclass(frozen=True)
class BodyRules:
    """How bodies are joined and ghosts found; the defaults are what is common for NTU RGB+D.

    join_frames, join_metres: two ids are one person if the second appears after the first has gone,
        at most `join_frames` frames without either between them (30 a second), and its first pose
        is within `join_metres` of the first's last one (the mean distance of the joints seen in
        both). Of several that fit, the nearest is taken. join_metres=0 joins none.
    min_frames: a body that is seen in fewer frames is a ghost. 1 keeps all.
    wide, wide_share: a body is a ghost if its joints spread over more than `wide` times as much in
        x as in y in at least the share `wide_share` of the frames in which it is seen. wide=inf
        keeps all.

    A body that is alone in its clip is none: people lie down. Where every body of a clip would be a
    ghost, the one seen in the most frames is kept, of several the one that moves most.
    """

    join_frames: int = 30
    join_metres: float = 0.5
    min_frames: int = 12
    wide: float = 0.8
    wide_share: float = 0.69754

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
                raise InputError(f"{field.name} is {value!r}; give a number from 0 on")
        if self.wide_share > 1:
            raise InputError(f"wide_share is {self.wide_share!r}; give a share, from 0 to 1")


@dataclass
class BodyCounts:
    """joined: ids taken for a person who has another id already
    short, wide: ghosts dropped, by the rule that tells them (`BodyRules`)
    surplus: people dropped because their clip has more of them than are kept
    rescued: clips in which every body was a ghost, and the best of them was kept
    """

    joined: int = 0
    short: int = 0
    wide: int = 0
    surplus: int = 0
    rescued: int = 0

    def add(self, other: BodyCounts) -> None:
        self.joined += other.joined
        self.short += other.short
        self.wide += other.wide
        self.surplus += other.surplus
        self.rescued += other.rescued


class Bodies(NamedTuple):
    """xyz (M, T, V, 3) float32 metres and seen (M, T, V) bool: M bodies, the most moving first."""

    xyz: np.ndarray
    seen: np.ndarray
    counts: BodyCounts


def choose_bodies(skeleton, bodies: int = 2, rules: BodyRules = BodyRules()) -> Bodies:  # noqa: B008
    """The `bodies` people of a `Skeleton` that move most, at most, in the order of their motion.

    First ids are joined, then ghosts dropped, then those kept whose motion is largest: the sum over
    joints and axes of the variance over time. A joint is seen where its body is present and its
    coordinates are finite and not all 0. M is 0 where nothing is seen at all.
    """
    xyz = skeleton.xyz
    if _is_whole(skeleton):
        seen = np.ones(xyz.shape[:3], bool)  # (P, T, V)
    else:
        seen = seen_joints(xyz) & skeleton.present[:, :, None]
        ever = seen.any(axis=(1, 2))
        xyz, seen = xyz[ever], seen[ever]
    counts = BodyCounts()
    if len(xyz) > 1:
        xyz, seen, counts.joined = join_ids(xyz, seen, rules)
    if len(xyz) > 1:
        kept = find_people(xyz, seen, rules, counts)
        kept = most_moving(xyz, seen, kept, bodies, counts)
        xyz, seen = xyz[kept], seen[kept]
    return Bodies(xyz, seen, counts)


def _is_whole(skeleton) -> bool:
    """Whether no coordinate can be missing, in two quick passes; most clips are so."""
    flat = skeleton.xyz.ravel()
    with np.errstate(over="ignore"):  # a sum of squares is finite only if all of them are
        finite = np.isfinite(np.dot(flat, flat))
    return bool(finite and flat.size and flat.all() and skeleton.present.all())


def join_ids(xyz: np.ndarray, seen: np.ndarray, rules: BodyRules):
    """One row per person: xyz (P', T, V, 3), seen (P', T, V), and the number of ids that joined."""
    there = seen.any(axis=2)  # (P, T)
    first = there.argmax(axis=1)
    last = there.shape[1] - 1 - there[:, ::-1].argmax(axis=1)
    if first.max() <= last.min():  # all are there at once
        return xyz, seen, 0
    tail = np.arange(len(xyz))  # the id that each person was last seen under, -1: joined to another
    owner = np.arange(len(xyz))
    for later in np.argsort(first, kind="stable"):
        gap = first[later] - last[tail] - 1
        fits = (gap >= 0) & (gap <= rules.join_frames) & (tail >= 0)
        near = {
            person: _apart(xyz, seen, (tail[person], last[tail[person]]), (later, first[later]))
            for person in np.flatnonzero(fits)
        }
        person = min(near, key=near.__getitem__, default=None)
        if person is not None and near[person] < rules.join_metres:
            tail[person], tail[later], owner[later] = later, -1, person
    joined = np.flatnonzero(owner != np.arange(len(xyz)))
    if not len(joined):
        return xyz, seen, 0
    xyz, seen = xyz.copy(), seen.copy()
    for later in joined:
        xyz[owner[later], there[later]] = xyz[later, there[later]]
        seen[owner[later], there[later]] = seen[later, there[later]]
    people = np.flatnonzero(owner == np.arange(len(xyz)))
    return xyz[people], seen[people], len(joined)


def _apart(xyz: np.ndarray, seen: np.ndarray, a: tuple, b: tuple) -> float:
    """Metres between two poses (body, frame): the mean over the joints seen in both."""
    both = seen[a] & seen[b]
    if not both.any():
        return float("inf")
    return float(np.linalg.norm(xyz[a][both].astype(float) - xyz[b][both], axis=1).mean())


def find_people(xyz, seen, rules: BodyRules, counts: BodyCounts) -> np.ndarray:
    """The rows that are no ghosts, rising."""
    frames = seen.any(axis=2).sum(axis=1)  # (P,)
    short = frames < rules.min_frames
    wide = ~short & (wide_frames(xyz, seen, rules.wide) >= rules.wide_share * frames)
    ghosts = short | wide
    if ghosts.all():
        longest = np.flatnonzero(frames == frames.max())
        best = longest[_motion(xyz[longest], seen[longest]).argmax()]
        short[best] = wide[best] = ghosts[best] = False
        counts.rescued += 1
    counts.short += int(short.sum())
    counts.wide += int(wide.sum())
    return np.flatnonzero(~ghosts)


def wide_frames(xyz: np.ndarray, seen: np.ndarray, wide: float) -> np.ndarray:
    """(P,): in how many frames each body spreads over more than `wide` times as far in x as in y.

    The spread is between the outermost of the joints seen; a frame without any is not counted.
    """
    x, y = xyz[..., 0], xyz[..., 1]  # (P, T, V)
    whole = seen.all()
    ends = [
        (
            (c if whole else np.where(seen, c, -np.inf)).max(axis=2),
            (c if whole else np.where(seen, c, np.inf)).min(axis=2),
        )
        for c in (x, y)
    ]
    across, up = (high - low for high, low in ends)  # -inf where nothing is seen
    if np.isinf(wide):
        return np.zeros(len(xyz), int)
    return ((across > wide * np.maximum(up, 0)) & (across >= 0)).sum(axis=1)


def most_moving(xyz, seen, rows: np.ndarray, bodies: int, counts: BodyCounts) -> np.ndarray:
    """At most `bodies` of `rows`, the most moving first; of equals, the earlier row first."""
    if len(rows) > 1:
        moved = _motion(xyz[rows], seen[rows])
        rows = rows[np.argsort(-moved, kind="stable")]
    counts.surplus += max(len(rows) - bodies, 0)
    return rows[:bodies]


def _motion(xyz: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """(B,): `motion` in float64, in fewer passes where nothing is missing."""
    xyz = xyz.astype(np.float64)
    if not seen.all():
        return motion(xyz, seen)
    xyz -= xyz.mean(axis=1, keepdims=True)
    return np.einsum("btvc,btvc->b", xyz, xyz) / xyz.shape[1]
