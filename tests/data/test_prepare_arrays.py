"""Preparing arrays: each step by hand, the rules for bodies, and every refusal."""

from __future__ import annotations

import json

import numpy as np
import pytest

from msclr.data.prepare import prepare_arrays
from msclr.data.prepare.steps import center_bodies, fill_gaps, motion, resample, seen_joints
from msclr.data.store import open_store
from msclr.errors import InputError
from msclr.layouts import Layout

NAN = np.nan
HIP = Layout("arrays_hip_2", ["hip", "head"], [["head", "hip"]], "hip")
TIP = Layout("arrays_tip_3", ["tail", "mid", "top"], [["tail", "mid"], ["top", "mid"]], "mid")


def random_clip(layout: Layout, frames: int = 6, bodies: int | None = None, seed: int = 0):
    shape = (frames, layout.num_joints, 3)  # (T, V, 3)
    shape = shape if bodies is None else (bodies, *shape)  # (M, T, V, 3)
    return np.random.default_rng(seed).uniform(0.5, 1.5, shape)


def prepare(out, views, **options):
    """`prepare_arrays` of clips that are all training clips of class 0."""
    count = len(next(iter(views.values())))
    options = {"labels": [0] * count, "split": ["train"] * count} | options
    return prepare_arrays(out, views, **options)


def one_clip(tmp_path, layout, xyz, **options):
    """The prepared coordinates (M, T, V, 3), the body mask (M,) and the report of a single clip."""
    report = prepare(tmp_path / "out", {layout: [xyz]}, **options)
    split = open_store(tmp_path / "out").split("train")
    return np.array(split.views[layout.name][0]), split.bodies[0], report


# The steps, one by one


def test_seen_joints():
    xyz = np.array([[1.0, 0, 0], [0, 0, 0], [1, NAN, 1], [np.inf, 1, 1], [0, 0, -1e-9]])
    np.testing.assert_array_equal(seen_joints(xyz), [True, False, False, False, True])
    np.testing.assert_array_equal(seen_joints(np.array([[0, 0, 0], [0, 7, 0]])), [False, True])


def test_fill_gaps_by_hand():
    # One body, one joint, six frames; only frames 1 and 4 are seen, three frames apart.
    xyz = np.full((1, 6, 1, 3), NAN)
    xyz[0, 1, 0] = [3, 0, 9]
    xyz[0, 4, 0] = [9, 3, 0]
    filled = fill_gaps(xyz, seen_joints(xyz))
    wanted = [[3, 0, 9], [3, 0, 9], [5, 1, 6], [7, 2, 3], [9, 3, 0], [9, 3, 0]]
    np.testing.assert_allclose(filled[0, :, 0], wanted, rtol=1e-15)


def test_fill_gaps_agrees_with_interp():
    rng = np.random.default_rng(3)
    xyz = rng.normal(size=(2, 30, 5, 3))
    seen = rng.random((2, 30, 5)) < 0.4
    seen[:, 10] = True
    seen[1, :, 4] = False  # never seen: stays 0
    filled = fill_gaps(np.where(seen[..., None], xyz, NAN), seen)
    for body, joint, axis in np.ndindex(2, 5, 3):
        times = np.nonzero(seen[body, :, joint])[0]
        wanted = np.zeros(30)
        if len(times):
            wanted = np.interp(np.arange(30), times, xyz[body, times, joint, axis])
        np.testing.assert_allclose(filled[body, :, joint, axis], wanted, atol=1e-14)
    np.testing.assert_array_equal(filled[seen], xyz[seen])


def test_center_bodies_by_hand():
    # Two bodies, one frame, three joints; the centre is joint 1, the second body never shows it.
    xyz = np.array([[[[1.0, 2, 3], [1, 1, 1], [0, 0, 4]]], [[[2.0, 0, 0], [0, 0, 0], [4, 2, 0]]]])
    ever = np.array([[True, True, True], [True, False, True]])
    wanted = [[[[0, 1, 2], [0, 0, 0], [-1, -1, 3]]], [[[-1, -1, 0], [0, 0, 0], [1, 1, 0]]]]
    np.testing.assert_array_equal(center_bodies(xyz, ever, center=1), wanted)


