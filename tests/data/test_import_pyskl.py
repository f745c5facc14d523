"""pyskl's pickles: three and two dimensions, choice of splits, what is left out, refusals."""

from __future__ import annotations

import pickle
import tracemalloc

import numpy as np
import pytest

from msclr.data.prepare.arrays import prepare_arrays
from msclr.data.prepare.pyskl import prepare_pyskl
from msclr.data.store import open_store
from msclr.errors import InputError
from tests.tiny import same_files

TRAIN, VAL = ["c", "a", "e"], ["b"]
HEIGHT, WIDTH = 480, 640


def annotation(name: str, bodies: int = 1, seed: int = 0, joints: int = 25, **changes) -> dict:
    xyz = np.random.default_rng(seed).uniform(0.5, 1.5, (bodies, 7, joints, 3))
    fields = {"frame_dir": name, "label": seed % 3, "total_frames": 7}
    fields |= {"keypoint": xyz.astype("f2")} | changes
    return {key: value for key, value in fields.items() if value is not None}


def flat(name: str, seed: int = 0, **changes) -> dict:
    """A clip of two dimensions: (M, T, 17, 2) pixels, and the scores."""
    rng = np.random.default_rng(seed)
    fields = {
        "keypoint": (rng.random((2, 7, 17, 2)) * [WIDTH, HEIGHT]).astype("f2"),
        "keypoint_score": rng.uniform(0.1, 1, (2, 7, 17)).astype("f2"),
        "img_shape": (HEIGHT, WIDTH),
        "original_shape": (HEIGHT, WIDTH),
    }
    return annotation(name, seed=seed, **fields | changes)


def write(tmp_path, annotations=None, split=None, protocol: int = 4):
    if annotations is None:
        annotations = [annotation(name, 1 + i % 2, i) for i, name in enumerate("abcde")]
    split = {"xsub_train": TRAIN, "xsub_val": VAL} if split is None else split
    path = tmp_path / "clips.pkl"
    path.write_bytes(pickle.dumps({"split": split, "annotations": annotations}, protocol))
    return path


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("dtype", ["f2", "f4"])
def test_a_file_is_the_same_as_its_clips_as_arrays(tmp_path, protocol, dtype):
    clips = [annotation(name, 1 + i % 2, i) for i, name in enumerate("abcde")]
    for clip in clips:
        clip["keypoint"] = clip["keypoint"].astype(dtype)
    clips[0]["keypoint"][0, 3] = 0  # no body in this frame
    prepare_pyskl(tmp_path / "out", write(tmp_path, clips, protocol=protocol), frames=5)
    raw = {clip["frame_dir"]: np.array(clip["keypoint"], float) for clip in clips}
    padded = [np.concatenate([raw[x], np.zeros((2 - len(raw[x]), 7, 25, 3))]) for x in "aceb"]
    prepare_arrays(
        tmp_path / "wanted",
        {"kinectv2_25": padded},
        [0, 2, 1, 1],
        ["train"] * 3 + ["val"],
        names=list("aceb"),
        frames=5,
        frame="camera",
    )
    same_files(tmp_path / "out", tmp_path / "wanted")
    store = open_store(tmp_path / "out")
    assert (store.coordinates, store.classes, store.bodies) == ("xyz", ["0", "1", "2"], 2)


def test_a_joint_at_0_is_measured(tmp_path):
    clip = annotation("a")
    clip["keypoint"][:, :, 3] = 0
    path = write(tmp_path, [clip, annotation("b")], {"train": ["a"], "val": ["b"]})
    prepare_pyskl(tmp_path / "out", path, frames=7)
    xyz = open_store(tmp_path / "out").split("train").views["kinectv2_25"][0, 0]
    np.testing.assert_allclose(xyz[:, 3], -clip["keypoint"][0, :, 20].astype("f4"), atol=1e-6)


