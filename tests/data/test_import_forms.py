"""Variants of the forms of AimCLR and pyskl: other file names, labels without names, bare lists."""

from __future__ import annotations

import gzip
import pickle

import numpy as np
import pytest

from msclr.data.prepare import prepare_aimclr, prepare_pyskl
from msclr.data.prepare._safe_pickle import read_pickle
from msclr.data.store import open_store
from msclr.errors import InputError

COUNTS = {"train": 4, "val": 2}


def same_arrays(ours, wanted) -> None:
    for file in wanted.glob("*/*.npy"):
        got = ours / file.relative_to(wanted)
        assert got.read_bytes() == file.read_bytes(), file.name


# AimCLR and its kin


def folder(path, position: str = "position", label: str = "pkl", seed: int = 0, joints: int = 25):
    """label: "pkl" as ST-GCN writes it, "npy" as AimCLR's own script does, "flat" one less axis."""
    path.mkdir()
    for split, count in COUNTS.items():
        xyz = np.random.default_rng(seed).normal(0, 0.4, (count, 3, 6, joints, 2))
        np.save(path / f"{split}_{position}.npy", xyz.astype("f4"))
        labels = np.arange(count) % 2
        if label == "pkl":
            names = [f"{split}_{i}" for i in range(count)]
            (path / f"{split}_label.pkl").write_bytes(pickle.dumps((names, labels.tolist())))
        else:
            np.save(path / f"{split}_label.npy", labels if label == "flat" else labels[:, None])
    return path


@pytest.mark.parametrize("position", ["position", "data_joint", "data"])
@pytest.mark.parametrize("label", ["pkl", "npy", "flat"])
def test_all_names_of_files_give_the_same(tmp_path, position, label):
    prepare_aimclr(tmp_path / "wanted", folder(tmp_path / "a"), frames=6)
    prepare_aimclr(tmp_path / "out", folder(tmp_path / "b", position, label), frames=6)
    same_arrays(tmp_path / "out", tmp_path / "wanted")
    for split, count in COUNTS.items():
        names = open_store(tmp_path / "out").split(split).names
        assert names == [f"{split}_{i}" for i in range(count)]


def test_the_first_name_that_is_there_is_read(tmp_path):
    both = folder(tmp_path / "in")
    for split in COUNTS:
        np.save(both / f"{split}_data.npy", np.ones(3))
        np.save(both / f"{split}_label.npy", np.ones(3))
    prepare_aimclr(tmp_path / "out", both)
    (both / "val_position.npy").unlink()
    with pytest.raises(InputError, match=r"train_data.npy holds float64 \(3,\)"):
        prepare_aimclr(tmp_path / "other", both)
    (both / "val_data.npy").unlink()
    with pytest.raises(InputError, match="lacks val_position.npy; it needs train_position.npy"):
        prepare_aimclr(tmp_path / "none", both)
    (both / "train_position.npy").unlink()
    with pytest.raises(InputError, match="lacks val_data.npy; it needs train_data.npy"):
        prepare_aimclr(tmp_path / "none", both)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros((3, 1), int), r"holds int64 \(3, 1\); wanted 4 integers, one a clip, \(4, 1\)"),
        (np.zeros((4, 2), int), r"holds int64 \(4, 2\)"),
        (np.zeros(4), r"holds float64 \(4,\)"),
        (np.array([None] * 4), "cannot be read"),
        (np.full(4, -1), "label -1 is negative"),
    ],
)
def test_labels_that_are_wrong(tmp_path, labels, message):
    path = folder(tmp_path / "in", label="npy")
    np.save(path / "train_label.npy", labels)
    with pytest.raises(InputError, match=message) as caught:
        prepare_aimclr(tmp_path / "out", path)
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_clips_without_names_are_matched_by_order_and_that_is_said(tmp_path):
    views = {
        "kinectv2_25": folder(tmp_path / "a", label="npy"),
        "smplx_42": folder(tmp_path / "b", label="npy", joints=42),
    }
    report = prepare_aimclr(tmp_path / "out", views)
    note = "note: the clips have no names; those of the folders were matched by order"
    assert note in report.lines()
    np.save(tmp_path / "b" / "train_label.npy", np.array([0, 1, 1, 0]))
    with pytest.raises(InputError, match="'train_2' is in train with label 0 in .*with label 1"):
        prepare_aimclr(tmp_path / "no", views)
    views["smplx_42"] = folder(tmp_path / "c", joints=42)
    with pytest.raises(InputError, match="c names its clips and .*a does not, .*cannot be matched"):
        prepare_aimclr(tmp_path / "no", views)


