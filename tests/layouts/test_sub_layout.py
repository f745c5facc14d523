"""Layouts of some joints of another: what hangs on what, and which are drawn for training."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from msclr import layouts
from msclr.data.sub_layouts import SubLayouts
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


def test_a_new_bone_is_a_link():
    chain = Layout(
        "chain", ["a", "b", "c", "d"], [["b", "a"], ["c", "b"], ["d", "c"]], "a",
        flip=[], outside_graph=[["c", "b"]],
    )  # fmt: skip
    found = sub_layout(chain, ["a", "b", "d"], "less")
    assert found.bones == (("b", "a"), ("d", "b")) and found.outside_graph == ()
    assert sub_layout(chain, ["a", "b", "c"], "less").outside_graph == (("c", "b"),)


def test_loops_through_a_joint_that_is_left_out_stay_closed():
    found = sub_layout(ROBOT, ["base", "lhip", "rhip", "lknee", "rknee", "tool"], "less")
    assert found.bones[-1] == ("lknee", "rknee") and len(found.bones) == len(ROBOT.bones) - 2
    at_root = Layout("loop", ["a", "b", "c"], [["b", "a"], ["c", "b"], ["c", "a"]], "a", flip=[])
    assert sub_layout(at_root, ["a", "b"], "less").bones == (("b", "a"),)
    ring = Layout(
        "ring", ["a", "b", "c", "d"], [["b", "a"], ["c", "b"], ["d", "a"], ["b", "d"]], "a", flip=[]
    )
    assert sub_layout(ring, ["a", "c", "d"], "less").bones == (("c", "a"), ("d", "a"))
    assert sub_layout(ring, ["a", "b", "c"], "less").bones == (("b", "a"), ("c", "b"))
    chain = [["b", "a"], ["c", "b"], ["d", "c"], ["b", "d"]]
    shorter = sub_layout(Layout("chain", list("abcd"), chain, "a", flip=[]), "acd", "less")
    assert shorter.bones == (("c", "a"), ("d", "c"), ("d", "a"))  # the root still has no parent


SMALL = ("lsp_14", "umpm_15", "coco_17", "ikea_asm_17")  # hardly more than limbs


def number_of_pieces(layout):
    """Of the graph, whose links are the bones without those outside of it."""
    links = layout.adjacency("uniform")[0] != 0
    reached = torch.linalg.matrix_power(links.double(), layout.num_joints) != 0
    return len({tuple(row.tolist()) for row in reached})


@pytest.mark.parametrize("name", layouts.names())
def test_drawn_ones_hang_together_and_keep_pairs_whole(name):
    layout = layouts.get(name)
    count = 1 if name in SMALL else 3
    drawn = SubLayouts(count, seed=5).of(layout)
    assert len({target.joints for target in drawn.values()}) == count
    assert [x.name for x in drawn.values()] == [f"{name}_sub{i + 1}" for i in range(count)]
    roots = np.flatnonzero(layout.parents.numpy() == np.arange(layout.num_joints))
    pieces = number_of_pieces(layout)
    for places, target in drawn.items():
        assert target.joints == tuple(layout.joints[v] for v in places)
        assert sorted(places) == list(places) and set(roots) <= set(places)
        assert target.center == layout.center and number_of_pieces(target) <= pieces
        own = target.parents.numpy() == np.arange(target.num_joints)
        assert own.sum() == len(roots)
        for left, right in layout.mirror_pairs:
            assert (left in target.joints) == (right in target.joints)
        assert joints_of_limbs(layout) <= set(target.joints)
        free = set(layout.joints) - joints_of_limbs(layout) - {layout.center}
        free -= {layout.joints[v] for v in roots}
        left_out = set(layout.joints) - set(target.joints)
        pairs = [set(pair) for pair in layout.mirror_pairs if set(pair) <= free]
        single = free - set().union(*map(set, layout.mirror_pairs))
        count = sum(pair <= left_out for pair in pairs) + len(single & left_out)
        assert count == max(1, round((len(pairs) + len(single)) / 2))


def joints_of_limbs(layout):
    """Those that have a part in telling where hips, knees, .. are."""
    names = ["hip", "knee", "ankle", "shoulder", "elbow", "wrist"]
    rules = dict(layout.landmarks)
    rules = [rules.get(side + name, ()) for side in "lr" for name in names]
    assert all(rules)
    return {joint for rule in rules for joint, weight in rule if weight > 0}


def test_they_follow_from_the_seed_and_the_layout():
    layout, twin = layouts.get("smpl_24"), layouts.get("smplx_42")
    kept = list(SubLayouts(4, 1).of(layout))
    assert kept[:2] == list(SubLayouts(2, 1).of(layout))
    assert kept != list(SubLayouts(4, 2).of(layout))
    assert SubLayouts(4, 2**63 - 1).of(twin)
    assert SubLayouts(0, 1).of(layout) == {}


def test_a_layout_that_has_too_few_is_refused():
    two = Layout("two", ["a", "b"], [["b", "a"]], "a", flip=[])
    assert [x.joints for x in SubLayouts(1).of(two).values()] == [("a",)]
    with pytest.raises(
        InputError, match="two, of 2 joints, has 1 different sub-layouts; give 1 at most"
    ):
        SubLayouts(2).of(two)
    with pytest.raises(InputError, match="one, of 1 joints, has 0 different sub-layouts"):
        SubLayouts(1).of(Layout("one", ["a"], [], "a", flip=[]))


@pytest.mark.parametrize("seed", range(6))
def test_draws_that_leave_no_bone_at_the_centre_are_drawn_again(seed):
    """Of the seven joints that may go, two are all that the centre has."""
    joints = ["base", "arm", "hand", *(f"p{i}" for i in range(6))]
    bones = [["arm", "base"], ["hand", "arm"], *([f"p{i}", "p0"] for i in range(1, 6))]
    layout = Layout("apart", joints, bones, "base", flip=[])
    for target in SubLayouts(4, seed).of(layout).values():
        assert {"arm", "hand"} & set(target.joints)