def test_scores_of_three_dimensions_tell_what_is_missing(tmp_path):
    score = np.ones((1, 7, 25), "f4")
    score[0, 2, 5] = 0
    clip = annotation("a", keypoint_score=score)
    wanted = clip["keypoint"][0].astype(float)
    wanted[2, 5] = (wanted[1, 5] + wanted[3, 5]) / 2
    path = write(tmp_path, [clip, annotation("b")], {"train": ["a"], "val": ["b"]})
    report = prepare_pyskl(tmp_path / "out", path, frames=7)
    xyz = open_store(tmp_path / "out").split("train").views["kinectv2_25"][0, 0]
    np.testing.assert_allclose(xyz, wanted - wanted[:, 20:21], atol=1e-6)
    assert report.views["kinectv2_25"].interpolated == 1


# Two dimensions


def test_two_dimensions_by_hand(tmp_path):
    """The corners of the image are at -1 and 1, its middle at 0, the score is as it was."""
    first, second = flat("a"), flat("b")
    first["keypoint"][0, :, :3] = [[0, 0], [WIDTH, HEIGHT], [WIDTH / 2, HEIGHT / 4]]
    path = write(tmp_path, [first, second], {"train": ["a"], "val": ["b"]})
    report = prepare_pyskl(tmp_path / "out", path, frames=7)
    store = open_store(tmp_path / "out")
    xys = store.split("train").views["coco_17"][0]  # (M, T, V, 3)
    np.testing.assert_array_equal(xys[0, 4, :3, :2], [[-1, -1], [1, 1], [0, -0.5]])
    np.testing.assert_array_equal(xys[..., 2], first["keypoint_score"].astype("f4"))
    assert (store.coordinates, store.meta["coordinates"]) == ("xy_score", "xy_score")
    assert store.meta["units"] == "half of the image's width and height, from its middle"
    text = "\n".join(report.lines())
    assert "half images from its middle" in text
    assert "metres" not in text


def test_joints_without_a_score_are_filled_and_keep_their_score(tmp_path):
    clip = flat("a")
    clip["keypoint_score"][0, 2, 5] = 0
    clip["keypoint"][0, 2, 5] = 9999  # whatever an estimator leaves there
    clip["keypoint_score"][0, :, 6] = 0
    path = write(tmp_path, [clip, flat("b")], {"train": ["a"], "val": ["b"]})
    report = prepare_pyskl(tmp_path / "out", path, frames=13)  # every frame, and between two
    xys = open_store(tmp_path / "out").split("train").views["coco_17"][0, 0]  # (T, V, 3)
    half = np.array([WIDTH, HEIGHT]) / 2
    xy = (clip["keypoint"][0].astype(float) - half) / half
    xy[2, 5] = (xy[1, 5] + xy[3, 5]) / 2
    np.testing.assert_allclose(xys[::2, :6, :2], xy[:, :6], atol=1e-6)
    np.testing.assert_allclose(xys[1::2, :6, :2], (xy[1:, :6] + xy[:-1, :6]) / 2, atol=1e-6)
    score = clip["keypoint_score"][0].astype("f4")
    np.testing.assert_array_equal(xys[::2, :, 2], score)
    np.testing.assert_allclose(xys[1::2, :, 2], (score[1:] + score[:-1]) / 2, atol=1e-6)
    assert not xys[:, 6].any()  # never seen
    assert (report.views["coco_17"].interpolated, report.views["coco_17"].never_seen) == (1, 1)


def test_the_most_moving_bodies_by_place_and_not_by_score(tmp_path):
    clip = flat("a", keypoint=np.full((2, 7, 17, 2), 100.0))
    clip["keypoint"][1] += np.arange(7)[:, None, None]
    clip["keypoint_score"] = np.full((2, 7, 17), 0.5)
    clip["keypoint_score"][0] += np.arange(7)[:, None]
    path = write(tmp_path, [clip, flat("b")], {"train": ["a"], "val": ["b"]})
    prepare_pyskl(tmp_path / "out", path, frames=7, bodies=1)
    xys = open_store(tmp_path / "out").split("train").views["coco_17"][0, 0]
    np.testing.assert_array_equal(xys[..., 2], 0.5)


