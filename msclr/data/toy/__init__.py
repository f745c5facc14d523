"""Labelled motion clips of generated people, each seen under several skeleton conventions.

An articulated body performs one of 20 actions; every convention reports its own joints of it, with
its own placement of the joints and its own noise. So the whole path from clips to evaluation can
be run and tested without a download. Its difficulty is set by the constants here, in `actions` and
in `conventions`; labels are always right.
"""

from collections.abc import Sequence

import numpy as np

from ...errors import InputError
from .actions import ACTIONS, perform
from .body import SUBJECTS, Subjects, draw_subjects, pose_bones, rotation
from .conventions import SENSORS

# Tunable: the camera is up to PAN degrees to either side and looks up or down by up to TILT.
PAN = 120.0
TILT = 8.0
FRAMES = (40, 110)  # shortest and longest clip

_BATCH = 64  # clips posed at once: large enough for numpy, small enough for the cache
_VALIDATION = (1, 3)  # subjects s with s % 5 in here: 12 train, 8 validate


def generate(
    clips: int,
    seed: int = 0,
    layouts: Sequence[str] = ("kinectv2_25", "smpl_24", "smplx_42", "berkeley_mhad_43"),
) -> dict:
    """Generates labelled clips, ready for `msclr.data.prepare_arrays(out, **generate(1000))`.

    Clip i depends on `seed` and i alone: fewer clips are a prefix of more clips, and a view is the
    same whichever other conventions are asked for. Labels and subjects go round evenly; 12 of the
    20 subjects train and 8 validate.

    Args:
        clips: N, at least 1. From 60 on each class is in both splits.
        seed: 0 or more.
        layouts: names out of kinectv2_25, smpl_24, smplx_42, berkeley_mhad_43.

    Returns:
        A dict of
        `views`: {layout: [(M_i, T_i, V, 3) float32, ...]}, metres, y up; M is 2 for actions of two
        people, else 1; T is 40 to 110; the views of a clip share axes and frames. In some frames
        a joint is missing: all zero.
        `labels`: (N,) int64. `split`: list of "train" or "val". `names`: list of unique clip
        names. `classes`: list of the names of the classes.

    Raises:
        InputError: for a number of clips below 1, a negative seed, no layout or an unknown one.
    """
    layouts = _checked(clips, seed, layouts)
    subjects = draw_subjects(seed)
    index = np.arange(clips)
    labels = index % len(ACTIONS)
    people = (index + index // len(ACTIONS)) % SUBJECTS
    views: dict[str, list[np.ndarray]] = {layout: [] for layout in layouts}
    for first in range(0, clips, _BATCH):
        batch = range(first, min(first + _BATCH, clips))
        scenes = [_scene(seed, i, labels[i], people[i], subjects) for i in batch]
        for i, bones in zip(batch, _posed(scenes, subjects), strict=True):
            for layout in layouts:
                sensor = SENSORS[layout]
                rng = np.random.default_rng([seed, 2, i, sensor.key])
                views[layout].append(sensor.observe(bones, rng))
    return {
        "views": views,
        "labels": labels.astype(np.int64),
        "split": ["val" if _validates(person) else "train" for person in people],
        "names": [f"toy_{i:06d}_s{people[i]:02d}_a{labels[i]:02d}" for i in index],
        "classes": [action.name for action in ACTIONS],
    }


def _checked(clips, seed, layouts) -> tuple[str, ...]:
    if clips < 1:
        raise InputError(f"clips is {clips}, wanted 1 or more: ask for some clips")
    if seed < 0:
        raise InputError(f"seed is {seed}, wanted 0 or more: choose another seed")
    layouts = (layouts,) if isinstance(layouts, str) else tuple(layouts)
    unknown = [layout for layout in layouts if layout not in SENSORS]
    if unknown or not layouts:
        got = f"layouts has {unknown[0]!r}" if unknown else "layouts is empty"
        raise InputError(f"{got}, wanted some of {', '.join(SENSORS)}: name one of these")
    return tuple(dict.fromkeys(layouts))


def _validates(subject: int) -> bool:
    return subject % 5 in _VALIDATION


def _scene(seed, clip, label, person, subjects: Subjects):
    """Who does what where: subject rows (M,), controls (M, T, 30), ground rotations, positions."""
    rng = np.random.default_rng([seed, 1, clip])
    action = ACTIONS[label]
    who = np.array([person])
    if action.distance is not None:
        same_side = [s for s in range(SUBJECTS) if _validates(s) == _validates(person)]
        partner = rng.choice([s for s in same_side if s != person])
        who = np.array([person, partner])
    frames = int(rng.integers(FRAMES[0], FRAMES[1] + 1))
    controls = perform(action, _rows(subjects, who), frames, rng)
    turns, places = _ground(action.distance, rng)
    order = rng.permutation(len(who))  # either of two people may be listed first
    return who[order], controls[order], turns[order], places[order]


def _ground(distance, rng):
    """Where each body is before the camera: rotations (M, 3, 3), positions (M, 3)."""
    angles = np.array([[rng.uniform(-TILT, TILT), 0, 0], [0, 180 + rng.uniform(-PAN, PAN), 0]])
    tilt, turn = rotation(angles)
    camera = tilt @ turn
    centre = np.array([rng.uniform(-0.8, 0.8), rng.uniform(-1.2, -0.6), rng.uniform(2.5, 4.0)])
    if distance is None:
        return camera[None], centre[None]
    half = distance * rng.uniform(0.95, 1.05) / 2
    # Two people are seen from the side, where both show.
    facing = rotation(np.array([[0.0, 90, 0], [0, -90, 0]]))
    return camera @ facing, centre + camera @ np.array([-half, 0, 0]) * [[1], [-1]]


def _rows(subjects: Subjects, rows: np.ndarray) -> Subjects:
    return Subjects(*(field[rows] for field in subjects))


def _posed(scenes, subjects: Subjects) -> list[np.ndarray]:
    """The bones of each scene, (M, T, 3, B, 4), all frames of all scenes in one go."""
    frames = np.concatenate([np.repeat(c.shape[1], c.shape[0]) for _, c, _, _ in scenes])
    who, turns, places = (np.concatenate([scene[k] for scene in scenes]) for k in (0, 2, 3))
    controls = np.concatenate([c.reshape(-1, c.shape[2]) for _, c, _, _ in scenes])
    track = np.repeat(np.arange(len(who)), frames)
    ground = turns.astype(np.float32)[track], places.astype(np.float32)[track]
    bones = pose_bones(controls.astype(np.float32), _rows(subjects, who[track]), ground)
    ends = np.cumsum([c.shape[0] * c.shape[1] for _, c, _, _ in scenes])
    pieces = np.split(bones, ends[:-1])
    return [
        piece.reshape(*c.shape[:2], *bones.shape[1:])
        for piece, (_, c, _, _) in zip(pieces, scenes, strict=True)
    ]
