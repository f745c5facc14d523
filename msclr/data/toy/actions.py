"""What the bodies do: actions written as key poses, and their random performance.

A key is (seconds since the key before, pose); a pose names the body parts that leave the resting
pose and where they go (see `body.PARTS`). Actions are written for the right hand and foot.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .body import CONTROL, CONTROLS, Subjects, mirror

# Tunable. Longest rest before the action, and after it, as a part of the action's own length.
REST = 0.5
# sd by which each key pose misses what is written: hands and feet, then degrees.
MISS, MISS_DEGREES = 0.04, 4.0
SWAY = 1.0  # scale of the slow random motion of the whole body
STANCE = 2.0  # how far a clip's resting pose differs from the person's usual one, as against sway
FIDGET = 0.5  # probability that an arm the action leaves free moves somewhere and back

Pose = dict[str, tuple[float, ...]]
Script = list[tuple[float, Pose]]
STANDING: Pose = {}


class Action(NamedTuple):
    name: str
    script: Callable[[np.random.Generator], list[Script]]  # one script per body
    distance: float | None = None  # metres between two bodies that face each other


def _repeat(rng, low, high, *keys) -> Script:
    return list(keys) * int(rng.integers(low, high + 1))


def _drink(rng):
    mouth = (-0.30, 0.14, 0.46, 0.3, -25)
    sip = {"rhand": (-0.30, 0.20, 0.44, 0.5, -35), "head": (-25, 0, 0)}
    hold = rng.uniform(0.5, 1.2)
    return [[(0, STANDING), (0.8, {"rhand": mouth}), (0.3, sip), (hold, sip),
             (0.3, {"rhand": mouth}), (0.8, STANDING)]]  # fmt: skip


def _phone(rng):
    ear = {"rhand": (0.08, 0.22, 0.16, 0.5, -15), "head": (6, 0, 14)}
    return [[(0, STANDING), (0.9, ear), (rng.uniform(1.0, 2.0), ear), (0.9, STANDING)]]


def _wave(rng):
    outwards, inwards = {"rhand": (0.55, 0.48, 0.25, 0.6)}, {"rhand": (0.0, 0.55, 0.25, 0.6)}
    swing = _repeat(rng, 2, 4, (0.28, inwards), (0.28, outwards))
    return [[(0, STANDING), (0.7, outwards), *swing, (0.7, STANDING)]]


def _throw(rng):
    back = {"rhand": (0.35, 0.35, -0.35, 0.6), "spine": (-8, -35, 0), "lhand": (0.1, -0.4, 0.6),
            "rfoot": (0, 0, -0.15), "pelvis": (0, -0.02, -0.06)}  # fmt: skip
    release = {"rhand": (-0.05, 0.35, 0.85), "spine": (15, 25, 0), "lhand": (0.2, -0.8, 0.2),
               "rfoot": (0, 0, -0.15), "pelvis": (0, -0.02, 0.06)}  # fmt: skip
    follow = {"rhand": (-0.45, -0.50, 0.55), "spine": (25, 35, 0), "rfoot": (0, 0.02, -0.1)}
    return [[(0, STANDING), (0.8, back), (0.25, release), (0.25, follow), (0.8, STANDING)]]


def _punch(rng):
    guard = {"rhand": (-0.20, -0.05, 0.40, 0.2), "lhand": (-0.25, -0.05, 0.45, 0.2)}
    hit = {"rhand": (-0.30, 0.02, 0.97), "lhand": (-0.25, -0.05, 0.35, 0.2), "spine": (8, 30, 0)}
    return [[(0, STANDING), (0.6, guard),
             *_repeat(rng, 1, 3, (0.2, hit), (0.3, guard)), (0.6, STANDING)]]  # fmt: skip


def _point(rng):
    there = {"rhand": (rng.uniform(-0.3, 0.4), rng.uniform(-0.2, 0.25), 0.95)}
    return [[(0, STANDING), (0.8, there), (rng.uniform(0.5, 1.5), there), (0.8, STANDING)]]


def _clap(rng):
    apart = {"rhand": (0.05, -0.3, 0.55, 0.2), "lhand": (0.05, -0.3, 0.55, 0.2)}
    together = {"rhand": (-0.32, -0.3, 0.55, 0.2), "lhand": (-0.32, -0.3, 0.55, 0.2)}
    beat = _repeat(rng, 2, 5, (0.2, together), (0.2, apart))
    return [[(0, STANDING), (0.6, apart), *beat, (0.6, STANDING)]]


_DOWN = {"pelvis": (0, -0.30, -0.20), "turn": (35, 0, 0), "spine": (45, 0, 0),
         "rhand": (-0.15, -0.55, 0.80), "lhand": (0.1, -0.8, 0.3)}  # fmt: skip
_HELD = {"rhand": (-0.20, -0.50, 0.50, 0.2), "lhand": (0.14, -0.93, 0.1)}


def _pick_up(rng):
    look = rng.uniform(0.3, 0.9)
    return [[(0, STANDING), (1.0, _DOWN), (0.25, _DOWN), (1.0, _HELD), (look, _HELD),
             (0.5, STANDING)]]  # fmt: skip


def _put_down(rng):
    look = rng.uniform(0.3, 0.9)
    return [[(0, STANDING), (0.5, _HELD), (look, _HELD), (1.0, _DOWN), (0.25, _DOWN),
             (1.0, STANDING)]]  # fmt: skip


def _bow(rng):
    low = {"turn": (30, 0, 0), "spine": (35, 0, 0), "head": (15, 0, 0), "pelvis": (0, -0.02, -0.08)}
    return [[(0, STANDING), (1.0, low), (rng.uniform(0.2, 0.8), low), (1.0, STANDING)]]


def _squat(rng):
    low = {"pelvis": (0, -0.50, -0.22), "turn": (15, 0, 0), "spine": (20, 0, 0),
           "rhand": (0, -0.1, 0.9), "lhand": (0, -0.1, 0.9)}  # fmt: skip
    again = _repeat(rng, 0, 1, (0.9, STANDING), (0.9, low))
    return [[(0, STANDING), (0.9, low), *again, (0.9, STANDING)]]


def _jump(rng):
    crouch = {"pelvis": (0, -0.30, -0.10), "turn": (12, 0, 0), "spine": (18, 0, 0),
              "rhand": (0.2, -0.75, -0.45), "lhand": (0.2, -0.75, -0.45)}  # fmt: skip
    flight = {"pelvis": (0, 0.33, 0), "rfoot": (0, 0.30, -0.03, 45), "lfoot": (0, 0.30, -0.03, 45),
              "rhand": (0.15, 0.3, 0.75), "lhand": (0.15, 0.3, 0.75)}  # fmt: skip
    land = {**crouch, "pelvis": (0, -0.22, -0.08),
            "rhand": (0.2, -0.7, 0.4), "lhand": (0.2, -0.7, 0.4)}  # fmt: skip
    leap = _repeat(rng, 1, 2, (0.5, crouch), (0.28, flight), (0.28, land))
    return [[(0, STANDING), *leap, (0.6, STANDING)]]


_SWING = {"rfoot": (0, 0.18, -0.30, 40), "spine": (8, -10, 0), "lhand": (0.3, -0.7, 0.4)}
_KICK = {"rfoot": (-0.05, 0.45, 0.78, -30), "turn": (-14, 8, 0), "spine": (10, 10, 0),
         "rhand": (0.3, -0.75, -0.25), "lhand": (0.2, -0.6, 0.5)}  # fmt: skip


def _kick(rng):
    return [[(0, STANDING), (0.6, _SWING), (0.25, _KICK),
             (0.5, {"rfoot": (0, 0.12, 0.1)}), (0.4, STANDING)]]  # fmt: skip


_LEAN = {"pelvis": (0, -0.22, -0.22), "turn": (20, 0, 0), "spine": (25, 0, 0),
         "rhand": (0, -0.75, 0.45), "lhand": (0, -0.75, 0.45)}  # fmt: skip
_SEAT = {"pelvis": (0, -0.46, -0.45), "spine": (5, 0, 0),
         "rhand": (-0.05, -0.72, 0.42), "lhand": (-0.05, -0.72, 0.42)}  # fmt: skip


def _sit_down(rng):
    return [[(0, STANDING), (0.7, _LEAN), (0.7, _SEAT)]]


def _stand_up(rng):
    return [[(0, _SEAT), (0.7, _LEAN), (0.7, STANDING)]]


def _shake_hands(rng):
    high, low = {"rhand": (-0.28, -0.28, 0.74)}, {"rhand": (-0.28, -0.60, 0.74)}
    shake = _repeat(rng, 2, 4, (0.25, low), (0.25, high))
    script = [(0, STANDING), (0.8, high), *shake, (0.8, STANDING)]
    return [script, script]


def _give(rng):
    mine, out = {"rhand": (-0.2, -0.45, 0.42, 0.2)}, {"rhand": (-0.28, -0.45, 0.76)}
    wait = rng.uniform(0.3, 0.8)
    return [
        [(0, STANDING), (0.5, mine), (0.6, out), (wait, out), (0.6, STANDING), (0.8, STANDING)],
        [(0, STANDING), (0.7, STANDING), (0.7, out), (0.3, out), (0.5, mine), (wait, mine),
         (0.5, STANDING)],
    ]  # fmt: skip


def _push(rng):
    ready = {"rhand": (-0.1, -0.15, 0.35, 0.3), "lhand": (-0.1, -0.15, 0.35, 0.3)}
    shove = {"rhand": (-0.12, -0.1, 0.95), "lhand": (-0.12, -0.1, 0.95), "spine": (20, 0, 0),
             "pelvis": (0, -0.04, 0.15), "rfoot": (0, 0, 0.22)}  # fmt: skip
    stagger = {"pelvis": (0, -0.06, -0.22), "turn": (-8, 0, 0), "spine": (-12, 0, 0),
               "rfoot": (0, 0.0, -0.35), "rhand": (0.35, -0.55, 0.5),
               "lhand": (0.35, -0.55, 0.5)}  # fmt: skip
    return [
        [(0, STANDING), (0.6, ready), (0.3, shove), (0.3, shove), (0.8, STANDING)],
        [(0, STANDING), (0.75, STANDING), (0.35, stagger), (0.3, stagger), (0.6, STANDING)],
    ]


def _hug(rng):
    step = {"pelvis": (0, 0, 0.12), "rfoot": (0, 0.08, 0.2), "rhand": (0.3, -0.3, 0.6, 0.5),
            "lhand": (0.3, -0.3, 0.6, 0.5)}  # fmt: skip
    near = {"pelvis": (0, -0.02, 0.24), "rfoot": (0, 0, 0.26), "lfoot": (0, 0, 0.2)}
    hold = rng.uniform(0.6, 1.4)
    over = {**near, "rhand": (-0.3, -0.02, 0.58, 0.6), "lhand": (-0.3, -0.1, 0.58, 0.6)}
    under = {**near, "rhand": (-0.3, -0.42, 0.55, 0.6), "lhand": (-0.3, -0.36, 0.55, 0.6)}
    return [
        [(0, STANDING), (0.6, step), (0.5, grip), (hold, grip), (0.5, step), (0.5, STANDING)]
        for grip in (over, under)
    ]


def _kick_other(rng):
    hurt = {"pelvis": (0, -0.08, -0.14), "turn": (15, 0, 0), "spine": (30, 0, 0),
            "rhand": (-0.3, -0.55, 0.4, 0.3), "lhand": (-0.3, -0.55, 0.4, 0.3),
            "lfoot": (0, 0, -0.22)}  # fmt: skip
    return [
        _kick(rng)[0],
        [(0, STANDING), (0.75, STANDING), (0.3, hurt), (0.4, hurt), (0.5, STANDING)],
    ]


ACTIONS = (
    Action("drink", _drink),
    Action("phone call", _phone),
    Action("wave", _wave),
    Action("throw", _throw),
    Action("punch", _punch),
    Action("point", _point),
    Action("clap", _clap),
    Action("pick up", _pick_up),
    Action("put down", _put_down),
    Action("bow", _bow),
    Action("squat", _squat),
    Action("jump", _jump),
    Action("kick", _kick),
    Action("sit down", _sit_down),
    Action("stand up", _stand_up),
    Action("shake hands", _shake_hands, distance=0.98),
    Action("give", _give, distance=0.98),
    Action("push", _push, distance=0.85),
    Action("hug", _hug, distance=0.72),
    Action("kick other", _kick_other, distance=1.0),
)

_HANGING = (0.14, -0.955, 0.08, 0.0, -5.0)
# Where people rest a hand: hanging, on the hip, before the belly, behind the back.
_HABITS = (
    _HANGING,
    (0.02, -0.62, 0.05, 0.9, 0.0),
    (-0.32, -0.66, 0.36, 0.3, -10.0),
    (-0.20, -0.78, -0.22, 0.3, 0.0),
)


def perform(action: Action, people: Subjects, frames: int, rng: np.random.Generator) -> np.ndarray:
    """One random performance: controls (M, T, 30), one row of `people` a body."""
    scripts = action.script(rng)
    length = max(sum(seconds for seconds, _ in script) for script in scripts)
    before, after = rng.uniform(0.02, REST, 2)
    u = np.linspace(0.0, 1.0, frames)
    u = u + rng.uniform(-0.4, 0.4) * np.sin(2 * np.pi * u) / (2 * np.pi)  # uneven pace
    clock = length * (u * (1 + before + after) - before)
    bodies = [
        _perform_body(script, clock, posture, amplitude, rng)
        for script, posture, amplitude in zip(
            scripts, people.posture, people.amplitude, strict=True
        )
    ]
    motion = np.stack(bodies)  # (M, T, 30)
    # The favourite side of the first, nearly always; the other goes along (hand meets hand).
    return mirror(motion) if people.left_handed[0] != (rng.random() < 0.1) else motion


def _perform_body(script, clock, posture, amplitude, rng):
    used = {part for _, pose in script for part in pose}
    rest = _resting_pose(posture, rng)
    times = np.cumsum([seconds for seconds, _ in script])
    amplitude = amplitude * rng.uniform(0.94, 1.06)
    keys = np.stack([_key_pose(pose, rest, amplitude, rng) for _, pose in script])
    motion = _between(times, keys, clock) + _sway(clock, rng)
    for hand in ("lhand", "rhand"):  # in this order: each draws random numbers
        if hand not in used and rng.random() < FIDGET:
            motion[:, CONTROL[hand]] = _fidget(motion[:, CONTROL[hand]], clock, rng)
    return motion


def _resting_pose(posture, rng):
    rest = posture + rng.normal(0.0, STANCE, CONTROLS) * _SWAY_SIZE
    for hand in ("lhand", "rhand"):
        rest[CONTROL[hand]] += _HABITS[rng.choice(len(_HABITS), p=(0.64, 0.12, 0.12, 0.12))]
    return rest


def _key_pose(pose, rest, amplitude, rng):
    key = rest.copy()
    for part, place in pose.items():
        cut = CONTROL[part]
        cut = slice(cut.start, cut.start + len(place))
        angle = part in ("turn", "spine", "head")
        key[cut] = rest[cut] + place if angle else place
        key[cut] += rng.normal(
            0.0, MISS_DEGREES if angle else MISS / (1 + ("foot" in part)), len(place)
        )
    return rest + amplitude * (key - rest)


def _between(times, keys, clock):
    """Key poses (K, 30) at `times` -> poses (T, 30) at `clock`, at rest in each key."""
    clock = clock.clip(times[0], times[-1])
    nth = np.searchsorted(times, clock, side="right").clip(1, len(times) - 1)
    s = (clock - times[nth - 1]) / (times[nth] - times[nth - 1])
    s = (s * s * (3 - 2 * s))[:, None]
    return (1 - s) * keys[nth - 1] + s * keys[nth]


_SWAY_SIZE = np.zeros(CONTROLS)
_SWAY_SIZE[CONTROL["pelvis"]] = 0.008, 0.003, 0.008
_SWAY_SIZE[CONTROL["turn"]] = 1.0, 3.0, 0.7
_SWAY_SIZE[CONTROL["spine"]] = 2.0, 4.0, 1.5
_SWAY_SIZE[CONTROL["head"]] = 4.0, 10.0, 3.0
for _side in "lr":
    _SWAY_SIZE[CONTROL[_side + "hand"]] = 0.025, 0.015, 0.03, 0.05, 5.0


def _sway(clock, rng):
    speed = rng.uniform(0.6, 3.0, 3)  # radians a second
    phase = rng.uniform(0.0, 2 * np.pi, (3, CONTROLS))
    size = rng.normal(0.0, SWAY, (3, CONTROLS)) * _SWAY_SIZE
    return (np.sin(clock[:, None, None] * speed[:, None] + phase) * size).sum(1)


def _fidget(hand, clock, rng):
    """Moves a free hand (T, 5) to some place below the shoulder and back."""
    middle, width = rng.uniform(clock[0], clock[-1]), rng.uniform(0.5, 1.5)
    s = 0.5 + 0.5 * np.cos(np.pi * ((clock - middle) / width).clip(-1.0, 1.0))[:, None]
    place = rng.uniform((-0.3, -0.8, 0.0, 0.0, -20.0), (0.4, -0.2, 0.6, 0.5, 10.0))
    return (1 - s) * hand + s * place