def test_two_dimensions_without_scores(tmp_path):
    clips = [flat(name, keypoint_score=None) for name in "ab"]
    clips[0]["keypoint"][1, :, 4] = 0
    path = write(tmp_path, clips, {"train": ["a"], "val": ["b"]})
    prepare_pyskl(tmp_path / "out", path)
    xys = np.array(open_store(tmp_path / "out").split("train").views["coco_17"])
    assert not xys[0, 1, :, 4].any()
    xys[0, 1, :, 4, 2] = 1
    np.testing.assert_array_equal(xys[..., 2], 1)


# Splits and layouts


@pytest.mark.parametrize(
    ("names", "protocol", "chosen"),
    [
        (["train", "val"], None, ("train", "val")),
        (["train", "test"], None, ("train", "test")),
        (["train", "val", "test"], None, ("train", "val")),
        (["sub_train", "sub_val"], None, ("sub_train", "sub_val")),
        (
            ["xsub_train", "xsub_val", "xview_train", "xview_val"],
            "xview",
            ("xview_train", "xview_val"),
        ),
        (["train1", "test1", "train2", "test2"], "2", ("train2", "test2")),
        (["train", "val", "xset_train", "xset_val"], "", ("train", "val")),
        (["xsub_train", "xsub_val", "all"], "xsub", ("xsub_train", "xsub_val")),
    ],
)
def test_the_pair_of_splits(tmp_path, names, protocol, chosen):
    content = dict.fromkeys(names, ["e"]) | {chosen[0]: ["a", "b"], chosen[1]: np.array(["c"])}
    prepare_pyskl(tmp_path / "out", write(tmp_path, split=content), protocol=protocol)
    store = open_store(tmp_path / "out")
    assert (store.split("train").names, store.split("val").names) == (["a", "b"], ["c"])
    assert f"{chosen[0]} and {chosen[1]}" in store.meta["source"]


@pytest.mark.parametrize(
    ("names", "protocol", "message"),
    [
        (["xsub_train", "xsub_val", "xset_train", "xset_val"], None,
         r"several protocols; choose one of 'xsub' \(xsub_train and xsub_val\), 'xset'"),
        (["xsub_train", "xsub_val"], "xview", "no protocol 'xview'; choose one of 'xsub'"),
        (["train"], None, "has the splits train; wanted a pair such as xsub_train"),
        ([], None, "has the splits none; wanted a pair"),
    ],
)  # fmt: skip
def test_no_pair_of_splits(tmp_path, names, protocol, message):
    path = write(tmp_path, split=dict.fromkeys(names, ["a"]))
    with pytest.raises(InputError, match=message):
        prepare_pyskl(tmp_path / "out", path, protocol=protocol)


def test_layout_given_or_from_the_joints(tmp_path):
    prepare_pyskl(tmp_path / "given", write(tmp_path), layout="kinectv2_25_pyskl")
    assert list(open_store(tmp_path / "given").layouts) == ["kinectv2_25_pyskl"]
    clips = [annotation(name, joints=18, keypoint=np.ones((1, 7, 18, 2))) for name in "ab"]
    for clip in clips:
        clip["img_shape"] = (4, 4)
    prepare_pyskl(tmp_path / "flat", write(tmp_path, clips, {"train": ["a"], "val": ["b"]}))
    assert list(open_store(tmp_path / "flat").layouts) == ["openpose_18"]
    clips = [annotation(name, joints=17) for name in "ab"]
    with pytest.raises(InputError, match="17 joints, as .*h36m_17.*; name its layout"):
        prepare_pyskl(tmp_path / "no", write(tmp_path, clips, {"train": ["a"], "val": ["b"]}))
    with pytest.raises(InputError, match="has 25 joints, but the layout has 17"):
        prepare_pyskl(tmp_path / "no", write(tmp_path), layout="coco_17")


