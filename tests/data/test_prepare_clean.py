"""One layout's joints: every step by hand, and the order of the steps."""

from __future__ import annotations

import numpy as np
import pytest

from msclr.data.prepare._place import Placement
from msclr.data.prepare.clean import Rules, clean_clip
from msclr.data.prepare.report import Counts
from msclr.data.prepare.steps import center_bodies, fill_gaps, resample
from msclr.data.skeleton.shoulders import turn
from msclr.layouts import Layout, get

TRIO = Layout(
    "cleaner_trio", ["chest", "lsho", "rsho"], [["lsho", "chest"], ["rsho", "chest"]], "chest"
)
PAIR = Layout("cleaner_pair", ["hip", "head"], [["head", "hip"]], "hip")


def seen_of(xyz: np.ndarray) -> np.ndarray:
    return ~np.isnan(xyz).any(axis=-1)


def clean(layout: Layout, xyz: np.ndarray, frames: int):
    counts = Counts()
    rules = Rules(frames, Placement("ntu", published=True))
    return clean_clip(xyz, seen_of(xyz), layout, rules, counts).xyz, counts


def test_turn_by_hand():
    """A quarter turn: what pointed along z points along x, and x along -z."""
    xyz = np.array([[0.0, 7, 1], [1, 7, 0], [2, 0, 3]])
    turn(xyz, 0.0, 1.0)
    np.testing.assert_allclose(xyz, [[1, 7, 0], [0, 7, -1], [3, 0, -2]])


def test_a_clip_by_hand():
    """Shoulders along (3, 4) in (x, z) from the second frame on; centred; one angle for all."""
    xyz = np.zeros((1, 3, 3, 3))
    xyz[0, :, 0] = [[1, 1, 1], [2, 1, 1], [3, 1, 1]]  # the chest walks
    xyz[0, :, 1] = xyz[0, :, 0] + [-3, 2, -4]
    xyz[0, :, 2] = xyz[0, :, 0] + [3, 2, 4]
    xyz[0, 2, 2] = xyz[0, 2, 0] + [-4, 2, 3]  # at last the right arm turns by 90 degrees
    xyz[0, 0, 1] = np.nan  # so the angle is that of frame 1; and the joint is held
    got, counts = clean(TRIO, xyz, 3)
    # At frame 0 the held left shoulder lies at (-1, 3, -3), the chest at (1, 1, 1).
    wanted = [
        [[0, 0, 0], [(3 * -2 + 4 * -4) / 5, 2, (3 * -4 - 4 * -2) / 5], [5, 2, 0]],
        [[0, 0, 0], [-5, 2, 0], [5, 2, 0]],
        [[0, 0, 0], [-5, 2, 0], [0, 2, 5]],
    ]
    np.testing.assert_allclose(got[0], wanted, atol=1e-14)
    assert (counts.joints, counts.interpolated, counts.never_seen) == (9, 1, 0)
    assert (counts.trimmed_frames, counts.unturned) == (0, 0)
    assert counts.reach == [pytest.approx(np.sqrt(29))]


def test_all_bodies_turn_by_the_first_ones_angle():
    xyz = np.zeros((2, 1, 3, 3))
    xyz[0, 0] = [[5, 5, 5], [5, 5, 4], [5, 5, 6]]  # shoulders along +z
    xyz[1, 0] = [[1, 1, 1], [0, 1, 1], [2, 1, 1]]  # along +x
    got, _ = clean(TRIO, xyz, 1)
    np.testing.assert_allclose(got[0, 0], [[0, 0, 0], [-1, 0, 0], [1, 0, 0]], atol=1e-15)
    np.testing.assert_allclose(got[1, 0], [[0, 0, 0], [0, 0, 1], [0, 0, -1]], atol=1e-15)


def test_who_faces_the_sensor_is_not_turned():
    """The Kinect's x grows towards the right hand of who faces it: a line along x, 0 degrees."""
    kinect = get("kinectv2_25")
    xyz = np.random.default_rng(0).normal(size=(1, 4, 25, 3))
    left, right = kinect.joints.index("lsho"), kinect.joints.index("rsho")
    xyz[0, 0, right] = xyz[0, 0, left] + [0.4, 0.1, 0]
    got, _ = clean(kinect, xyz, 4)
    np.testing.assert_allclose(got, xyz - xyz[:, :, 20:21], atol=1e-15)


@pytest.mark.parametrize("hide", ["joint", "direction"])
def test_without_a_shoulder_line_nothing_is_turned_and_it_is_counted(hide):
    xyz = np.random.default_rng(1).normal(size=(1, 4, 3, 3))
    if hide == "joint":
        xyz[0, :, 1] = np.nan
    else:
        xyz[0, :, 1] = xyz[0, :, 2] + [0, 0.3, 0]  # the left shoulder straight over the right one
    got, counts = clean(TRIO, xyz, 4)
    ahead = seen_of(xyz)[0].all(axis=0)
    np.testing.assert_allclose(got[0][:, ahead], (xyz - xyz[:, :, :1])[0][:, ahead], atol=1e-15)
    assert counts.unturned == 1


def test_a_layout_without_shoulders_is_not_turned_nor_counted():
    xyz = np.random.default_rng(2).normal(size=(1, 4, 2, 3))
    got, counts = clean(PAIR, xyz, 4)
    np.testing.assert_allclose(got, xyz - xyz[:, :, :1], atol=1e-15)
    assert counts.unturned == 0


def test_frames_without_anybody_go_at_the_ends_and_are_filled_between():
    xyz = np.full((1, 8, 2, 3), np.nan)
    xyz[0, 2] = [[0, 0, 0], [0, 1, 0]]
    xyz[0, 5] = [[9, 0, 0], [9, 4, 0]]
    got, counts = clean(PAIR, xyz, 4)
    np.testing.assert_allclose(got[0, :, 1], [[0, 1, 0], [0, 2, 0], [0, 3, 0], [0, 4, 0]])
    assert (counts.trimmed_frames, counts.interpolated, counts.joints) == (4, 4, 8)


def test_a_body_that_is_there_for_a_part_is_held():
    xyz = np.zeros((2, 6, 2, 3))
    xyz[0, :, 1, 1] = [1, 2, 3, 4, 5, 6]
    xyz[1, :, 1, 1] = [9, 9, 2, 3, 9, 9]
    xyz[1, [0, 1, 4, 5]] = np.nan
    got, counts = clean(PAIR, xyz, 6)
    np.testing.assert_allclose(got[0, :, 1, 1], [1, 2, 3, 4, 5, 6])
    np.testing.assert_allclose(got[1, :, 1, 1], [2, 2, 2, 3, 3, 3])
    assert counts.interpolated == 8


def test_resampling_first_is_the_same_as_last():
    """Steps 2 to 4 in the order the docstring of `prepare_ntu` tells them, with the slow parts."""
    rng = np.random.default_rng(3)
    xyz = rng.normal(size=(2, 31, 3, 3))
    xyz[rng.random(xyz.shape[:3]) < 0.3] = np.nan
    xyz[1, :, 0] = np.nan  # the second body's centre is never seen
    seen = seen_of(xyz)
    slow = center_bodies(fill_gaps(xyz, seen), seen.any(axis=1), 0)
    both = np.flatnonzero(seen[0, :, 1] & seen[0, :, 2])[0]
    x, _, z = xyz[0, both, 2] - xyz[0, both, 1]
    turn(slow, x / np.hypot(x, z), z / np.hypot(x, z))
    got, _ = clean(TRIO, xyz, 17)
    np.testing.assert_allclose(got, resample(slow, 17), atol=1e-12)
