"""The generated data set: shapes, seeds, splits, and bodies that move as bodies do."""

import os
import subprocess
import sys

import numpy as np
import pytest

from msclr import layouts
from msclr.data import toy
from msclr.data.toy import conventions
from msclr.errors import InputError

LAYOUTS = ("kinectv2_25", "smpl_24", "smplx_42", "berkeley_mhad_43")
CLASSES = 20
TWO_PEOPLE = {"shake hands", "give", "push", "hug", "kick other"}


@pytest.fixture(scope="module")
def clips() -> dict:
    return toy.generate(100, seed=3)


def joint(clip: np.ndarray, layout: str, name: str) -> np.ndarray:
    """One joint of a clip (M, T, V, 3) -> (M, T, 3), NaN where it is missing."""
    xyz = clip[:, :, toy.SENSORS[layout].joints.index(name)]
    return np.where((xyz == 0).all(-1, keepdims=True), np.nan, xyz)


def named(clips: dict, name: str) -> list[int]:
    """The numbers of the clips of a class."""
    return np.flatnonzero(clips["labels"] == clips["classes"].index(name)).tolist()


def test_shapes_and_types(clips):
    assert list(clips["views"]) == list(LAYOUTS)
    assert clips["labels"].shape == (100,) and clips["labels"].dtype == np.int64
    assert len(clips["split"]) == len(clips["names"]) == len(set(clips["names"])) == 100
    assert len(clips["classes"]) == len(set(clips["classes"])) == CLASSES
    lengths = [view.shape[1] for view in clips["views"]["smpl_24"]]
    assert min(lengths) >= 40 and max(lengths) <= 110 and len(set(lengths)) > 20
    for layout, views in clips["views"].items():
        joints = int(layout.rsplit("_", 1)[1])
        for view, length in zip(views, lengths, strict=True):
            assert view.dtype == np.float32
            assert view.shape[1:] == (length, joints, 3)
            assert np.isfinite(view).all()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_joints_are_in_the_order_of_the_layout(layout):
    assert toy.SENSORS[layout].joints == layouts.get(layout).joints


def test_two_people_where_the_action_needs_two_and_both_move(clips):
    for label, view in zip(clips["labels"], clips["views"]["berkeley_mhad_43"], strict=True):
        two = clips["classes"][label] in TWO_PEOPLE
        assert len(view) == 1 + two
        seen = np.where((view == 0).all(-1, keepdims=True), np.nan, view)
        travel = np.nanmax(np.nanmax(seen, 1) - np.nanmin(seen, 1), (1, 2))
        assert (travel > 0.15).all()


def test_the_same_seed_gives_the_same_clips_and_fewer_are_a_prefix(clips):
    fewer = toy.generate(70, seed=3)
    for layout in LAYOUTS:
        for a, b in zip(fewer["views"][layout], clips["views"][layout][:70], strict=True):
            np.testing.assert_array_equal(a, b)
    assert fewer["labels"].tolist() == clips["labels"][:70].tolist()
    assert fewer["split"] == clips["split"][:70] and fewer["names"] == clips["names"][:70]


def test_another_process_generates_the_same_clips():
    """Sets of text are in another order in each."""
    code = (
        "import hashlib; from msclr.data import toy\n"
        "x = toy.generate(60, layouts=['kinectv2_25'])['views']['kinectv2_25']\n"
        "print(hashlib.sha256(b''.join(clip.tobytes() for clip in x)).hexdigest())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in "0123"
    }
    assert len(found) == 1


def test_a_view_is_the_same_whichever_others_are_asked_for(clips):
    alone = toy.generate(5, seed=3, layouts=["smplx_42"])
    assert list(alone["views"]) == ["smplx_42"]
    for a, b in zip(alone["views"]["smplx_42"], clips["views"]["smplx_42"][:5], strict=True):
        np.testing.assert_array_equal(a, b)


def test_seeds_and_clips_differ(clips):
    other = toy.generate(41, seed=4)["views"]["smpl_24"]
    mine = clips["views"]["smpl_24"]
    assert not any(np.array_equal(a, b) for a, b in zip(other, mine, strict=False))
    assert not np.array_equal(mine[0][:, :40], mine[CLASSES][:, :40])  # one class, two clips


def test_splits_share_no_subject_and_hold_every_class():
    data = toy.generate(60, layouts=["smpl_24"])
    subjects = {"train": set(), "val": set()}
    labels = {"train": set(), "val": set()}
    for name, split, label in zip(data["names"], data["split"], data["labels"], strict=True):
        subjects[split].add(name.split("_")[2])
        labels[split].add(int(label))
    assert len(subjects["train"]) == 12 and len(subjects["val"]) == 8
    assert not subjects["train"] & subjects["val"]
    assert labels["train"] == labels["val"] == set(range(CLASSES))