@pytest.mark.parametrize("length", [1, 2, 5, 7, 23])
@pytest.mark.parametrize("frames", [1, 5, 8])
def test_resample_agrees_with_interp(length, frames):
    xyz = np.random.default_rng(length).normal(size=(2, length, 3, 3))
    out = resample(xyz, frames)
    assert out.shape == (2, frames, 3, 3)
    position = np.linspace(0, length - 1, frames)
    for body, joint, axis in np.ndindex(2, 3, 3):
        wanted = np.interp(position, np.arange(length), xyz[body, :, joint, axis])
        np.testing.assert_allclose(out[body, :, joint, axis], wanted, atol=1e-14)
    np.testing.assert_array_equal(out[:, 0], xyz[:, 0])
    if frames > 1:
        np.testing.assert_array_equal(out[:, -1], xyz[:, -1])


def test_motion_counts_seen_joints_only():
    xyz = np.zeros((2, 4, 2, 3))
    xyz[0, :, 0, 1] = [1, 3, 1, 3]  # variance 1
    xyz[0, :, 1, 2] = [2, 99, 6, 99]  # 2 and 6 alone: variance 4
    seen = np.ones((2, 4, 2), bool)
    seen[0, [1, 3], 1] = False
    np.testing.assert_allclose(motion(xyz, seen), [5, 0])


# Whole clips


def test_a_clean_clip(tmp_path):
    raw = random_clip(TIP, frames=9)
    xyz, bodies, report = one_clip(tmp_path, TIP, raw, frames=5, scale=0.1)
    centred = (raw - raw[:, 1:2]) * 0.1
    np.testing.assert_array_equal(xyz[0], centred[::2].astype(np.float32))  # 9 to 5: every second
    np.testing.assert_array_equal(bodies, [True])
    view = report.views[TIP.name]
    assert (view.joints, view.interpolated, view.never_seen, view.trimmed_frames) == (27, 0, 0, 0)
    assert view.reach == pytest.approx(np.linalg.norm(centred[::2], axis=-1).max())


def test_missing_joints_are_filled_before_centring(tmp_path):
    # The centre is lost in frame 1, where it is interpolated to 2; the head in frame 2, held at 5.
    raw = np.array([[[1.0] * 3, [5] * 3], [[NAN] * 3, [5] * 3], [[3] * 3, [0] * 3]])
    xyz, _, report = one_clip(tmp_path, HIP, raw, frames=3)
    np.testing.assert_allclose(xyz[0, :, 0], 0)
    np.testing.assert_allclose(xyz[0, :, 1, 0], [4, 3, 2])
    assert report.views[HIP.name].interpolated == 2


def test_frames_without_a_body_are_cut_at_the_ends_and_filled_inside(tmp_path):
    raw = random_clip(HIP, frames=7)
    raw[[0, 1, 6]] = NAN
    raw[3] = 0
    xyz, _, report = one_clip(tmp_path, HIP, raw, frames=4)
    middle = raw[2:6].copy()
    middle[1] = (middle[0] + middle[2]) / 2
    np.testing.assert_allclose(xyz[0], middle - middle[:, :1], atol=1e-6)
    view = report.views[HIP.name]
    assert (view.trimmed_frames, view.interpolated, view.joints) == (3, 2, 8)


def test_a_joint_never_seen_lies_at_the_centre(tmp_path):
    raw = random_clip(TIP)
    raw[:, 2] = NAN
    xyz, _, report = one_clip(tmp_path, TIP, raw, frames=6)
    np.testing.assert_array_equal(xyz[0, :, 2], 0)
    np.testing.assert_allclose(xyz[0, :, 0], raw[:, 0] - raw[:, 1], atol=1e-6)
    view = report.views[TIP.name]
    assert (view.never_seen, view.interpolated) == (1, 0)


def test_a_centre_never_seen_in_one_clip_is_the_mean_of_the_others(tmp_path):
    lost, whole = random_clip(TIP, seed=1), random_clip(TIP, seed=2)
    lost[:, 1] = 0
    prepare(tmp_path / "out", {TIP: [whole, lost]}, frames=6)
    xyz = open_store(tmp_path / "out").split("train").views[TIP.name]
    mean = lost[:, [0, 2]].mean(axis=1)
    np.testing.assert_allclose(xyz[1, 0, :, 0], lost[:, 0] - mean, atol=1e-6)
    np.testing.assert_array_equal(xyz[1, 0, :, 1], 0)