def test_what_is_left_out_is_counted(tmp_path):
    names = [f"c{i}" for i in range(40)]
    clips = [annotation(name) for name in names]
    clips[1]["keypoint"][:] = 0
    clips[2]["keypoint"] = np.zeros((0, 7, 25, 3), "f2")
    path = write(tmp_path, clips, {"train": [*names[:30], "gone"], "val": [*names[30:], "lost"]})
    report = prepare_pyskl(tmp_path / "out", path)
    store = open_store(tmp_path / "out")
    assert (store.split("train").names, store.split("val").names) == (
        ["c0", *names[3:30]],
        names[30:],
    )
    wanted = {
        "in a split, without an annotation": ["gone", "lost"],
        "no body in view kinectv2_25": ["c1", "c2"],
    }
    assert report.left_out == store.meta["report"]["left_out"] == wanted
    assert "2 left out: no body in view kinectv2_25 (c1, c2)" in report.lines()
    clips[3]["keypoint"][:] = np.nan
    path = write(tmp_path, clips, {"train": names[:30], "val": names[30:]})
    with pytest.raises(InputError, match=r"3 of 40 clips cannot be used.*'c1'.* and c2, c3; mend"):
        prepare_pyskl(tmp_path / "more", path)
    for content in (
        {"train": [*names[4:30], "gone"], "val": names[30:]},
        {"train": names[2:30], "val": names[30:]},
    ):
        with pytest.raises(InputError, match="strict allows none: .*(gone|c2)"):
            prepare_pyskl(tmp_path / "strict", write(tmp_path, clips, content), strict=True)


def test_two_dimensional_clips_without_a_score_have_no_body(tmp_path):
    clips = [flat(name) for name in "abc"]
    clips[0]["keypoint_score"][:] = 0
    report = prepare_pyskl(
        tmp_path / "out", write(tmp_path, clips, {"train": ["a", "b"], "val": ["c"]})
    )
    assert report.left_out == {"no body in view coco_17": ["a"]}


# Refusals


