"""Clips without a body are left out by name, up to 5 %; classes of one name are refused."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from msclr.data.prepare import prepare_aimclr, prepare_arrays, prepare_ctrgcn, prepare_pyskl
from msclr.data.prepare.report import some
from msclr.data.store import open_store
from msclr.errors import InputError
from msclr.layouts import Layout
from tests.tiny import same_files

HIP = Layout("left_out_hip_2", ["hip", "head"], [["head", "hip"]], "hip")
TIP = Layout("left_out_tip_3", ["mid", "ltop", "rtop"], [["ltop", "mid"], ["rtop", "mid"]], "mid")


def clips(count: int, layout: Layout = HIP, dead=(), fill: float = 0.0) -> list[np.ndarray]:
    made = np.random.default_rng(0).normal(size=(count, 4, layout.num_joints, 3))
    made[list(dead)] = fill
    return list(made)  # (T, V, 3) each


def prepare(out, views, train: int | None = None, **options):
    """Clips of which the first `train` train, 3 in 4 if not given; labels 0 1 2 0 1 2 …"""
    count = len(next(iter(views.values())))
    train = count - count // 4 if train is None else train
    split = ["train"] * train + ["val"] * (count - train)
    return prepare_arrays(out, views, np.arange(count) % 3, split, frames=4, **options)


@pytest.mark.parametrize("fill", [0, np.nan])
def test_the_others_are_as_if_it_had_not_been_there(tmp_path, fill):
    raw = clips(8, dead=[2], fill=fill)
    report = prepare(tmp_path / "out", {HIP: raw})
    rest = [i for i in range(8) if i != 2]
    prepare_arrays(
        tmp_path / "wanted",
        {HIP: [raw[i] for i in rest]},
        [i % 3 for i in rest],
        ["train"] * 5 + ["val"] * 2,
        names=[f"clip{i}" for i in rest],
        frames=4,
    )
    same_files(tmp_path / "out", tmp_path / "wanted")
    assert report.clips == {"train": 5, "val": 2}
    assert report.per_class == {"train": [2, 2, 1], "val": [1, 1, 0]}
    left_out = {f"no body in view {HIP.name}": ["clip2"]}
    assert report.left_out == open_store(tmp_path / "out").meta["report"]["left_out"] == left_out
    assert f"1 left out: no body in view {HIP.name} (clip2)" in report.lines()


@pytest.mark.parametrize(("count", "most"), [(4, 1), (19, 1), (39, 1), (40, 2), (60, 3)])
def test_one_in_twenty_may_be_left_out_and_one_of_fewer(tmp_path, count, most):
    report = prepare(tmp_path / "most", {HIP: clips(count, dead=range(most))})
    assert sum(map(len, report.left_out.values())) == most
    with pytest.raises(InputError) as caught:
        prepare(tmp_path / "more", {HIP: clips(count, dead=range(most + 1))})
    message = str(caught.value)
    assert message.startswith(f"{most + 1} of {count} clips cannot be used, more than 5%: clip 0 (")
    assert "missing (NaN or 0), and clip1" in message and "\n" not in message
    assert [path.name for path in tmp_path.iterdir()] == ["most"]


def test_strict_refuses_any(tmp_path):
    raw = clips(40, dead=[3, 7])
    with pytest.raises(InputError, match=r"2 clips would be left out, .*view .* \(clip3, clip7\)"):
        prepare(tmp_path / "out", {HIP: raw}, strict=True)
    with pytest.raises(InputError, match=r"1 clips would be left out, .*: too blurred \(a\)"):
        prepare(tmp_path / "out", {HIP: clips(4)}, strict=True, left_out={"too blurred": ["a"]})
    assert list(tmp_path.iterdir()) == []
    prepare(tmp_path / "out", {HIP: clips(40)}, strict=True)


@pytest.mark.parametrize(("dead", "split"), [(0, "train"), (1, "val")])
def test_a_whole_split_may_not_be_left_out(tmp_path, dead, split):
    with pytest.raises(InputError, match=rf"no clip of {split} can be used: clip {dead} .*NaN or"):
        prepare(tmp_path / "out", {HIP: clips(2, dead=[dead])}, train=1)


def test_a_clip_that_one_view_lacks_is_left_out_of_all(tmp_path):
    report = prepare(tmp_path / "out", {HIP: clips(40), TIP: clips(40, TIP, dead=[5, 6])})
    assert report.left_out == {f"no body in view {TIP.name}": ["clip5", "clip6"]}
    split = open_store(tmp_path / "out").split("train")
    assert len(split.views[HIP.name]) == len(split.views[TIP.name]) == 28
    np.testing.assert_allclose(
        split.views[HIP.name][5, 0], clips(40)[7] - clips(40)[7][:, :1], atol=1e-6
    )


def test_clips_without_a_frame_or_a_common_body_are_left_out_too(tmp_path):
    pairs = {HIP: [np.stack([clip] * 2) for clip in clips(60)]}
    pairs[TIP] = [np.stack([clip] * 2) for clip in clips(60, TIP)]
    pairs[HIP][1] = pairs[HIP][1][:, :0]
    pairs[TIP][2] = pairs[TIP][2][:0]
    pairs[HIP][3][0] = pairs[TIP][3][1] = 0
    report = prepare(tmp_path / "out", pairs)
    assert report.left_out == {
        f"no frame in view {HIP.name}": ["clip1"],
        f"no body in view {TIP.name}": ["clip2"],
        "no body that each of its views has": ["clip3"],
    }
    assert report.clips == {"train": 42, "val": 15}


def test_a_few_names_then_a_count():
    assert some(["a", "b"]) == "a, b"
    assert some(list("abcde")) == "a, b, c, d, e"
    assert some(list("abcdefg")) == "a, b, c, d, e and 2 more"


# Each source


def aimclr(folder, dead=()):
    folder.mkdir()
    for split, count in (("train", 20), ("val", 4)):
        xyz = np.random.default_rng(0).normal(size=(count, 3, 5, 25, 1)).astype("f4")
        if split == "train":
            xyz[list(dead)] = 0
        np.save(folder / f"{split}_position.npy", xyz)
        names = [f"{split}{i}" for i in range(count)]
        (folder / f"{split}_label.pkl").write_bytes(pickle.dumps((names, [0, 1] * (count // 2))))
    return prepare_aimclr, folder, "train1"


def ctrgcn(folder, dead=()):
    folder.mkdir()
    x = np.random.default_rng(0).normal(size=(20, 5, 150)).astype("f4")
    x[list(dead)] = 0
    y = np.eye(2)[[0, 1] * 10]
    np.savez(folder / "NTU.npz", x_train=x, y_train=y, x_test=x[10:], y_test=y[10:])
    return prepare_ctrgcn, folder / "NTU.npz", "train_1"


def pyskl(folder, dead=()):
    folder.mkdir()
    names = [f"c{i}" for i in range(24)]
    keypoints = np.random.default_rng(0).normal(size=(24, 1, 5, 25, 3))
    keypoints[list(dead)] = 0
    annotations = [
        {"frame_dir": name, "label": i % 2, "total_frames": 5, "keypoint": keypoints[i]}
        for i, name in enumerate(names)
    ]
    content = {"split": {"train": names[:20], "val": names[20:]}, "annotations": annotations}
    (folder / "clips.pkl").write_bytes(pickle.dumps(content))
    return prepare_pyskl, folder / "clips.pkl", "c1"


@pytest.mark.parametrize("source", [aimclr, ctrgcn, pyskl])
def test_every_source_leaves_out_a_few_by_name(tmp_path, source):
    prepare_it, raw, name = source(tmp_path / "one", dead=[1])
    report = prepare_it(tmp_path / "out", raw)
    assert report.left_out == {"no body in view kinectv2_25": [name]}
    assert name not in open_store(tmp_path / "out").split("train").names
    with pytest.raises(InputError, match=f"strict allows none: no body .*{name}"):
        prepare_it(tmp_path / "strict", raw, strict=True)
    _, raw, _ = source(tmp_path / "two", dead=[1, 2])
    with pytest.raises(InputError, match="2 of .* clips cannot be used, more than 5%"):
        prepare_it(tmp_path / "more", raw)


@pytest.mark.parametrize("source", [aimclr, ctrgcn, pyskl])
def test_every_source_refuses_classes_of_one_name(tmp_path, source):
    prepare_it, raw, _ = source(tmp_path / "in")
    with pytest.raises(InputError, match="the classes 0 and 1 are both called 'walk'"):
        prepare_it(tmp_path / "out", raw, classes=["walk", "walk"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["walk", "run", "walk"], "the classes 0 and 2 are both called 'walk'; give each"),
        (["a", "b", "b", "b"], "the classes 1, 2 and 3 are all called 'b'"),
        ([1, "2", "1"], "the classes 0 and 2 are both called '1'"),
    ],
)
def test_classes_of_one_name_are_refused(tmp_path, classes, message):
    with pytest.raises(InputError, match=message) as caught:
        prepare(tmp_path / "out", {HIP: clips(4)}, classes=classes)
    assert "\n" not in str(caught.value) and list(tmp_path.iterdir()) == []
