"""Who is who: people followed from frame to frame, and found again under another convention."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from msclr.data.prepare.steps import seen_joints
from msclr.errors import InputError

# Metres. Generous, as the depth of a pose from one camera is uncertain by decimetres: when two
# people are in sight, the assignment as a whole decides and not the limit.
FOLLOW_LIMIT = 1.0
MATCH_LIMIT = 1.0


def follow_people(frames: Sequence[np.ndarray], limit: float = FOLLOW_LIMIT) -> np.ndarray:
    """One row per person over a whole clip, from poses that come in any order frame by frame.

    frames: T arrays (m_t, V, 3), float, V the same in all; m_t may be 0. A joint is missing where
        it is NaN or all zero, a pose without any joint is nobody.
    limit: a pose further than this from where a person was last seen is someone else.

    Each frame's poses go to the people known so far so that the sum of distances is least
    (Hungarian method), the distance being the mean over the joints seen in both, at most `limit`,
    from the person's last seen pose, however many frames ago. Poses at `limit` or beyond, and
    those left over, begin a new person.

    Returns (P, T, V, 3) float64 in order of first appearance, NaN where a person is absent. Joints
    come back as they were. Raises InputError for frames that are not (m_t, V, 3).
    """
    joints = _check_frames(frames)
    poses = np.concatenate(frames).astype(np.float64)  # (F, V, 3)
    frame = np.repeat(np.arange(len(frames)), [len(entry) for entry in frames])  # (F,)
    seen = seen_joints(poses)  # (F, V)
    somebody = seen.any(axis=1)
    poses, frame, seen = poses[somebody], frame[somebody], seen[somebody]
    alone = _one_person(poses, frame, seen, limit)
    person = np.zeros(len(poses), int) if alone else _follow(poses, frame, seen, limit)
    tracks = np.full((person.max(initial=-1) + 1, len(frames), joints, 3), np.nan)
    tracks[person, frame] = poses
    return tracks


def _one_person(poses, frame, seen, limit) -> bool:
    """Whether one person is all there is: most clips, known without going frame by frame."""
    if (np.diff(frame) == 0).any():
        return False
    return bool((_apart(poses[:-1], seen[:-1], poses[1:], seen[1:], limit) < limit).all())


def _follow(poses, frame, seen, limit) -> np.ndarray:
    """(F,) int: the person of each pose, numbered in order of first appearance."""
    person = np.empty(len(poses), int)
    last = np.empty(0, int)  # (P,) the pose in which each person was last seen
    starts = np.nonzero(np.diff(frame, prepend=-1))[0]
    for a, b in zip(starts, [*starts[1:], len(poses)], strict=True):
        ours, theirs = last[:, None], np.arange(a, b)
        found = _assign(_apart(poses[ours], seen[ours], poses[theirs], seen[theirs], limit), limit)
        new = found < 0
        found[new] = len(last) + np.arange(new.sum())
        last = np.concatenate([last, theirs[new]])
        last[found] = theirs
        person[a:b] = found
    return person


def match_people(
    reference: np.ndarray, candidates: np.ndarray, limit: float = MATCH_LIMIT
) -> np.ndarray:
    """Which candidate is which reference body, by where they are on the floor.

    reference: (M, T, 3) metres, body centres in the camera's space: x right in the image, y up, z
        forward, as the Kinect gives them. NaN or all zero where a body is absent.
    candidates: (P, T', 3) metres, centres of the same people and others in the space of the colour
        camera: x right, y down, z forward. NaN or all zero where absent. T' may differ from T: both
        are taken to last equally long, and resampled linearly to the longer of the two.

    The distance of two bodies is the mean over the reference's time in sight of their distance in
    (x, z), where the candidate is out of sight or further than that: `limit`. The assignment with
    the least sum is taken (Hungarian method). y is left out: the two centres may be unlike joints,
    one above the other.

    Returns (M,) int64: the candidate of each reference body, -1 where none is within `limit`.
    Raises InputError for other shapes.
    """
    for name, array in (("reference", reference), ("candidates", candidates)):
        if array.ndim != 3 or array.shape[2] != 3:
            raise InputError(f"{name} has shape {array.shape}; wanted (people, frames, 3)")
    frames = max(reference.shape[1], candidates.shape[1])
    ours, ours_seen = _resample(reference, frames)  # (M, frames, 2), (M, frames)
    theirs, theirs_seen = _resample(candidates, frames)
    apart = np.linalg.norm(ours[:, None] - theirs[None], axis=-1)  # (M, P, frames)
    apart = np.where(theirs_seen[None], np.minimum(apart, limit), limit)
    time = ours_seen.sum(axis=1)[:, None]  # (M, 1)
    distance = (apart * ours_seen[:, None]).sum(axis=2) / np.maximum(time, 1)
    distance[~ours_seen.any(axis=1)] = limit  # a body that is never there matches nobody
    return _assign(distance.T, limit)


def _assign(distance: np.ndarray, limit: float) -> np.ndarray:
    """For each column of `distance` (rows, columns), at most `limit`, its row or -1."""
    rows, columns = linear_sum_assignment(distance)
    found = np.full(distance.shape[1], -1)
    near = distance[rows, columns] < limit
    found[columns[near]] = rows[near]
    return found


def _apart(a, a_seen, b, b_seen, limit) -> np.ndarray:
    """Mean distance of the joints seen in both poses, `limit` where that is more or none is.

    a, b: (..., V, 3), seen: (..., V); leading dimensions are broadcast.
    """
    both = a_seen & b_seen
    with np.errstate(invalid="ignore", over="ignore"):  # of joints that are missing, or absurd
        between = np.where(both[..., None], a - b, 0)
        summed = np.sqrt(np.einsum("...i,...i", between, between)).sum(axis=-1)
    count = both.sum(axis=-1)
    return np.where(count, np.minimum(summed / np.maximum(count, 1), limit), limit)


def _resample(centres: np.ndarray, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """(people, T, 3) -> (x, z) at `frames` times (people, frames, 2), and who is in sight then.

    Linear between the frames in sight; nobody is in sight before the first and after the last.
    """
    people, length = centres.shape[:2]
    path = np.zeros((people, frames, 2))
    inside = np.zeros((people, frames), bool)
    time = np.linspace(0, max(length - 1, 0), frames)
    for body, seen in enumerate(seen_joints(centres)):
        at = np.nonzero(seen)[0]
        if len(at):
            for column, axis in enumerate((0, 2)):
                path[body, :, column] = np.interp(time, at, centres[body, at, axis])
            inside[body] = (time >= at[0] - 0.5) & (time <= at[-1] + 0.5)
    return path, inside


def _check_frames(frames: Sequence[np.ndarray]) -> int:
    """V of the frames."""
    if not len(frames):
        raise InputError("there is no frame; wanted a list of (m, V, 3), one entry a frame")
    joints = frames[0].shape[1] if frames[0].ndim == 3 else -1
    for t, poses in enumerate(frames):
        if poses.ndim != 3 or poses.shape[1:] != (joints, 3):
            raise InputError(
                f"frame {t} has shape {poses.shape}; wanted (m, V, 3) with the same V in all"
            )
    return joints
