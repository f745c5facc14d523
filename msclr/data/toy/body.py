"""The articulated body: people of unlike build, and the pose of their bones from a few controls.

Axes of a body at rest: x to its left, y up, z forward. A pose is a row of 30 controls,
so that an action can say where a hand or a foot goes; the joint rotations follow from it.
"""

from typing import NamedTuple

import numpy as np

SUBJECTS = 20

# What each control means, by body part. Hands and feet: (out, up, forward).
PARTS = {
    "pelvis": 3,  # moved (left, up, forward) from standing, in leg lengths
    "turn": 3,  # pelvis rotation (pitch forward, yaw to the left, roll), degrees
    "spine": 3,  # the same from pelvis to chest
    "head": 3,  # the same from chest to head
    "lhand": 5,  # wrist from shoulder in the chest's frame, arm lengths; elbow out; wrist, degrees
    "rhand": 5,
    "lfoot": 4,  # ankle from standing, on the ground's frame, leg lengths; toes down, degrees
    "rfoot": 4,
}
_ENDS = np.cumsum(list(PARTS.values()))
CONTROL = {n: slice(int(e) - w, int(e)) for (n, w), e in zip(PARTS.items(), _ENDS, strict=True)}
CONTROLS = int(_ENDS[-1])

_SIDE_BONES = ("upperarm", "forearm", "hand", "thigh", "shank", "foot")
BONES = ("pelvis", "waist", "chest", "neck", "head") + tuple(
    s + b for s in "lr" for b in _SIDE_BONES
)

# Segment lengths as fractions of body height, close to the usual anthropometric tables,
# and the proportion (leg, arm, trunk, width) that stretches each of them.
_SEGMENTS = {
    "thigh": (0.243, 0),
    "shank": (0.243, 0),
    "ankle": (0.040, 0),
    "upperarm": (0.165, 1),
    "forearm": (0.143, 1),
    "waist": (0.065, 2),
    "chest": (0.110, 2),
    "neckbase": (0.115, 2),
    "neck": (0.050, 2),
    "shoulderup": (0.095, 2),
    "shoulderout": (0.108, 3),
    "hipout": (0.052, 3),
}
REFERENCE_HEIGHT = 1.75  # metres: the body on which points of the surface are measured


class Subjects(NamedTuple):
    """What stays the same in all clips of a person; row s is person s."""

    lengths: np.ndarray  # (S, number of segments) metres
    size: np.ndarray  # (S,) height / REFERENCE_HEIGHT
    toes_out: np.ndarray  # (S,) degrees
    posture: np.ndarray  # (S, CONTROLS) added to the standing pose
    amplitude: np.ndarray  # (S,) how far the person's movements go, 1 = as written
    left_handed: np.ndarray  # (S,) bool


def draw_subjects(seed: int) -> Subjects:
    """Draws the people of a data set: build, posture, favourite side and style."""
    rng = np.random.default_rng([seed, 0])
    height = rng.uniform(1.55, 1.92, SUBJECTS)
    stretch = rng.normal(1.0, 0.035, (SUBJECTS, 4)).clip(0.93, 1.07)
    fraction = np.array([f for f, _ in _SEGMENTS.values()])
    group = [g for _, g in _SEGMENTS.values()]
    spread = np.zeros(CONTROLS)
    spread[CONTROL["spine"]] = 4.0, 2.0, 1.5
    spread[CONTROL["head"]] = 5.0, 3.0, 2.0
    for side in "lr":
        spread[CONTROL[side + "hand"]] = 0.05, 0.01, 0.05, 0.15, 8.0
        spread[CONTROL[side + "foot"]] = 0.04, 0.0, 0.03, 0.0
    return Subjects(
        lengths=(height[:, None] * fraction * stretch[:, group]).astype(np.float32),
        size=(height / REFERENCE_HEIGHT).astype(np.float32),
        toes_out=rng.uniform(0.0, 15.0, SUBJECTS).astype(np.float32),
        posture=rng.normal(0.0, 1.0, (SUBJECTS, CONTROLS)) * spread,
        amplitude=rng.uniform(0.88, 1.08, SUBJECTS),
        left_handed=rng.permutation(SUBJECTS) < SUBJECTS // 4,
    )


def mirror(controls: np.ndarray) -> np.ndarray:
    """Exchanges left and right of a pose. controls (..., 30)."""
    mirrored = controls.copy()
    for limb in ("hand", "foot"):
        left, right = CONTROL["l" + limb], CONTROL["r" + limb]
        mirrored[..., left], mirrored[..., right] = controls[..., right], controls[..., left]
    mirrored[..., CONTROL["pelvis"].start] *= -1
    for part in ("turn", "spine", "head"):
        yaw = CONTROL[part].start + 1
        mirrored[..., yaw : yaw + 2] *= -1
    return mirrored


def rotation(degrees: np.ndarray) -> np.ndarray:
    """Rotation matrices R_y(yaw) R_x(pitch) R_z(roll). degrees (F, 3) as pitch, yaw, roll."""
    angles = np.deg2rad(degrees)
    (sx, sy, sz), (cx, cy, cz) = np.sin(angles).T, np.cos(angles).T
    rows = [
        [cy * cz + sy * sx * sz, sy * sx * cz - cy * sz, sy * cx],
        [cx * sz, cx * cz, -sx],
        [cy * sx * sz - sy * cz, sy * sz + cy * sx * cz, cy * cx],
    ]
    return np.moveaxis(np.array(rows, dtype=degrees.dtype), 2, 0)  # (F, 3, 3)


