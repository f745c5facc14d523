"""AimCLR's folders: cleaned as the same clips given as arrays; views matched by name; refusals."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from msclr.data.prepare.aimclr import prepare_aimclr
from msclr.data.prepare.arrays import prepare_arrays
from msclr.data.store import open_store
from msclr.errors import InputError
from msclr.layouts import Layout
from tests.tiny import same_files

HIP = Layout("aimclr_hip_3", ["hip", "neck", "head"], [["neck", "hip"], ["head", "neck"]], "hip")
TIP = Layout("aimclr_tip_2", ["mid", "top"], [["top", "mid"]], "mid")
SPLITS = ("train", "val")
COUNTS = {"train": 4, "val": 2}


def clips(count: int, joints: int = 3, bodies: int = 2, seed: int = 0) -> np.ndarray:
    """(N, 3, T, V, M): the second body of every other clip is absent, the last frames are empty."""
    xyz = np.random.default_rng(seed).uniform(0.5, 1.5, (count, 3, 7, joints, bodies))
    xyz[::2, ..., 1:] = 0
    xyz[:, :, 5:] = 0
    return xyz.astype(np.float32)


def write(folder, layout: Layout = HIP, labels=None, **changes):
    """A folder of 4 training and 2 validation clips; `changes` replaces or drops (None) files."""
    folder.mkdir(parents=True)
    for seed, (split, count) in enumerate(COUNTS.items()):
        names = [f"{split}{i}" for i in range(count)]
        files = {
            f"{split}_position": clips(count, layout.num_joints, seed=seed),
            f"{split}_label": (names, [i % 2 for i in range(count)]),
        }
        for name, content in (files | {k: v for k, v in changes.items() if k in files}).items():
            if name.endswith("position") and content is not None:
                np.save(folder / f"{name}.npy", content)
            elif content is not None:
                (folder / f"{name}.pkl").write_bytes(pickle.dumps(content, 2))
    return folder


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_folder_is_the_same_as_its_clips_as_arrays(tmp_path, dtype, order):
    arrays = {s: np.asarray(clips(n).astype(dtype), order=order) for s, n in COUNTS.items()}
    folder = write(tmp_path / "in", **{f"{s}_position": x for s, x in arrays.items()})
    report = prepare_aimclr(tmp_path / "ours", {HIP: folder}, frames=6, classes=["sit", "bow"])
    prepare_arrays(
        tmp_path / "wanted",
        {HIP: [clip.transpose(3, 1, 2, 0) for s in SPLITS for clip in arrays[s]]},
        [0, 1, 0, 1, 0, 1],
        ["train"] * 4 + ["val"] * 2,
        names=[f"{s}{i}" for s in SPLITS for i in range(COUNTS[s])],
        classes=["sit", "bow"],
        frames=6,
    )
    same_files(tmp_path / "ours", tmp_path / "wanted")
    assert report.clips == {"train": 4, "val": 2}
    assert report.views[HIP.name].trimmed_frames == 2 * 6
    store = open_store(tmp_path / "ours")
    assert (store.classes, store.coordinates) == (["sit", "bow"], "xyz")
    np.testing.assert_array_equal(store.split("train").bodies, [[1, 0], [1, 1]] * 2)


def test_a_joint_at_0_is_measured_and_a_body_at_0_is_missing(tmp_path):
    """Files of this form are centred on a joint of their own, here the neck of a layout of hips."""
    xyz = clips(4, bodies=1)
    xyz[:, :, :5] -= xyz[:, :, :5, 1:2]  # the neck at 0, (N, 3, T, V, M)
    xyz[0, :, 2] = 0
    prepare_aimclr(tmp_path / "out", {HIP: write(tmp_path / "in", train_position=xyz)}, frames=5)
    first, second = open_store(tmp_path / "out").split("train").views[HIP.name][:2, 0]
    wanted = (xyz - xyz[:, :, :, :1])[:2, :, :5, :, 0].transpose(0, 2, 3, 1)  # (2, T, V, 3)
    np.testing.assert_allclose(second, wanted[1], atol=1e-6)
    assert np.abs(second[:, 1]).min() > 1e-3  # the neck is where it was, not at the hip
    wanted[0, 2] = (wanted[0, 1] + wanted[0, 3]) / 2
    np.testing.assert_allclose(first, wanted[0], atol=1e-6)


def test_missing_values_are_interpolated(tmp_path):
    xyz = clips(4)
    xyz[0, :, 1, 2, 0] = [np.nan, 1, 1]
    report = prepare_aimclr(
        tmp_path / "out", {HIP: write(tmp_path / "in", train_position=xyz)}, frames=5
    )
    assert report.views[HIP.name].interpolated == 1
    assert np.isfinite(open_store(tmp_path / "out").split("train").views[HIP.name]).all()


def test_views_are_matched_by_name(tmp_path):
    order = [2, 0, 3, 1]
    shuffled = (
        [f"train{i}" for i in order],
        np.array([i % 2 for i in order]),  # an array serves as a list
    )
    one = write(tmp_path / "hip")
    two = write(tmp_path / "tip", TIP, train_label=shuffled)
    prepare_aimclr(tmp_path / "out", {HIP: one, TIP: two}, frames=5)
    train = open_store(tmp_path / "out").split("train")
    assert train.names == [f"train{i}" for i in range(4)]
    for layout, rows in ((HIP, range(4)), (TIP, np.argsort(order))):
        xyz = clips(4, layout.num_joints)[list(rows), :, :5, :, 0].transpose(0, 2, 3, 1)
        xyz = xyz - xyz[:, :, :1]
        np.testing.assert_allclose(train.views[layout.name][:, 0], xyz, atol=1e-6)


def test_the_layout_from_the_number_of_joints(tmp_path):
    kinect = Layout("aimclr_k", [f"j{i}" for i in range(25)], [], "j0")
    prepare_aimclr(tmp_path / "out", str(write(tmp_path / "in", kinect)))
    assert list(open_store(tmp_path / "out").layouts) == ["kinectv2_25"]
    mesh = Layout("aimclr_m", [f"j{i}" for i in range(42)], [], "j0")
    prepare_aimclr(tmp_path / "mesh", write(tmp_path / "mesh_in", mesh))
    assert list(open_store(tmp_path / "mesh").layouts) == ["smplx_42"]
    several = Layout("aimclr_s", [f"j{i}" for i in range(17)], [], "j0")
    with pytest.raises(InputError, match="17 joints, as .*coco_17, h36m_17.*; name its layout"):
        prepare_aimclr(tmp_path / "no", write(tmp_path / "several", several))
    with pytest.raises(InputError, match="has 3 joints, as no known layout"):
        prepare_aimclr(tmp_path / "no", write(tmp_path / "none"))


def test_clips_of_two_dimensions(tmp_path):
    xyz = clips(4)
    xyz[0, 2, 1, 0, 0] = 0  # a joint without a score
    folder = write(tmp_path / "in", train_position=xyz)
    report = prepare_aimclr(tmp_path / "out", {HIP: folder}, frames=5, coordinates="xy_score")
    store = open_store(tmp_path / "out")
    assert (store.coordinates, report.views[HIP.name].interpolated) == ("xy_score", 1)
    got = store.split("train").views[HIP.name]
    np.testing.assert_array_equal(got[1], xyz[1, :, :5].transpose(3, 1, 2, 0))


def test_clips_are_read_one_by_one(tmp_path, monkeypatch):
    """No array of all the clips is ever made: what is read at once is one clip."""
    largest = 0
    array, load = np.array, np.load

    def prepared(path, **options):
        assert folder not in path.parents
        return load(path, **options)

    def watched(*args, **kwargs):
        nonlocal largest
        made = array(*args, **kwargs)
        largest = max(largest, made.nbytes if made.ndim >= 4 else 0)
        return made

    folder = write(tmp_path / "in")
    monkeypatch.setattr(np, "array", watched)
    monkeypatch.setattr(np, "load", prepared)
    prepare_aimclr(tmp_path / "out", {HIP: folder}, frames=5)
    assert largest == clips(1).nbytes


GOOD = {split: [f"{split}{i}" for i in range(n)] for split, n in COUNTS.items()}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"val_position": None}, "lacks val_position.npy; it needs train_position.npy, train_lab"),
        ({"train_label": None, "val_label": None}, "lacks train_label.pkl, val_label.pkl"),
        ({"train_position": clips(4)[:, :2]}, r"float32 \(4, 2, 7, 3, 2\); wanted floating point"),
        ({"train_position": clips(4)[..., 0]}, r"float32 \(4, 3, 7, 3\); wanted floating point"),
        ({"train_position": clips(4).astype(int)}, "holds int64"),
        ({"train_position": np.array([None])}, "train_position.npy cannot be read .*object"),
        ({"val_position": clips(0), "val_label": ([], [])}, "val_position.npy is empty"),
        ({"train_position": clips(3)}, "holds 4 names, but there are 3 clips in the .npy file"),
        ({"train_label": (GOOD["train"], [0] * 5)}, "holds 5 labels, but there are 4 clips"),
        ({"train_label": GOOD["train"]}, r"train_label.pkl holds a list of 4; wanted \(names, la"),
        ({"train_label": (GOOD["train"], 4)}, "holds a int labels, but there are 4 clips"),
        ({"train_label": (GOOD["train"], [0, 1, 1.5, 0])}, "holds the label 1.5; wanted one int"),
        ({"train_label": (GOOD["train"], [True] * 4)}, "holds the label True"),
        ({"train_label": (GOOD["train"], [0, -1, 0, 0])}, "label -1 is negative"),
        ({"train_label": ([0, 1, 2, 3], [0] * 4)}, "holds the name 0; wanted one text per clip"),
        (
            {"train_label": (["a", "b", "c", "a"], [0] * 4)},
            "several clips of the name 'a'; make it",
        ),
        ({"val_label": (["train0", "a"], [0] * 2)}, "several clips of the name 'train0'"),
        ({"train_position": clips(4) * np.nan}, r"clip 0 \('train0'\) has no body in view"),
        ({"val_position": clips(2) * 0}, r"clip 4 \('val0'\) has no body in view"),
        ({"train_position": clips(4, joints=5)}, "has 5 joints, but the layout has 3"),
        ({"train_position": clips(4) * np.float64(1e300)}, "too large for float32"),
    ],
)
def test_refusals_say_what_and_leave_nothing(tmp_path, changes, message):
    folder = write(tmp_path / "in", **changes)
    with pytest.raises(InputError, match=message) as caught:
        prepare_aimclr(tmp_path / "out", {HIP: folder})
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (
            (["train0", "train1", "train2", "x"], [0, 1, 0, 1]),
            "1 clips of .*hip are not in .*tip, 't",
        ),
        ((GOOD["train"], [0, 1, 1, 1]), "'train2' is in train with label 0 in .*with label 1 in"),
        ((["train0"] * 2 + ["train1", "train2"], [0] * 4), "several clips of the name 'train0'"),
    ],
)
def test_views_that_do_not_agree(tmp_path, label, message):
    views = {HIP: write(tmp_path / "hip"), TIP: write(tmp_path / "tip", TIP, train_label=label)}
    with pytest.raises(InputError, match=message):
        prepare_aimclr(tmp_path / "out", views)
    assert not (tmp_path / "out").exists()


def test_more_refusals(tmp_path):
    folder = write(tmp_path / "in")
    for views, message in (
        ({}, "there is no view"),
        (tmp_path / "nowhere", "nowhere is not a folder; give the one with train_position.npy"),
        ({"no_such": folder}, "unknown layout 'no_such'"),
        ({"kinectv2_25": folder, "ntu-rgb+d": folder}, "layout kinectv2_25 is given twice"),
    ):
        with pytest.raises(InputError, match=message):
            prepare_aimclr(tmp_path / "out", views)
    with pytest.raises(InputError, match="exists and is not empty"):
        prepare_aimclr(tmp_path, {HIP: folder})
    file = folder / "train_position.npy"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(InputError, match="train_position.npy cannot be read .it is cut off"):
        prepare_aimclr(tmp_path / "out", {HIP: folder})