def test_people_are_as_tall_as_people_and_on_their_feet(clips):
    for i in named(clips, "wave") + named(clips, "punch"):
        view = clips["views"]["berkeley_mhad_43"][i]
        head = np.nanmedian(joint(view, "berkeley_mhad_43", "head"), 1)
        heel = np.nanmedian(joint(view, "berkeley_mhad_43", "lhee"), 1)
        assert 1.4 < np.linalg.norm(head - heel, axis=-1).item() < 2.1
        assert (head - heel)[0, 1] > 1.3  # y is up


def test_conventions_see_one_motion(clips):
    for name in ("lwri", "rwri"):
        for other in LAYOUTS[1:]:
            apart = np.concatenate([
                (joint(a, LAYOUTS[0], name) - joint(b, other, name)).reshape(-1, 3)
                for a, b in zip(clips["views"][LAYOUTS[0]], clips["views"][other], strict=True)
            ])  # fmt: skip
            distance = np.linalg.norm(apart, axis=1)
            assert np.nanmedian(distance) < 0.06
            assert np.nanmax(distance) < 0.16  # a hand goes half a metre and more
            assert np.abs(np.nanmean(apart, 0)).max() < 0.04


def test_conventions_place_their_joints_differently(clips):
    """Kinect puts the hips of standing people higher than SMPL, beyond what noise explains."""
    higher = []
    for i in named(clips, "wave") + named(clips, "clap") + named(clips, "point"):
        kinect, smpl = (clips["views"][layout][i] for layout in ("kinectv2_25", "smpl_24"))
        gap = joint(kinect, "kinectv2_25", "lhip") - joint(smpl, "smpl_24", "lhip")
        higher.append(np.nanmean(gap[..., 1]))
    assert 0.045 < np.mean(higher) < 0.1


BONES = [("lsho", "lelb"), ("relb", "rwri"), ("rhip", "rkne"), ("lkne", "lank"), ("lank", "lhee")]


def lengths(view: np.ndarray, bone: tuple[str, str]) -> np.ndarray:
    start, end = (joint(view, "smplx_42", name) for name in bone)
    return np.linalg.norm(start - end, axis=-1)  # (M, T)


@pytest.mark.parametrize("bone", BONES)
def test_bones_keep_their_length_up_to_noise(clips, bone):
    for view in clips["views"]["smplx_42"]:
        length = lengths(view, bone)
        assert 0.04 < np.nanmedian(length) < 0.6
        assert np.nanstd(length, axis=1).max() < 0.03


@pytest.mark.parametrize("bone", BONES)
def test_bones_are_rigid_without_the_errors_of_the_sensor(monkeypatch, bone):
    for error in ("PLACEMENT", "FITTING"):
        monkeypatch.setattr(conventions, error, 0.0)
    monkeypatch.setitem(conventions.JITTER, "smplx_42", 0.0)
    monkeypatch.setitem(toy.SENSORS, "smplx_42", conventions._sensor("smplx_42"))
    for view in toy.generate(CLASSES, layouts=["smplx_42"])["views"]["smplx_42"]:
        assert np.nanstd(lengths(view, bone), axis=1).max() < 1e-5


def test_some_joints_are_missing_for_a_few_frames(clips):
    frames = [int((v == 0).all(-1).sum(1).max()) for v in clips["views"]["kinectv2_25"]]
    assert 10 < sum(n > 0 for n in frames) < 60
    assert max(frames) <= 5


def test_standing_up_is_sitting_down_in_reverse(clips):
    """The pelvis sinks towards the feet in one and rises in the other."""
    for name, sign in (("sit down", -1), ("stand up", 1)):
        for i in named(clips, name):
            view = clips["views"]["smplx_42"][i]
            gap = joint(view, "smplx_42", "pelv") - joint(view, "smplx_42", "lank")
            height = np.linalg.norm(gap, axis=-1)[0]
            assert sign * (np.nanmean(height[-5:]) - np.nanmean(height[:5])) > 0.1


def test_people_are_seen_from_many_sides(clips):
    angles = []
    for view in (v for v in clips["views"]["smplx_42"] if len(v) == 1):
        hips = joint(view, "smplx_42", "lhip") - joint(view, "smplx_42", "rhip")
        across = np.nanmedian(hips[0], 0)
        angles.append(np.arctan2(across[2], across[0]))
    assert abs(np.exp(1j * np.array(angles)).mean()) < 0.8  # 1 where all face the same way


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"clips": 0}, "clips is 0"),
        ({"clips": 5, "seed": -1}, "seed is -1"),
        ({"clips": 5, "layouts": []}, "layouts is empty"),
        ({"clips": 5, "layouts": ["kinectv2"]}, "layouts has 'kinectv2'"),
    ],
)
def test_bad_input_is_refused(arguments, message):
    with pytest.raises(InputError, match=message) as caught:
        toy.generate(**arguments)
    assert "\n" not in str(caught.value)
