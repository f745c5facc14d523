"""The prepared folder: what is written comes back, damage is named, nothing half-written stays."""

from __future__ import annotations

import json

import numpy as np
import pytest

from msclr import layouts
from msclr.data.store import StoreWriter, open_store
from msclr.errors import InputError
from msclr.layouts import Layout

FRAMES, BODIES = 4, 2
PAIR = Layout("store_pair_2", ["hip", "head"], [["head", "hip"]], "hip")
TRIO = Layout("store_trio_3", ["base", "lhand", "rhand"], [["lhand", "base"]], "base")


def clip(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        layout.name: rng.normal(size=(BODIES, FRAMES, layout.num_joints, 3)).astype(np.float32)
        for layout in (PAIR, TRIO)
    }


def writer(out, **changes) -> StoreWriter:
    described = {
        "name": "small",
        "layouts": [PAIR, TRIO],
        "classes": ["sit", "stand"],
        "frames": FRAMES,
        "bodies": BODIES,
        "source": "a test",
    }
    return StoreWriter(out, **described | changes)


@pytest.fixture
def folder(tmp_path):
    """Three training clips and one of validation."""
    with writer(tmp_path / "set") as w:
        for i, split in enumerate(["train", "val", "train", "train"]):
            w.add(split, clip(i), np.array([True, i % 2 == 0]), i % 2, f"clip {i}")
        w.finish({"found": 3})
    return tmp_path / "set"


def rewrite_meta(folder, **changes) -> None:
    path = folder / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_round_trip(folder):
    store = open_store(folder)
    train, val = store.split("train"), store.split("val")
    assert (store.frames, store.bodies, store.classes) == (FRAMES, BODIES, ["sit", "stand"])
    assert store.layouts == {PAIR.name: PAIR, TRIO.name: TRIO}
    assert (len(train), len(val)) == (3, 1)
    for split, clips in ((train, [0, 2, 3]), (val, [1])):
        for layout in (PAIR, TRIO):
            wanted = np.stack([clip(i)[layout.name] for i in clips])
            assert isinstance(split.views[layout.name], np.memmap)
            assert split.views[layout.name].dtype == np.float32
            np.testing.assert_array_equal(split.views[layout.name], wanted)
        np.testing.assert_array_equal(split.bodies, [[True, i % 2 == 0] for i in clips])
        np.testing.assert_array_equal(split.labels, [i % 2 for i in clips])
        assert split.labels.dtype == np.int64
        assert split.names == [f"clip {i}" for i in clips]


def test_dataset_json_describes_the_folder(folder):
    meta = json.loads((folder / "dataset.json").read_text())
    assert meta["splits"] == {"train": 3, "val": 1}
    assert meta["units"] == "metre"
    assert meta["report"] == {"found": 3}
    assert meta["layouts"][PAIR.name]["bones"] == [["head", "hip"]]
    on_disk = {str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file()}
    assert set(meta["checksums"]) == on_disk - {"dataset.json"}


def test_views_are_read_only(folder):
    with pytest.raises(ValueError, match="read-only"):
        open_store(folder).split("train").views[PAIR.name][0] = 0


def test_an_empty_split_opens(tmp_path):
    with writer(tmp_path / "set") as w:
        w.add("train", clip(0), np.ones(BODIES, bool), 0, "only")
        w.finish()
    val = open_store(tmp_path / "set").split("val")
    assert len(val) == 0
    assert val.views[TRIO.name].shape == (0, BODIES, FRAMES, 3, 3)


def test_opening_registers_unknown_layouts(tmp_path):
    layout = Layout("store_newcomer_2", ["a", "b"], [["b", "a"]], "a", flip=[["a", "b"]])
    with writer(tmp_path / "set", layouts=[layout]) as w:
        w.finish()
    assert layout.name not in layouts.names()
    open_store(tmp_path / "set")
    assert layouts.get(layout.name) == layout


def test_a_layout_that_differs_from_the_known_one_is_refused(tmp_path):
    impostor = Layout("kinectv2_25", ["hip", "head"], [["head", "hip"]], "hip")
    with writer(tmp_path / "set", layouts=[impostor]) as w:
        w.finish()
    with pytest.raises(InputError, match="joints of layout kinectv2_25 in .* differ"):
        open_store(tmp_path / "set")


