"""One NTU clip prepared as such scripts usually do it: line by line, then NumPy body by body.

It follows the rules that `msclr.data.prepare_ntu` documents, shares no code with it, and is what
its speed and its results are held against.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

CENTER, LEFT, RIGHT = 20, 4, 8  # spineshoulder, the shoulders
JOIN_FRAMES, JOIN_METRES = 30, 0.5
FIELDS = (
    *("x", "y", "z", "depthX", "depthY", "colorX", "colorY"),
    *("qw", "qx", "qy", "qz", "trackingState"),
)
MIN_FRAMES, WIDE, WIDE_SHARE = 12, 0.8, 0.69754


def read_clip(path: Path, lean: bool = False) -> tuple[int, list[dict[int, np.ndarray]]]:
    """The number of frames, and of each id frame -> (V, 3); a joint is NaN where it is missing.

    The twelve numbers of a joint go into a dict by their names, as in most readers that are about;
    `lean` converts x, y and z alone.
    """
    bodies: dict[str, dict[int, np.ndarray]] = {}
    with open(path) as file:
        frames = int(file.readline())
        for frame in range(frames):
            for _ in range(int(file.readline())):
                body_id = file.readline().split()[0]
                joints = []
                for _ in range(int(file.readline())):
                    fields = file.readline().split()
                    if lean:
                        joints.append([float(fields[0]), float(fields[1]), float(fields[2])])
                    else:
                        joint = {k: float(v) for k, v in zip(FIELDS, fields, strict=True)}
                        joints.append([joint["x"], joint["y"], joint["z"]])
                pose = np.array(joints, dtype=np.float32)
                pose[~np.isfinite(pose).all(axis=1) | (pose == 0).all(axis=1)] = np.nan
                if not np.isnan(pose).all():
                    bodies.setdefault(body_id, {})[frame] = pose
    return frames, list(bodies.values())


def prepare_clip(
    path: Path, frames: int = 50, bodies: int = 2, lean: bool = False
) -> np.ndarray | None:
    """(bodies, frames, V, 3) float32, or None where nobody is in sight."""
    length, tracks = read_clip(path, lean)
    people = choose(tracks, bodies)
    if not people:
        return None
    there = sorted(set().union(*people))
    first, last = there[0], there[-1]
    xyz = np.full((len(people), length, 25, 3), np.nan)
    for row, track in enumerate(people):
        for frame, pose in track.items():
            xyz[row, frame] = pose
    xyz = xyz[:, first : last + 1]

    rotation = np.eye(3)
    for frame in range(xyz.shape[1]):
        x, _, z = xyz[0, frame, RIGHT] - xyz[0, frame, LEFT]
        if np.hypot(x, z) >= 1e-3:  # not where one is NaN
            angle = np.arctan2(z, x)
            cos, sin = np.cos(angle), np.sin(angle)
            rotation = np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])
            break
    out = np.zeros((bodies, frames, 25, 3), np.float32)
    for row, body in enumerate(xyz):
        out[row] = finish(body, frames) @ rotation.T
    return out


def finish(body: np.ndarray, frames: int) -> np.ndarray:
    """Of one body (T, V, 3), NaN where missing: filled, centred and resampled."""
    length = len(body)
    filled, never = np.zeros(body.shape), []
    time = np.arange(length)
    for joint in range(body.shape[1]):
        seen = ~np.isnan(body[:, joint, 0])
        if not seen.any():
            never.append(joint)
        elif seen.all():
            filled[:, joint] = body[:, joint]
        else:
            for axis in range(3):
                filled[:, joint, axis] = np.interp(time, time[seen], body[seen, joint, axis])
    center = filled[:, CENTER]
    if CENTER in never:
        center = np.delete(filled, never, axis=1).mean(axis=1)
    centred = filled - center[:, None]
    centred[:, never] = 0
    where = np.linspace(0, length - 1, frames)
    columns = centred.reshape(length, -1)
    resampled = [np.interp(where, time, column) for column in columns.T]
    return np.stack(resampled, axis=1).reshape(frames, -1, 3)


def choose(tracks: list[dict[int, np.ndarray]], bodies: int) -> list[dict[int, np.ndarray]]:
    """The people of a clip, the most moving first."""
    people = join(tracks)
    if len(people) > 1:
        kept = [track for track in people if not is_ghost(track)]
        if not kept:
            longest = max(len(track) for track in people)
            kept = [max((t for t in people if len(t) == longest), key=motion)]
        people = kept
    return sorted(people, key=motion, reverse=True)[:bodies]


def join(tracks: list[dict[int, np.ndarray]]) -> list[dict[int, np.ndarray]]:
    people: list[dict[int, np.ndarray]] = []
    for track in sorted(tracks, key=min):
        start = min(track)
        near = []
        for number, person in enumerate(people):
            end = max(person)
            if 0 <= start - end - 1 <= JOIN_FRAMES:
                apart = np.linalg.norm(track[start].astype(float) - person[end], axis=1)
                apart = apart[~np.isnan(apart)]
                if len(apart) and apart.mean() < JOIN_METRES:
                    near.append((apart.mean(), number))
        if near:
            people[min(near)[1]].update(track)
        else:
            people.append(dict(track))
    return people


def is_ghost(track: dict[int, np.ndarray]) -> bool:
    if len(track) < MIN_FRAMES:
        return True
    wide = 0
    for pose in track.values():
        spread = np.nanmax(pose, axis=0) - np.nanmin(pose, axis=0)
        wide += spread[0] > WIDE * spread[1]
    return wide >= WIDE_SHARE * len(track)


def motion(track: dict[int, np.ndarray]) -> float:
    poses = np.stack(list(track.values())).astype(float)
    return np.nansum(np.nanvar(poses, axis=0)) if np.isnan(poses).any() else poses.var(axis=0).sum()