def test_a_centre_that_is_nan_throughout_is_the_mean_of_the_others(tmp_path):
    raw = random_clip(TIP)
    raw[:, 1] = NAN
    xyz, _, report = one_clip(tmp_path, TIP, raw, frames=6)
    wanted = raw[:, 2] - raw[:, [0, 2]].mean(axis=1)
    np.testing.assert_allclose(xyz[0, :, 2], wanted, atol=1e-6)
    assert report.views[TIP.name].never_seen == 1


def test_clips_whose_centre_is_always_zero_are_taken_as_centred(tmp_path):
    raw = random_clip(TIP) + 2
    raw[:, 1] = 0
    raw[2] = NAN
    xyz, _, report = one_clip(tmp_path, TIP, raw, frames=6)
    raw[2] = (raw[1] + raw[3]) / 2
    np.testing.assert_allclose(xyz[0], raw, atol=1e-6)
    assert report.views[TIP.name].never_seen == 0


def test_integer_millimetres(tmp_path):
    raw = (random_clip(HIP) * 1000).astype(np.int16)
    raw[2, 1] = 0
    xyz, _, report = one_clip(tmp_path, HIP, raw, frames=6, scale=0.001)
    head = raw[:, 1].astype(float)
    head[2] = (head[1] + head[3]) / 2
    np.testing.assert_allclose(xyz[0, :, 1], (head - raw[:, 0]) / 1000, atol=1e-6)
    assert report.views[HIP.name].interpolated == 1


def test_views_may_differ_in_length(tmp_path):
    hip, tip = random_clip(HIP, frames=3), random_clip(TIP, frames=11)
    prepare(tmp_path / "out", {HIP: [hip], TIP: [tip]}, frames=4)
    views = open_store(tmp_path / "out").split("train").views
    for layout, raw in ((HIP, hip), (TIP, tip)):
        wanted = resample((raw - raw[:, [layout.center_index]])[None], 4)
        np.testing.assert_allclose(views[layout.name][0], wanted, atol=1e-6)


def test_views_by_name_and_input_left_alone(tmp_path):
    raw = np.random.default_rng(0).normal(size=(4, 25, 3))
    raw[1, 3] = NAN
    before = raw.copy()
    prepare(tmp_path / "out", {"ntu-rgb+d": [raw]})  # an alias
    np.testing.assert_array_equal(raw, before)
    assert open_store(tmp_path / "out").split("train").views["kinectv2_25"].shape[2:] == (50, 25, 3)


def test_splits_labels_names_and_classes(tmp_path):
    clips = [random_clip(HIP, seed=i) for i in range(4)]
    report = prepare_arrays(
        tmp_path / "out",
        {HIP: clips},
        labels=np.array([2, 0, 1, 2]),
        split=np.array(["val", "train", "train", "val"]),
        names=["a", "b", "c", "d"],
        classes=["x", "y", "z", "never"],
        frames=6,
        name="four",
        source="a test",
    )
    store = open_store(tmp_path / "out")
    val = store.split("val")
    assert (val.names, val.labels.tolist()) == (["a", "d"], [2, 2])
    np.testing.assert_allclose(val.views[HIP.name][1, 0], clips[3] - clips[3][:, :1], atol=1e-6)
    assert store.split("train").names == ["b", "c"]
    assert (store.meta["name"], store.meta["source"]) == ("four", "a test")
    assert report.per_class == {"train": [1, 1, 0, 0], "val": [0, 0, 2, 0]}
    assert store.meta["report"] == json.loads(json.dumps(report.to_dict()))
    assert store.meta["report"]["clips"] == {"train": 2, "val": 2}


def test_defaults(tmp_path):
    clips = [random_clip(HIP, seed=i) for i in range(2)]
    prepare(tmp_path / "out", {HIP: clips}, labels=[0, 2])
    store = open_store(tmp_path / "out")
    assert store.split("train").names == ["clip0", "clip1"]
    assert store.classes == ["0", "1", "2"]
    assert (store.meta["name"], store.frames, store.bodies) == ("out", 50, 1)


# Bodies