def test_the_working_folder_may_change_after_opening(folder, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    store = open_store("set")
    monkeypatch.chdir("/")
    assert store.path == folder
    assert len(store.split("train")) == 3
    rewrite_meta(folder, size=None)  # measured when asked for, from the files
    monkeypatch.chdir(tmp_path)
    store = open_store("set")
    monkeypatch.chdir("/")
    assert store.size[PAIR.name] > 0


def test_a_tilde_is_the_home_folder(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_store("~/set").path == folder
    with pytest.raises(InputError, match="exists and is not empty"):
        writer("~/set")
    with writer("~/other") as w:
        w.finish()
    assert sorted(f.name for f in tmp_path.iterdir()) == ["other", "set"]


def test_out_may_be_an_empty_folder_only(tmp_path):
    (tmp_path / "empty").mkdir()
    with writer(tmp_path / "empty") as w:
        w.finish()
    assert (tmp_path / "empty" / "dataset.json").is_file()
    with pytest.raises(InputError, match="not empty; choose another folder or remove it"):
        writer(tmp_path / "empty")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file"):
        writer(tmp_path / "file")


def test_out_that_fills_up_meanwhile_is_left_alone(tmp_path):
    out = tmp_path / "set"
    with pytest.raises(InputError, match="not empty"), writer(out) as w:
        out.mkdir()
        (out / "precious").write_text("mine")
        w.finish()
    assert [f.name for f in tmp_path.iterdir()] == ["set"]
    assert (out / "precious").read_text() == "mine"


def test_the_folder_appears_only_when_whole(tmp_path):
    out = tmp_path / "set"
    with writer(out) as w:
        w.add("train", clip(0), np.ones(BODIES, bool), 0, "a")
        assert not out.exists()
        w.finish()
        assert out.exists()
    assert [f.name for f in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize("stage", ["before finish", "in finish", "without finish"])
def test_a_failure_leaves_nothing(tmp_path, monkeypatch, stage):
    def fail(*_):
        raise OSError("no space left")

    def write():
        with writer(tmp_path / "new" / "parents" / "set") as w:
            w.add("train", clip(0), np.ones(BODIES, bool), 0, "a")
            if stage == "before finish":
                fail()
            if stage == "in finish":
                monkeypatch.setattr(np, "save", fail)
                w.finish()

    if stage == "without finish":
        write()
    else:
        with pytest.raises(OSError, match="no space left"):
            write()
    assert list(tmp_path.iterdir()) == []


def test_a_parent_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write to .*file"), writer(tmp_path / "file/set"):
        pass


def test_a_layout_must_not_take_the_name_of_another_file(tmp_path):
    with pytest.raises(InputError, match="cannot be called 'labels'"):
        writer(tmp_path / "set", layouts=[Layout("labels", ["a"], [], "a")])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"views": {PAIR.name: clip(0)[PAIR.name]}}, "comes under store_pair_2, the data set has"),
        ({"views": clip(0) | {PAIR.name: np.zeros((1, 4, 2, 3))}}, r"shape \(1, 4, 2, 3\) under"),
        ({"present": np.ones(3, bool)}, r"body mask of shape \(3,\), wanted \(2,\)"),
        ({"label": 2}, "label 2, the data set has 2 classes"),
    ],
)
def test_add_refuses_what_does_not_fit(tmp_path, change, message):
    row = {"views": clip(0), "present": np.ones(BODIES, bool), "label": 0, "name": "a"}
    with writer(tmp_path / "set") as w:
        with pytest.raises(InputError, match=message):
            w.add("train", **row | change)
        w.add("train", **row)  # the refused clip left no row behind
        w.finish()
    assert len(open_store(tmp_path / "set").split("train")) == 1


@pytest.mark.parametrize("file", [f"train/{TRIO.name}.npy", "val/bodies.npy", "train/names.json"])
def test_a_flipped_byte_is_found_and_its_file_named(folder, file):
    content = bytearray((folder / file).read_bytes())
    content[-3] ^= 1
    (folder / file).write_bytes(content)
    with pytest.raises(InputError, match=f"{file} does not match its checksum"):
        open_store(folder)


def test_verify_false_skips_the_checksums_only(folder):
    path = folder / "train" / f"{PAIR.name}.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    open_store(folder, verify=False)
    path.write_bytes(content[:-8])
    with pytest.raises(InputError, match=f"{PAIR.name}.npy cannot be read"):
        open_store(folder, verify=False)


@pytest.mark.parametrize("file", ["dataset.json", "train/labels.npy", f"val/{PAIR.name}.npy"])
@pytest.mark.parametrize("verify", [True, False])
def test_a_missing_file_is_named(folder, file, verify):
    (folder / file).unlink()
    wanted = "has no dataset.json" if file == "dataset.json" else f"{file} is missing"
    with pytest.raises(InputError, match=wanted):
        open_store(folder, verify)


def test_a_missing_folder(tmp_path):
    with pytest.raises(InputError, match="is not a folder"):
        open_store(tmp_path / "nowhere")


@pytest.mark.parametrize("text", ['{"format_version": 1', "\xff\xfe"])
def test_broken_json(folder, text):
    (folder / "dataset.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match="dataset.json is not JSON"):
        open_store(folder)


@pytest.mark.parametrize("file", ["dataset.json", "train/names.json"])
def test_a_byte_order_mark_is_skipped(folder, file):
    """As some editors on Windows leave it."""
    path = folder / file
    path.write_text(path.read_text(encoding="utf-8"), encoding="utf-8-sig")
    assert open_store(folder, verify=False).split("train").names == ["clip 0", "clip 2", "clip 3"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 2}, "has format_version 2, this msclr reads 1"),
        ({"classes": None}, "'classes' is None, wanted a JSON list"),
        ({"splits": {"train": 3}}, "no clip count for 'val'"),
        ({"frames": 5}, r"holds float32 \(3, 2, 4, 2, 3\), dataset.json says float32 \(3, 2, 5, "),
        ({"splits": {"train": 2, "val": 1}}, r"store_pair_2.npy holds float32 \(3, "),
        ({"classes": ["sit"]}, "holds labels from 0 to 1, dataset.json lists 1 classes"),
        ({"layouts": {"other": PAIR.to_dict()}}, "layout other calls itself store_pair_2"),
        ({"layouts": {PAIR.name: {"name": PAIR.name}}}, "dataset.json: layout store_pair_2: .*'jo"),
    ],
)
def test_dataset_json_that_does_not_fit(folder, changes, message):
    rewrite_meta(folder, **changes)
    with pytest.raises(InputError, match=message) as caught:
        open_store(folder)
    assert "\n" not in str(caught.value)


def test_names_that_do_not_fit(folder):
    (folder / "train/names.json").write_text('["one"]')
    with pytest.raises(InputError, match="names.json is not a list of 3 names"):
        open_store(folder, verify=False)


def test_an_unknown_split(folder):
    with pytest.raises(InputError, match="split 'test' is not known; choose one of train, val"):
        open_store(folder).split("test")
