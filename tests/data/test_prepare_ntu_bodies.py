"""Which bodies: every rule on made-up skeletons, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from msclr.data.prepare.ntu.bodies import BodyRules, choose_bodies, wide_frames
from msclr.data.skeleton import Skeleton
from msclr.errors import InputError

TALL = np.array([[0.0, 0, 3], [0.3, 1, 3], [0, 2, 3]])  # x spread 0.3, y spread 2
WHOLE = np.array([[0.0, 0, 3], [0, 1, 3], [0, 2, 3]])  # sums without rounding
WIDE = np.array([[0.0, 0, 3], [1.0, 0.2, 3], [2, 1, 3]])  # x spread 2, y spread 1


def track(pose: np.ndarray, frames: range, length: int, step: float = 0.0, start: float = 0.0):
    """(T, V, 3): a pose that moves along x by `step` a frame, NaN where absent."""
    xyz = np.full((length, *pose.shape), np.nan)
    for t in frames:
        xyz[t] = pose + [start + step * t, 0, 0]
    return xyz


def skeleton(*tracks: np.ndarray) -> Skeleton:
    """Bodies 100, 101, …; where a track is NaN in all joints the body is absent, and 0 there."""
    xyz = np.stack(tracks).astype(np.float32)  # (P, T, V, 3)
    present = ~np.isnan(xyz).all(axis=(2, 3))
    xyz[~present] = 0
    ids = np.arange(100, 100 + len(xyz), dtype=np.uint64)
    return Skeleton(ids, present, xyz, np.full(xyz.shape[:3], 2, np.uint8))


def same(got: np.ndarray, track_of: np.ndarray) -> bool:
    return np.array_equal(got, np.nan_to_num(track_of).astype(np.float32))


def test_one_body_is_kept_as_it_is():
    lone = track(WIDE, range(3, 5), 20)  # short and wide, and yet
    got = choose_bodies(skeleton(lone))
    assert got.xyz.shape == (1, 20, 3, 3)
    assert same(got.xyz[0], lone)
    np.testing.assert_array_equal(got.seen[0].any(axis=1), [3 <= t < 5 for t in range(20)])
    assert vars(got.counts) == dict(joined=0, short=0, wide=0, surplus=0, rescued=0)


def test_nobody():
    empty = Skeleton(
        np.zeros(0, np.uint64),
        np.zeros((0, 7), bool),
        np.zeros((0, 7, 25, 3), np.float32),
        np.zeros((0, 7, 25), np.uint8),
    )
    assert choose_bodies(empty).xyz.shape == (0, 7, 25, 3)
    unseen = skeleton(np.zeros((7, 3, 3)), np.full((7, 3, 3), np.inf))
    assert choose_bodies(unseen).xyz.shape == (0, 7, 3, 3)


def test_missing_joints_are_not_seen():
    xyz = track(TALL, range(20), 20)
    xyz[4, 1] = np.nan
    xyz[5, 2, 0] = np.inf
    xyz[6, 0] = 0
    seen = choose_bodies(skeleton(xyz)).seen[0]
    assert [tuple(at) for at in np.argwhere(~seen)] == [(4, 1), (5, 2), (6, 0)]


# Order and number


def test_the_most_moving_come_first_and_the_rest_is_surplus():
    tracks = [track(TALL, range(20), 20, step) for step in (0.01, 0.03, 0.0, 0.02)]
    got = choose_bodies(skeleton(*tracks))
    assert same(got.xyz[0], tracks[1]) and same(got.xyz[1], tracks[3])
    assert got.counts.surplus == 2
    assert len(choose_bodies(skeleton(*tracks), bodies=3).xyz) == 3
    assert len(choose_bodies(skeleton(*tracks), bodies=9).xyz) == 4


def test_motion_is_the_variance_over_the_frames_in_sight():
    """Frames of absence, zeros in the file, are no motion: 2 m off, they would be the largest."""
    still = track(TALL, range(0, 15), 30)
    moving = track(TALL, range(30), 30, 0.01)
    got = choose_bodies(skeleton(still, moving))
    assert same(got.xyz[0], moving)


def test_of_equal_motion_the_first_stays_first():
    tracks = [track(WHOLE, range(20), 20, 0.125, start) for start in (0.0, 2.0)]
    assert same(choose_bodies(skeleton(*tracks)).xyz[0], tracks[0])


# Ghosts


@pytest.mark.parametrize(("frames", "dropped"), [(11, 1), (12, 0)])
def test_short_bodies_are_dropped(frames, dropped):
    person, other = track(TALL, range(40), 40), track(TALL, range(frames), 40, 0.05, 2)
    got = choose_bodies(skeleton(person, other))
    assert (got.counts.short, len(got.xyz)) == (dropped, 2 - dropped)
    assert same(got.xyz[-1], person)
    assert len(choose_bodies(skeleton(person, other), rules=BodyRules(min_frames=1)).xyz) == 2


@pytest.mark.parametrize(("frames", "dropped"), [(13, 0), (14, 1)])
def test_bodies_that_are_wide_in_most_frames_are_dropped(frames, dropped):
    """Of 20 frames 14 are 0.7 of them, over 0.69754; 13 are 0.65."""
    ghost = np.concatenate(
        [track(WIDE, range(frames), frames), track(TALL, range(20 - frames), 20)]
    )
    person = track(TALL, range(20), 20, 0.5)
    got = choose_bodies(skeleton(person, ghost[:20]))
    assert (got.counts.wide, len(got.xyz)) == (dropped, 2 - dropped)
    assert same(got.xyz[0], person)


def test_wide_frames_by_hand():
    xyz = np.full((1, 5, 3, 3), np.nan)
    xyz[0, 0] = [[0, 0, 1], [8, 10, 1], [4, 5, 1]]  # x 8, y 10: 8 > 0.8 * 10 does not hold
    xyz[0, 1] = [[0, 0, 1], [9, 10, 1], [4, 5, 1]]  # x 9: wide
    xyz[0, 2] = [[0, 0, 1], [9, 10, 1], [4, 15, 1]]  # y 15, of another joint
    xyz[0, 3, :2] = [[0, 0, 1], [5, 5, 1]]  # with one joint missing: wide
    seen = ~np.isnan(xyz).any(axis=3)  # frame 4: nobody
    assert wide_frames(xyz, seen, 0.8).tolist() == [2]
    assert wide_frames(xyz, seen, np.inf).tolist() == [0]
    whole = xyz[:, :3]
    assert wide_frames(whole, seen[:, :3], 0.8).tolist() == [1]


def test_of_nothing_but_ghosts_the_longest_is_kept():
    tracks = [
        track(WIDE, range(20), 60, 0.01),
        track(WIDE, range(30), 60, 0.02, 5),
        track(WIDE, range(30), 60, 0.03, -5),
        track(WIDE, range(5), 60, 0.09, 9),
    ]
    got = choose_bodies(skeleton(*tracks))
    assert len(got.xyz) == 1 and same(got.xyz[0], tracks[2])
    assert vars(got.counts) == dict(joined=0, short=1, wide=2, surplus=0, rescued=1)


# One person under two ids


def test_a_person_found_again_is_one():
    """Gone in frames 20 to 24, found 0.3 m further on."""
    first, again = track(TALL, range(20), 50), track(TALL, range(25, 50), 50, 0, 0.3)
    got = choose_bodies(skeleton(first, again))
    assert got.counts.joined == 1 and len(got.xyz) == 1
    whole = np.where(np.isnan(first), again, first)
    assert same(got.xyz[0], whole)
    np.testing.assert_array_equal(got.seen[0, :, 0], ~np.isnan(whole[:, 0, 0]))


@pytest.mark.parametrize(
    ("first", "again", "start", "joined"),
    [
        (range(20), range(20, 40), 0.0, 1),  # at once
        (range(20), range(19, 40), 0.0, 0),  # both there in frame 19
        (range(20), range(50, 70), 0.0, 1),  # 30 frames without
        (range(20), range(51, 70), 0.0, 0),  # 31
        (range(20), range(25, 45), 0.49, 1),
        (range(20), range(25, 45), 0.51, 0),  # too far
    ],
)
def test_when_two_ids_are_one_person(first, again, start, joined):
    tracks = track(TALL, first, 70), track(TALL, again, 70, 0, start)
    got = choose_bodies(skeleton(*tracks))
    assert (got.counts.joined, len(got.xyz)) == (joined, 2 - joined)


def test_ids_that_share_a_frame_are_two_people_whoever_else_is_there():
    tracks = [track(TALL, frames, 70) for frames in (range(20), range(19, 40))]
    got = choose_bodies(skeleton(*tracks, track(TALL, range(45, 70), 70, 0, 5)), bodies=3)
    assert got.counts.joined == 0 and len(got.xyz) == 3


def test_a_chain_of_ids_and_two_people_who_cross_the_gap():
    """a goes over into c and then d, b into e, each by the nearest last pose."""
    a, b = track(TALL, range(0, 20), 80), track(TALL, range(0, 22), 80, 0, 0.4)
    e, c = track(TALL, range(25, 80), 80, 0, 0.35), track(TALL, range(26, 50), 80, 0, 0.05)
    d = track(TALL, range(52, 80), 80, 0, 0.1)
    got = choose_bodies(skeleton(a, b, e, c, d))
    assert got.counts.joined == 3 and len(got.xyz) == 2
    starts = [{0.0, 0.05, 0.1}, {0.4, 0.35}]
    found = [
        set(np.round(xyz[seen.any(axis=1)][:, 0, 0].astype(float), 2).tolist())
        for xyz, seen in zip(got.xyz, got.seen, strict=True)
    ]
    assert sorted(found, key=len) == sorted(starts, key=len)


def test_joining_comes_before_the_ghosts():
    """Two halves of 8 frames are a person of 16."""
    halves = track(TALL, range(8), 40), track(TALL, range(10, 18), 40)
    got = choose_bodies(skeleton(*halves, track(TALL, range(40), 40, 0.01, 3)))
    assert got.counts.short == 0 and len(got.xyz) == 2


def test_joining_can_be_turned_off():
    halves = track(TALL, range(20), 40), track(TALL, range(20, 40), 40)
    assert len(choose_bodies(skeleton(*halves), rules=BodyRules(join_metres=0)).xyz) == 2


@pytest.mark.parametrize("field", ["join_frames", "join_metres", "min_frames", "wide"])
@pytest.mark.parametrize("value", [-1, float("nan"), "3", None, True])
def test_rules_are_numbers(field, value):
    with pytest.raises(InputError, match=f"{field} is .*; give a number from 0 on"):
        BodyRules(**{field: value})