def test_bodies_by_default_are_those_of_the_fullest_clip(tmp_path):
    alone, pair = random_clip(HIP), random_clip(HIP, bodies=3)
    pair[1] = 0  # no body; the third moves up
    prepare(tmp_path / "out", {HIP: [alone, pair]}, frames=6)
    split = open_store(tmp_path / "out").split("train")
    np.testing.assert_array_equal(split.bodies, [[True, False], [True, True]])
    assert not split.views[HIP.name][0, 1].any()
    wanted = (pair - pair[:, :, :1])[[0, 2]]
    np.testing.assert_allclose(split.views[HIP.name][1], wanted, atol=1e-6)


def test_more_bodies_than_asked_for_keep_the_most_moving_in_order(tmp_path):
    raw = random_clip(HIP, bodies=3, frames=5)
    still = raw[:, :1]
    clip = still + (raw - still) * np.array([2.0, 0.1, 3.0])[:, None, None, None]
    xyz, bodies, report = one_clip(tmp_path, HIP, clip, bodies=2, frames=5)
    np.testing.assert_allclose(xyz, (clip - clip[:, :, :1])[[0, 2]], atol=1e-6)
    np.testing.assert_array_equal(bodies, [True, True])
    assert report.surplus_bodies == 1


def test_frames_that_only_a_dropped_body_has_are_cut(tmp_path):
    clip = np.ones((2, 6, 2, 3))
    clip[0, :, 1] += np.arange(6)[:, None]  # moves
    clip[0, :2] = 0
    _, _, report = one_clip(tmp_path, HIP, clip, bodies=1)
    assert report.views[HIP.name].trimmed_frames == 2


def test_bodies_beyond_those_found_stay_empty(tmp_path):
    xyz, bodies, _ = one_clip(tmp_path, HIP, random_clip(HIP), bodies=3)
    np.testing.assert_array_equal(bodies, [True, False, False])
    assert xyz.shape[0] == 3
    assert not xyz[1:].any()


def test_a_body_that_one_view_lacks_is_dropped_from_all(tmp_path):
    hip, tip = random_clip(HIP, bodies=2), random_clip(TIP, bodies=2)
    tip[0] = NAN
    report = prepare(tmp_path / "out", {HIP: [hip], TIP: [tip]}, frames=6, bodies=2)
    split = open_store(tmp_path / "out").split("train")
    np.testing.assert_array_equal(split.bodies, [[True, False]])
    wanted = hip[1] - hip[1, :, :1]
    np.testing.assert_allclose(split.views[HIP.name][0, 0], wanted, atol=1e-6)
    assert not split.views[HIP.name][0, 1].any()
    assert report.unmatched_bodies == 1


# The report


def test_report_lines(tmp_path):
    clips = [random_clip(HIP, bodies=3, frames=5, seed=i) * 1000 for i in range(3)]
    clips[0][0, 1, 1] = NAN
    report = prepare(
        tmp_path / "out", {HIP: clips}, labels=[0, 0, 2], classes=["sit", "bow", "run"], bodies=3
    )
    text = "\n".join(report.lines())
    assert "3 clips (train 3, val 0) of 3 classes, 50 frames, bodies per clip: 3" in text
    assert "train: 0 to 2 clips a class" in text
    report.per_class["train"] = [1, 1, 1]
    assert "train: 1 clip a class" in "\n".join(report.lines())
    assert "arrays_hip_2: 1 of 90 joints interpolated (1.11 %)" in text
    assert "is arrays_hip_2 in metres?" in text
    assert "note: train has no clip of 1 classes: bow" in text
    assert "note: val is empty" in text
    assert "dropped" not in text


def test_report_has_no_note_where_all_is_well(tmp_path):
    pair = Layout("arrays_pair_3", ["hip", "lhand", "rhand"], [["lhand", "hip"]], "hip")
    clips = [random_clip(pair, seed=i) for i in range(2)]
    report = prepare(tmp_path / "out", {pair: clips}, split=["train", "val"])
    assert not [line for line in report.lines() if line.startswith("note")]


# Refusals


CLIP = random_clip(HIP)
EMPTY = np.full((3, 2, 3), NAN)
LEFT, RIGHT = random_clip(HIP, bodies=2), random_clip(TIP, bodies=2)
LEFT[0], RIGHT[1] = 0, 0