def pose_bones(
    controls: np.ndarray, people: Subjects, ground: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """Poses the bones of F bodies by forward kinematics.

    Args:
        controls: (F, 30) float32.
        people: the subject of each row (arrays of F rows).
        ground: rotation (F, 3, 3) and position (F, 3) of the spot on the floor each body stands on.

    Returns:
        (F, 3, B, 4) float32: for each bone its rotation, times the body's size, next to its origin
        in metres. A point at q metres in a bone's frame is at `[..., :3] @ q + [..., 3]`.
    """
    part = {name: controls[:, cut] for name, cut in CONTROL.items()}
    size = dict(zip(_SEGMENTS, people.lengths.T, strict=True))
    leg = size["thigh"] + size["shank"]
    # 1.5 % short of stretched legs: knees do not lock, and the pelvis may sway.
    stand = part["pelvis"] * leg[:, None] + _column(0, 0.985 * leg + size["ankle"], 0)
    frames = {"pelvis": _attach(ground, stand, rotation(part["turn"]))}
    for parent, child, stem, bend in (
        ("pelvis", "waist", "waist", "spine"),
        ("waist", "chest", "chest", "spine"),
        ("chest", "neck", "neckbase", "head"),
        ("neck", "head", "neck", "head"),
    ):
        offset = _column(0, size[stem], 0)
        frames[child] = _attach(frames[parent], offset, rotation(part[bend] / 2))
    for side, sign in (("l", 1), ("r", -1)):
        frames |= _arm(frames["chest"], part[side + "hand"], size, side, sign)
        toes_out = people.toes_out
        frames |= _leg(ground, frames["pelvis"], part[side + "foot"], size, toes_out, side, sign)
    bones = np.empty((len(controls), 3, len(BONES), 4), np.float32)
    for b, bone in enumerate(BONES):
        bones[:, :, b, :3], bones[:, :, b, 3] = frames[bone]
    bones[..., :3] *= people.size[:, None, None, None]
    return bones


def _column(x, y, z) -> np.ndarray:
    return np.stack(np.broadcast_arrays(*map(np.float32, (x, y, z))), axis=-1)  # (F, 3)


def _turned(rotation: np.ndarray, vector: np.ndarray) -> np.ndarray:
    return (rotation @ vector[..., None])[..., 0]


def _attach(parent, offset, local_rotation):
    parent_rotation, origin = parent
    return parent_rotation @ local_rotation, origin + _turned(parent_rotation, offset)


def _arm(chest, hand, size, side, sign):
    out, up, forward, elbow_out, wrist = hand.T
    shoulder = chest[1] + _turned(
        chest[0], _column(sign * size["shoulderout"], size["shoulderup"], 0)
    )
    reach = size["upperarm"] + size["forearm"]
    target = shoulder + _turned(chest[0], _column(sign * out, up, forward) * reach[:, None])
    # An elbow points down, back and a little outwards.
    elbow = _turned(chest[0], _column(sign * (0.3 + elbow_out), -0.6, -0.8))
    upper, fore, mid, end = _limb(shoulder, target, size["upperarm"], size["forearm"], elbow, -1)
    flexed = fore @ rotation(_column(wrist, 0, 0))
    return {
        side + "upperarm": (upper, shoulder),
        side + "forearm": (fore, mid),
        side + "hand": (flexed, end),
    }


def _leg(ground, pelvis, foot, size, toes_out, side, sign):
    out, up, forward, toes_down = foot.T
    hip = pelvis[1] + _turned(pelvis[0], _column(sign * size["hipout"], 0, 0))
    leg = (size["thigh"] + size["shank"])[:, None]
    stand = _column(sign * size["hipout"], size["ankle"], 0)
    target = ground[1] + _turned(ground[0], stand + _column(sign * out, up, forward) * leg)
    # A knee points forward, and up where the leg itself goes forward.
    knee = _turned(pelvis[0], _column(sign * 0.1, 0.5, 1))
    thigh, shank, mid, end = _limb(hip, target, size["thigh"], size["shank"], knee, 1)
    sole = ground[0] @ rotation(_column(toes_down, sign * toes_out, 0))
    return {side + "thigh": (thigh, hip), side + "shank": (shank, mid), side + "foot": (sole, end)}


def _limb(start, target, upper, lower, pole, bend):
    """Two bones from `start` towards `target`, bent towards `pole` (law of cosines).

    Lengths hold whatever the target: one out of reach is pointed at. `bend` is 1 where the middle
    joint comes forward (knee) and -1 where it goes back (elbow).
    Returns the two rotations (bones hang along -y), the middle joint and the end.
    """
    towards = target - start
    distance = np.linalg.norm(towards, axis=1)
    towards = towards / np.maximum(distance, 1e-6)[:, None]
    distance = distance.clip(1.05 * np.abs(upper - lower) + 0.05, 0.998 * (upper + lower))
    along = (upper**2 - lower**2 + distance**2) / (2 * distance)
    aside = np.sqrt(np.maximum(upper**2 - along**2, 0))
    hinge = np.cross(pole, towards) * bend
    hinge /= np.maximum(np.linalg.norm(hinge, axis=1, keepdims=True), 1e-6)
    sideways = np.cross(towards, hinge) * bend  # unit vector from the straight line to the joint
    middle = start + towards * along[:, None] + sideways * aside[:, None]
    end = start + towards * distance[:, None]
    return _hanging(middle - start, hinge), _hanging(end - middle, hinge), middle, end


def _hanging(bone, hinge):
    up = -bone / np.linalg.norm(bone, axis=1, keepdims=True)
    return np.stack([hinge, up, np.cross(hinge, up)], axis=2)  # columns: x, y, z