GOOD = [annotation(name) for name in "abcde"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keypoint": None}, "'a' has keypoint None; wanted numbers"),
        ({"keypoint": [[1]]}, r"'a' has keypoint \[\[1\]\]; wanted numbers of shape"),
        ({"keypoint": np.ones((7, 25, 3))}, r"'a' has keypoint float64 \(7, 25, 3\)"),
        ({"keypoint": np.ones((1, 7, 25, 4))}, r"keypoint \(1, 7, 25, 4\); wanted .* C = 2 or 3"),
        ({"keypoint": np.full((1, 7, 25, 3), "x")}, "'a' has keypoint <U1"),
        ({"total_frames": 8}, r"'a' has total_frames 8, but keypoint \(1, 7, 25, 3\)"),
        ({"total_frames": [7]}, r"'a' has total_frames \[7\]"),
        ({"label": "walk"}, "'a' has the label 'walk'; wanted an integer"),
        ({"label": True}, "'a' has the label True"),
        ({"label": None}, "'a' has the label None"),
        ({"label": -1}, "label -1 is negative"),
        ({"keypoint_score": np.ones((1, 7))}, r"keypoint_score float64 \(1, 7\); wanted .*7, 25"),
        ({"keypoint_score": [1]}, r"keypoint_score \[1\]; wanted"),
        ({"frame_dir": None}, "annotation 0 has no frame_dir"),
        ({"frame_dir": "b"}, "'b' has several annotations"),
        ({"keypoint": np.arange(525.0).reshape(1, 7, 25, 3) * 1e300}, "too large for float32"),
    ],
)  # fmt: skip
def test_annotations_that_are_wrong(tmp_path, changes, message):
    path = write(
        tmp_path, [annotation("a", **changes), *GOOD[1:]], {"train": ["a", "c"], "val": ["b"]}
    )
    with pytest.raises(InputError, match=message) as caught:
        prepare_pyskl(tmp_path / "out", path)
    assert "\n" not in str(caught.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["clips.pkl"]


@pytest.mark.parametrize(
    ("annotations", "split", "message"),
    [
        (GOOD, {"train": ["a"], "val": ["a"]}, "'a' is twice in its splits"),
        (GOOD, {"train": ["a", "a"], "val": ["b"]}, "'a' is twice in its splits"),
        (GOOD, {"train": ["a"], "val": []}, "has no clip with a body for val; give at least one"),
        (
            GOOD,
            {"train": ["x", "y"], "val": ["a"]},
            "none of the names in train has an .*first is 'x', among the annotations 'a'",
        ),
        ([], {"train": ["x"], "val": ["a"]}, "none of the names in train .*there is none at all"),
        (GOOD, {"train": "a", "val": ["b"]}, "a split is str; wanted a list of names"),
        (GOOD, {"train": [1], "val": ["b"]}, "a split holds 1; wanted names"),
        (GOOD, [["a"], ["b"]], "split is list; wanted a dict by name"),
        ({"a": GOOD[0]}, {"train": ["a"], "val": ["b"]}, "annotations are dict; wanted a list"),
        ([1, 2], {"train": ["a"], "val": ["b"]}, "annotation 0 has no frame_dir"),
        (
            [GOOD[0], flat("b")],
            {"train": ["a"], "val": ["b"]},
            "'b' has keypoint .*as in all clips",
        ),
        (
            [flat("a", img_shape=None), flat("b")],
            {"train": ["a"], "val": ["b"]},
            "img_shape None; cl",
        ),
        (
            [flat("a", img_shape=(0, 9)), flat("b")],
            {"train": ["a"], "val": ["b"]},
            r"shape \(0, 9\)",
        ),
        ([flat("a", img_shape=(9,)), flat("b")], {"train": ["a"], "val": ["b"]}, r"shape \(9,\)"),
    ],
)
def test_files_that_are_wrong(tmp_path, annotations, split, message):
    path = write(tmp_path, annotations, split)
    with pytest.raises(InputError, match=message) as caught:
        prepare_pyskl(tmp_path / "out", path)
    assert "\n" not in str(caught.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["clips.pkl"]


def test_other_pickles(tmp_path):
    path = tmp_path / "clips.pkl"
    for content, message in (
        (GOOD, "holds a list of 5, .*; wanted a dict of split and annotations, or two such files"),
        ({"annotations": GOOD, "info": 1}, "holds annotations, info; wanted a dict of split"),
    ):
        path.write_bytes(pickle.dumps(content))
        with pytest.raises(InputError, match=message):
            prepare_pyskl(tmp_path / "out", path)
    with pytest.raises(InputError, match="in pixels; it takes no scale"):
        flats = write(tmp_path, [flat("a"), flat("b")], {"train": ["a"], "val": ["b"]})
        prepare_pyskl(tmp_path / "out", flats, scale=0.001)
    with pytest.raises(InputError, match="exists and is not empty"):
        prepare_pyskl(tmp_path, path)


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_memory_does_not_grow_with_the_joints(tmp_path, protocol):
    peaks = []
    for frames in (40, 400):
        xyz = np.random.default_rng(0).uniform(0.5, 1.5, (1, frames, 25, 3)).astype("f4")
        changes = dict(total_frames=frames)
        clips = [annotation(f"{i}", i, keypoint=xyz + i, **changes) for i in range(150)]
        split = {"train": [f"{i}" for i in range(140)], "val": [f"{i}" for i in range(140, 150)]}
        file = write(tmp_path, clips, split, protocol)
        del clips, xyz
        tracemalloc.start()
        prepare_pyskl(tmp_path / f"out{frames}", file, frames=3)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    extra = 150 * (400 - 40) * 25 * 3 * 4  # 16 MB; buffers of files come and go, 1 MB each
    assert peaks[1] - peaks[0] < extra / 2, peaks