@pytest.mark.parametrize(
    ("views", "options", "message"),
    [
        ({}, {}, "there is no view"),
        ({HIP: []}, {}, "there are no clips"),
        ({"no_such_layout": [CLIP]}, {}, "unknown layout 'no_such_layout'"),
        ({"kinectv2_25": [np.ones((2, 25, 3))], "ntu-rgb+d": [np.ones((2, 25, 3))]}, {}, "twice"),
        ({HIP: [CLIP, CLIP]}, {"labels": [0], "split": ["train"]}, "2 clips, but there are 1 lab"),
        ({HIP: [CLIP]}, {"labels": [0.0]}, "labels are float64"),
        ({HIP: [CLIP]}, {"labels": [True]}, "labels are bool"),
        ({HIP: [CLIP]}, {"labels": [[0]]}, r"of shape \(1, 1\)"),
        ({HIP: [CLIP]}, {"labels": [-1]}, "label -1 is negative"),
        ({HIP: [CLIP]}, {"labels": [2**40]}, "label 1099511627776 is too large"),
        ({HIP: [CLIP]}, {"labels": [3], "classes": ["a"]}, "label is 3, but classes holds 1 name"),
        ({HIP: [CLIP]}, {"split": ["test"]}, "split holds 'test'"),
        ({HIP: [CLIP]}, {"split": ["val"]}, "no clip is in 'train'"),
        ({HIP: [CLIP]}, {"split": ["train"] * 2}, "1 labels but 2 split"),
        ({HIP: [CLIP]}, {"split": [0]}, "split holds 0, which is no text"),
        ({HIP: [CLIP] * 2}, {"names": ["a", "a"]}, "'a' stands for several clips"),
        ({HIP: [CLIP]}, {"names": []}, "1 labels but 0 names"),
        ({HIP: [CLIP]}, {"frames": 0}, "frames is 0"),
        ({HIP: [CLIP]}, {"frames": 2.5}, "frames is 2.5"),
        ({HIP: [CLIP]}, {"bodies": 0}, "bodies is 0"),
        ({HIP: [CLIP]}, {"scale": 0}, "scale is 0"),
        ({HIP: [CLIP]}, {"scale": NAN}, "scale is nan"),
        ({HIP: [CLIP, CLIP[:, 0]]}, {}, r"clip 1 \('clip1'\) .*shape \(6, 3\); wanted \(T, V, 3\)"),
        ({HIP: [CLIP[..., :2]]}, {}, r"shape \(6, 2, 2\); wanted"),
        ({HIP: [random_clip(TIP)]}, {}, "view arrays_hip_2 has 3 joints, but the layout has 2"),
        ({HIP: [CLIP[:0]]}, {}, r"clip 0 \('clip0'\) in view arrays_hip_2 has no frame"),
        ({HIP: [CLIP.astype(str)]}, {}, "holds <U"),
        ({HIP: [[[[1, 2, 3]], [[1]]]]}, {}, "is no array"),
        (
            {HIP: [random_clip(HIP, bodies=2)], TIP: [random_clip(TIP)]},
            {"names": ["walk"]},
            r"clip 0 \('walk'\) has 2 bodies in view arrays_hip_2 but 1 in view arrays_tip_3",
        ),
        (
            {HIP: [CLIP, EMPTY, EMPTY]},
            {},
            r"clip 1 \('clip1'\) has no body in view arrays_hip_2: .* miss",
        ),
        ({HIP: [LEFT], TIP: [RIGHT]}, {}, "has no body that each of its views has"),
        ({HIP: [CLIP * 1e300]}, {}, "too large for float32 in view arrays_hip_2"),
        ({HIP: [CLIP * [1e308, -1e308, 1]]}, {"scale": 10}, "too large for float32"),
    ],
)
def test_refusals_say_what_and_leave_nothing(tmp_path, views, options, message):
    count = len(next(iter(views.values()), [CLIP]))
    options = {"labels": [0] * count, "split": ["train"] * count} | options
    with pytest.raises(InputError, match=message) as caught:
        prepare_arrays(tmp_path / "out", views, **options)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_occupied_folder_is_refused_before_all_else(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="exists and is not empty"):
        prepare_arrays(tmp_path, {}, [], [])


def test_a_failure_while_writing_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr(np, "save", fail)
    with pytest.raises(OSError, match="no space left"):
        prepare(tmp_path / "out", {HIP: [CLIP]})
    assert list(tmp_path.iterdir()) == []