def test_a_file_of_another_kind_under_the_name_of_a_pickle(tmp_path):
    path = folder(tmp_path / "in")
    labels = path / "train_label.pkl"
    with open(labels, "wb") as file:
        np.save(file, np.zeros((4, 1), int))
    with pytest.raises(
        InputError, match="is an .npy file, not a pickle; rename it to train_label.n"
    ):
        prepare_aimclr(tmp_path / "out", path)
    with open(labels, "wb") as file:
        np.savez(file, np.zeros(4))
    with pytest.raises(InputError, match="train_label.pkl: it is a zip archive, such as an .npz"):
        read_pickle(labels)
    labels.write_bytes(gzip.compress(pickle.dumps([1])))
    with pytest.raises(InputError, match="it is a gzip file, not a pickle"):
        read_pickle(labels)
    labels.write_bytes(b"")
    with pytest.raises(InputError, match="is no whole pickle"):
        read_pickle(labels)


# pyskl and mmaction2

NAMES = ["v0", "v1", "v2", "v3"]
SPLIT = {"train": NAMES[:2], "val": NAMES[2:]}


def annotations(key: str = "frame_dir", before: str = "") -> list[dict]:
    rng = np.random.default_rng(0)
    return [
        {
            key: before + name,
            "label": i % 2,
            "total_frames": 6,
            "keypoint": rng.normal(0, 0.4, (1, 6, 25, 3)),
        }
        for i, name in enumerate(NAMES)
    ]


def write(path, content):
    path.write_bytes(pickle.dumps(content))
    return path


@pytest.fixture
def wanted(tmp_path):
    file = write(tmp_path / "usual.pkl", {"split": SPLIT, "annotations": annotations()})
    prepare_pyskl(tmp_path / "wanted", file)
    return tmp_path / "wanted"


def test_filename_in_the_place_of_frame_dir(tmp_path, wanted):
    clips = annotations("filename")
    for clip in clips:
        clip["frame_dir"] = "frames"  # mmaction2 goes by filename then
    content = {"split": SPLIT, "annotations": clips}
    prepare_pyskl(tmp_path / "out", write(tmp_path / "f.pkl", content))
    same_arrays(tmp_path / "out", wanted)
    assert open_store(tmp_path / "out").split("val").names == NAMES[2:]
    del clips[1]["filename"]
    with pytest.raises(InputError, match="annotation 1 has no filename; wanted a dict with one"):
        prepare_pyskl(tmp_path / "no", write(tmp_path / "f.pkl", content))


def test_two_lists_are_train_and_val(tmp_path, wanted):
    train = write(tmp_path / "ntu60_xsub_train.pkl", annotations()[:2])
    val = write(tmp_path / "ntu60_xsub_val.pkl", annotations()[2:])
    prepare_pyskl(tmp_path / "out", (str(train), val))
    same_arrays(tmp_path / "out", wanted)
    for files, options, message in (
        ([train], {}, "holds a list of 2, which does not say train from val; .*or two such files"),
        ([val, train], {}, "ntu60_xsub_train.pkl comes second, .*give the file of train first"),
        ([train, val, val], {}, "got 3 files; give one, or two"),
        ([], {}, "got 0 files"),
        ([train, train], {}, "'v0' is in both .*train.pkl"),
        ([train, val], {"protocol": "xsub"}, "they have no protocol 'xsub'"),
        ([tmp_path / "usual.pkl", val], {}, "usual.pkl holds dict; of two files each is a list"),
        ([train, write(tmp_path / "e.pkl", [])], {}, "e.pkl is empty; give at least one clip"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            prepare_pyskl(tmp_path / "no", files, **options)
        assert "\n" not in str(caught.value) and not (tmp_path / "no").exists()


def test_names_that_are_paths_on_one_side_only(tmp_path):
    content = {"split": SPLIT, "annotations": annotations(before="skl/")}
    with pytest.raises(InputError, match="none of the names in train .* 'v0', .* 'skl/v0'; write"):
        prepare_pyskl(tmp_path / "out", write(tmp_path / "f.pkl", content))
    content["split"] = {name: [f"skl/{v}" for v in names] for name, names in SPLIT.items()}
    prepare_pyskl(tmp_path / "out", write(tmp_path / "f.pkl", content))
    assert open_store(tmp_path / "out").split("train").names == ["skl/v0", "skl/v1"]
    content["split"]["val"] = ["v2", "v3"]
    with pytest.raises(InputError, match="none of the names in val has an annotation: .* 'v2'"):
        prepare_pyskl(tmp_path / "no", write(tmp_path / "f.pkl", content))
