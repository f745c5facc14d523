"""Passages: layouts made of others that lack some of their places, and what that loses."""

from pathlib import Path

import numpy as np
import pytest

from msclr import layouts
from msclr.errors import InputError
from msclr.layouts import Layout, closest, derivable, derivation, passage
from msclr.layouts.fills import FILLS, fills_of

ROOT = Path(__file__).parents[2]
ALL = {name: layouts.get(name) for name in layouts.names()}


def row(way, joint):
    """{joint of the source: weight} of a joint of the target."""
    weights = way.matrix[way.target.joints.index(joint)]
    return {name: w for name, w in zip(way.source.joints, weights, strict=True) if w}


def test_fingertips_and_thumbs_of_a_kinect_that_has_none_lie_in_the_hand():
    way = passage(ALL["kinectv1_20"], ALL["kinectv2_25"])
    for side, hand in (("l", "HandLeft"), ("r", "HandRight")):
        assert row(way, f"{side}handtip") == row(way, f"{side}thu") == {hand: 1.0}
        assert way.filled[f"{side}thu"] == (f"{side}hand", 1)
    assert set(way.filled) == {"lhandtip", "rhandtip", "lthu", "rthu"}
    assert way.unused == ("HipCenter",)
    assert way.loss == pytest.approx(4 / 25 + 1 / 20)
    assert (
        way.line
        == str(way)
        == (
            "kinectv1_20 derived to kinectv2_25: loss 0.21, 4 of 25 joints filled (lhandtip from "
            "lhand, lthu from lhand, rhandtip from rhand, rthu from rhand), 1 of 20 joints not used"
        )
    )


def test_fills_follow_each_other_and_each_step_counts():
    way = passage(ALL["coco_17"], ALL["kinectv2_25"])  # which ends at the wrist and the ankle
    assert row(way, "lhandtip") == {"lwri": 1.0} and way.filled["lhandtip"] == ("lhand", 2)
    assert row(way, "rhan") == {"rwri": 1.0} and way.filled["rhan"] == ("rwrist", 1)
    assert row(way, "lfoo") == {"lank": 1.0} and way.filled["lfoo"] == ("lankle", 1)


def test_where_nothing_lacks_it_is_the_derivation():
    for source in ALL.values():
        for name in derivable(source):
            way = passage(source, ALL[name])
            np.testing.assert_array_equal(way.matrix, derivation(source, ALL[name]))
            assert not way.filled and way.loss == len(way.unused) / source.num_joints


def test_any_shipped_layout_leads_to_any_other_left_and_right_alike():
    for source in ALL.values():
        flip = source.flip.numpy()
        for target in ALL.values():
            way = passage(source, target)
            np.testing.assert_allclose(way.matrix.sum(axis=1), 1, rtol=0, atol=1e-12)
            mirror = target.flip.numpy()
            if not way.filled:
                np.testing.assert_allclose(way.matrix[mirror][:, flip], way.matrix, atol=1e-12)
            assert (way.loss == 0) == (not way.filled and not way.unused)


def test_equal_layouts_lose_nothing():
    way = passage(ALL["coco_17"], ALL["coco_17"])
    np.testing.assert_array_equal(way.matrix, np.eye(17))
    assert way.loss == 0


def test_a_marker_takes_the_place_of_the_landmark_that_it_tells():
    way = passage(ALL["uiprmd_kinect_22"], ALL["uiprmd_vicon_39"])
    assert row(way, "LKNE") == {"LLowerLeg": 1.0}
    assert way.filled["LKNE"] == ("lknee", 1)


def test_a_joint_without_a_rule_takes_that_of_the_nearest_along_its_bones():
    joints = ["lhip", "rhip", "tail", "tailtip"]
    bones = [["rhip", "lhip"], ["tail", "lhip"], ["tailtip", "tail"]]
    tailed = Layout("tailed", joints, bones, "lhip", landmarks={"lhip": "lhip", "rhip": "rhip"})
    way = passage(ALL["coco_17"], tailed)
    assert row(way, "tailtip") == row(way, "tail") == row(way, "lhip")
    assert way.filled == {"tail": ("lhip", 1), "tailtip": ("lhip", 2)}


def test_the_closest_is_the_one_that_loses_least():
    way = closest(ALL["kinectv1_20"], [ALL["kinectv2_25"], ALL["smplx_42"], ALL["h36m_17"]])
    losses = {
        name: passage(ALL["kinectv1_20"], ALL[name]).loss
        for name in ("kinectv2_25", "smplx_42", "h36m_17")
    }
    assert way.target.name == min(losses, key=losses.get) and way.loss == min(losses.values())


def test_a_layout_without_landmarks_leads_nowhere_and_says_so():
    bare = Layout("bare", ["a", "b"], [["b", "a"]], "a", flip=[])
    with pytest.raises(InputError, match=r"layout bare has no \[landmarks\].*add them to its file"):
        closest(bare, ALL.values())
    with pytest.raises(InputError, match="no joint of bare can be derived from coco_17"):
        passage(ALL["coco_17"], bare)


def test_every_fill_is_a_place_between_others():
    for landmark, rules in FILLS.items():
        for weights in rules:
            assert sum(weights.values()) == pytest.approx(1) and landmark not in weights


def test_hips_and_shoulders_tell_the_whole_trunk():
    found = fills_of(["lhip", "rhip", "lshoulder", "rshoulder"])
    assert found["neck_base"].weights == {"lshoulder": 0.5, "rshoulder": 0.5}
    assert found["spine_mid"].weights == pytest.approx(
        {"lhip": 0.22, "rhip": 0.22, "lshoulder": 0.28, "rshoulder": 0.28}
    )
    assert (found["lhip"].steps, found["mid_hip"].steps, found["spine_mid"].steps) == (0, 1, 2)


def test_the_page_on_layouts_lists_every_fill():
    page = (ROOT / "docs" / "layouts.md").read_text(encoding="utf-8")
    table = page.partition("<!-- table fills -->\n")[2].partition("\n<!-- end -->")[0]
    for landmark in FILLS:
        assert f"`{landmark}`" in table or f"`l{landmark[1:]}`" in table, landmark
