"""CTR-GCN's .npz: its bodies and frames are found, stored and compressed files read alike."""

from __future__ import annotations

import io
import tracemalloc
import zipfile

import numpy as np
import pytest

from msclr.data import _store_files
from msclr.data.prepare import ctrgcn
from msclr.data.prepare.arrays import prepare_arrays
from msclr.data.prepare.ctrgcn import prepare_ctrgcn
from msclr.data.store import open_store
from msclr.errors import InputError
from tests.tiny import same_files

FRAMES = 20


def rows(count: int, seed: int = 0) -> np.ndarray:
    """(N, T, 150): 8 to 12 frames, then zeros; the second body of every other clip is absent."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(0.5, 1.5, (count, FRAMES, 2, 25, 3)).astype(np.float32)
    x[::2, :, 1] = 0
    for i in range(count):
        x[i, 8 + i :] = 0
    x[:, 0, 0, 1] = 0  # these files are centred on the first frame's middle of the spine
    return x.reshape(count, FRAMES, 150)


def file(tmp_path, compressed: bool = False, **changes):
    arrays = {
        "x_train": rows(4),
        "y_train": np.eye(3)[[0, 2, 1, 0]],
        "x_test": rows(2, seed=1),
        "y_test": np.eye(3)[[2, 2]],
    } | changes
    save = np.savez_compressed if compressed else np.savez
    save(tmp_path / "NTU.npz", **{key: x for key, x in arrays.items() if x is not None})
    return tmp_path / "NTU.npz"


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_a_file_is_the_same_as_its_clips_as_arrays(tmp_path, compressed, dtype):
    report = prepare_ctrgcn(
        tmp_path / "out",
        file(tmp_path, compressed, x_train=rows(4).astype(dtype)),
        frames=9,
        classes=["sit", "bow", "run"],
    )
    clips = []
    for x in (rows(4), rows(2, seed=1)):
        for i, clip in enumerate(x.astype(np.float64)):
            xyz = clip.reshape(FRAMES, 2, 25, 3)[: 8 + i].transpose(1, 0, 2, 3)  # (M, T, V, 3)
            xyz[0, 0, 1] = 1e-30  # measured, where a zero would be missing
            clips.append(xyz)
    prepare_arrays(
        tmp_path / "wanted",
        {"kinectv2_25": clips},
        [0, 2, 1, 0, 2, 2],
        ["train"] * 4 + ["val"] * 2,
        names=["train_0", "train_1", "train_2", "train_3", "test_0", "test_1"],
        frames=9,
        frame="camera",
    )
    same_files(tmp_path / "out", tmp_path / "wanted")
    prepared = open_store(tmp_path / "out")
    assert (prepared.classes, prepared.bodies) == (["sit", "bow", "run"], 2)
    np.testing.assert_array_equal(prepared.split("val").bodies, [[1, 0], [1, 1]])
    assert report.views["kinectv2_25"].trimmed_frames == sum(
        FRAMES - 8 - i for i in (0, 1, 2, 3, 0, 1)
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["NTU.npz", "out", "wanted"]


def test_classes_and_layout(tmp_path):
    prepare_ctrgcn(tmp_path / "out", file(tmp_path), layout="kinectv2_25_pyskl")
    prepared = open_store(tmp_path / "out")
    assert (list(prepared.layouts), prepared.classes) == (["kinectv2_25_pyskl"], ["0", "1", "2"])


@pytest.mark.parametrize("compressed", [False, True])
def test_memory_does_not_grow_with_the_file(tmp_path, compressed, monkeypatch):
    for module in (_store_files, ctrgcn):  # what both hold does not depend on the file
        monkeypatch.setattr(module, "_BLOCK", 1 << 12)
    peaks = []
    for count in (40, 400):
        x = np.resize(rows(4), (count, FRAMES, 150))
        y = np.eye(3)[np.zeros(count, int)]
        path = file(tmp_path, compressed, x_train=x, y_train=y)
        tracemalloc.start()
        prepare_ctrgcn(tmp_path / f"out{count}", path, frames=3)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    extra = (400 - 40) * FRAMES * 150 * 4
    assert peaks[1] - peaks[0] < extra / 4, peaks


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_test": None}, "lacks y_test.npy; it holds x_train.npy, y_train.npy, x_test.npy"),
        ({"x_train": np.ones((4, 20, 149), "f4")}, r"x_train is float32 \(4, 20, 149\); wanted"),
        ({"x_train": np.ones((4, 20, 2, 75), "f4")}, r"x_train is float32 \(4, 20, 2, 75\)"),
        ({"x_train": np.ones((4, 20, 150), int)}, "x_train is int64"),
        ({"x_train": np.array([None])}, "x_train cannot be read"),
        ({"x_test": rows(0), "y_test": np.zeros((0, 3))}, "x_test is empty"),
        ({"y_train": np.eye(3)}, r"y_train is float64 \(3, 3\); wanted one-hot \(4, classes\)"),
        ({"y_train": np.arange(4)}, r"y_train is int64 \(4,\); wanted one-hot"),
        ({"y_train": np.array([[1, 0], [0, 1], [1, 1], [0, 1]])}, "y_train: row 2 is not one-hot"),
        ({"y_train": np.array([[1, 0], [0, 0], [1, 0], [0, 1]])}, "y_train: row 1 is not one-hot"),
        ({"y_train": np.eye(3)[[0, 1, 2, 0]] * np.nan}, "y_train: row 0 is not one-hot"),
        ({"y_train": np.eye(4)}, "y_train has 4 classes, y_test 3; they must be the same"),
        ({"y_test": np.array([[None, 1]] * 2)}, "y_test cannot be read"),
        ({"x_train": rows(4) * 0}, r"clip 0 \('train_0'\) has no body in view kinectv2_25"),
        ({"x_test": rows(2) * np.nan}, r"clip 4 \('test_0'\) has no body in view kinectv2_25"),
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_refusals_say_what_and_leave_nothing(tmp_path, changes, message, compressed):
    path = file(tmp_path, compressed, **changes)
    with pytest.raises(InputError, match=message) as caught:
        prepare_ctrgcn(tmp_path / "out", path)
    assert "\n" not in str(caught.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["NTU.npz"]


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("part", ["x_train", "y_train"])
def test_a_damaged_byte_is_found(tmp_path, part, compressed):
    path = file(tmp_path, compressed)
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo(f"{part}.npy")
    content = bytearray(path.read_bytes())
    content[entry.header_offset + entry.compress_size] ^= 0x10  # near the entry's end
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"{part} cannot be read"):
        prepare_ctrgcn(tmp_path / "out", path)


def test_no_npz(tmp_path):
    with pytest.raises(InputError, match="is not a file; give the .npz file"):
        prepare_ctrgcn(tmp_path / "out", tmp_path / "nowhere.npz")
    (tmp_path / "text.npz").write_text("x_train")
    with pytest.raises(InputError, match="is not an .npz file"):
        prepare_ctrgcn(tmp_path / "out", tmp_path / "text.npz")
    content = io.BytesIO()
    np.save(content, rows(4))
    with zipfile.ZipFile(tmp_path / "cut.npz", "w") as archive:
        archive.writestr("x_train.npy", content.getvalue()[:-1])
        for key in ("y_train", "x_test", "y_test"):
            archive.writestr(f"{key}.npy", content.getvalue())
    # What follows the entry in the file must not be taken for its last bytes.
    with pytest.raises(InputError, match="x_train cannot be read .it is cut off"):
        prepare_ctrgcn(tmp_path / "out", tmp_path / "cut.npz")
    with pytest.raises(InputError, match="exists and is not empty"):
        prepare_ctrgcn(tmp_path, tmp_path / "cut.npz")
