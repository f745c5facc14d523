"""Layouts of some joints of another: what hangs on what, and which are drawn for training."""

from __future__ import annotations

import numpy as np
import pytest

from msclr import layouts
from msclr.data.sub_layouts import LEFT_OUT, SubLayouts
from msclr.errors import InputError
from msclr.layouts import Layout
from msclr.layouts.sub_layout import sub_layout

ROBOT = Layout(
    "robot",
    ["base", "lhip", "rhip", "lknee", "rknee", "lfoot", "rfoot", "tool"],
    [
        ["lhip", "base"], ["rhip", "base"], ["lknee", "lhip"], ["rknee", "rhip"],
        ["lfoot", "lknee"], ["rfoot", "rknee"], ["tool", "base"], ["lfoot", "rfoot"],
    ],
    "base",
    outside_graph=[["tool", "base"]],
)  # fmt: skip


def test_a_joint_hangs_on_the_nearest_that_is_kept():
    found = sub_layout(ROBOT, {"base", "lfoot", "rfoot", "tool"}, "less")
    assert found.joints == ("base", "lfoot", "rfoot", "tool")
    assert found.bones == (
        ("lfoot", "base"), ("rfoot", "base"), ("tool", "base"), ("lfoot", "rfoot"),
    )  # fmt: skip
    assert found.outside_graph == (("tool", "base"),)
    assert found.mirror_pairs == (("lfoot", "rfoot"),) and found.center == "base"


def test_a_way_that_is_no_link_stays_none():
    chain = Layout(
        "chain", ["a", "b", "c", "d"], [["b", "a"], ["c", "b"], ["d", "c"]], "a",
        flip=[], outside_graph=[["c", "b"]],
    )  # fmt: skip
    found = sub_layout(chain, ["a", "b", "d"], "less")
    assert found.bones == (("b", "a"), ("d", "b")) and found.outside_graph == (("d", "b"),)


@pytest.mark.parametrize("name", layouts.names())
def test_drawn_ones_hang_together_and_keep_pairs_whole(name):
    layout = layouts.get(name)
    drawn = SubLayouts(3, seed=5).of(layout)
    assert len({each.target.joints for each in drawn}) == 3
    assert [each.target.name for each in drawn] == [f"{name}_sub{i}" for i in (1, 2, 3)]
    roots = np.flatnonzero(layout.parents.numpy() == np.arange(layout.num_joints))
    for source, target, matrix in drawn:
        assert source == name and target.center == layout.center
        places = [layout.joints.index(joint) for joint in target.joints]
        assert sorted(places) == places and set(roots) <= set(places)
        np.testing.assert_array_equal(matrix, np.eye(layout.num_joints)[places])
        own = target.parents.numpy() == np.arange(target.num_joints)
        assert own.sum() == len(roots)
        for left, right in layout.mirror_pairs:
            assert (left in target.joints) == (right in target.joints)
        left_out = 1 - target.num_joints / layout.num_joints
        assert 0.5 * LEFT_OUT < left_out < 1.5 * LEFT_OUT


def test_they_follow_from_the_seed_and_the_layout():
    layout, twin = layouts.get("smpl_24"), layouts.get("smplx_42")
    kept = [x.target.joints for x in SubLayouts(4, 1).of(layout)]
    assert kept[:2] == [x.target.joints for x in SubLayouts(2, 1).of(layout)]
    assert kept != [x.target.joints for x in SubLayouts(4, 2).of(layout)]
    assert SubLayouts(4, 2**63 - 1).of(twin)
    assert SubLayouts(0, 1).of(layout) == []


def test_a_layout_that_has_too_few_is_refused():
    two = Layout("two", ["a", "b"], [["b", "a"]], "a", flip=[])
    assert [x.target.joints for x in SubLayouts(1).of(two)] == [("a",)]
    with pytest.raises(InputError, match=r"sub_layouts=2: two of 2 joints has 1 that differ"):
        SubLayouts(2).of(two)
    with pytest.raises(InputError, match=r"one of 1 joints has 0 that differ; give sub_layouts=0"):
        SubLayouts(1).of(Layout("one", ["a"], [], "a", flip=[]))
