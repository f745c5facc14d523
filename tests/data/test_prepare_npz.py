"""Clips in one .npz file: cut at the offsets, without copies, and every refusal."""

from __future__ import annotations

import numpy as np
import pytest

from msclr.data.prepare import prepare_arrays, read_npz
from msclr.data.store import open_store
from msclr.errors import InputError
from msclr.layouts import Layout

HIP = Layout("arrays_hip_2", ["hip", "head"], [["head", "hip"]], "hip")


def npz(tmp_path, **changes):
    """Two clips of 2 and 3 frames, `changes` made; None leaves an array out."""
    rows = np.random.default_rng(0).uniform(0.5, 1.5, (5, 2, 3))
    arrays = {
        "labels": np.array([0, 1]),
        "split": np.array(["train", "val"]),
        "offset": np.array([0, 2, 5]),
        "view/arrays_hip_2": rows,
    } | changes
    path = tmp_path / "clips.npz"
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return path


def test_read_npz(tmp_path):
    rows = np.arange(30, dtype=np.int16).reshape(5, 2, 3)
    read = read_npz(
        npz(tmp_path, **{"view/arrays_hip_2": rows}, names=np.array(["a", "b"]), subject=[1, 2])
    )
    assert set(read) == {"views", "labels", "split", "names"}
    first, second = read["views"]["arrays_hip_2"]
    np.testing.assert_array_equal(first, rows[:2])
    np.testing.assert_array_equal(second, rows[2:])
    assert first.base is not None  # slices of one array, no copies
    assert first.base is second.base
    assert (read["split"], read["names"]) == (["train", "val"], ["a", "b"])


def test_read_npz_with_bodies(tmp_path):
    rows = np.random.default_rng(0).normal(size=(5, 4, 2, 3))  # (F, M, V, 3)
    _, second = read_npz(npz(tmp_path, **{"view/arrays_hip_2": rows}))["views"]["arrays_hip_2"]
    assert second.shape == (4, 3, 2, 3)  # (M, T, V, 3)
    np.testing.assert_array_equal(second[1, 2], rows[4, 1])


def test_npz_to_prepared_folder(tmp_path):
    read = read_npz(npz(tmp_path, classes=np.array(["sit", "bow"])))
    read["views"] = {HIP: read["views"]["arrays_hip_2"]}
    prepare_arrays(tmp_path / "out", **read, frames=3)
    store = open_store(tmp_path / "out")
    raw = np.load(tmp_path / "clips.npz")["view/arrays_hip_2"]
    assert store.classes == ["sit", "bow"]
    wanted = raw[2:] - raw[2:, :1]
    np.testing.assert_allclose(store.split("val").views[HIP.name][0, 0], wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": None}, "lacks labels; it holds split, offset, view/arrays_hip_2"),
        ({"view/arrays_hip_2": None, "split": None}, "lacks split, view/<layout>; it holds labels"),
        ({"view/arrays_hip_2": None}, "lacks view/<layout>; it holds labels, split, offset"),
        ({"offset": np.array([1, 2, 5])}, "offset starts at 1"),
        ({"offset": np.array([0, 2, 4])}, "offset ends at 4, but view/arrays_hip_2 has 5 rows"),
        ({"offset": np.array([0, 6, 5])}, "offset falls from 6 to 5 after clip 1"),
        ({"offset": np.array([0.0, 2, 5])}, "offset is float64"),
        ({"offset": np.array([], int)}, r"offset is int64 of shape \(0,\)"),
        ({"view/arrays_hip_2": np.ones((5, 3))}, r"view/arrays_hip_2 has shape \(5, 3\)"),
        ({"split": np.array([0, 1])}, "split is int64"),
        ({"names": np.array([["a"], ["b"]])}, r"names is <U1 of shape \(2, 1\)"),
        ({"names": np.array(["a", None])}, "cannot be read .* without Python objects"),
    ],
)
def test_npz_refusals(tmp_path, changes, message):
    with pytest.raises(InputError, match=message) as caught:
        read_npz(npz(tmp_path, **changes))
    assert "\n" not in str(caught.value)


def test_npz_that_is_none(tmp_path):
    with pytest.raises(InputError, match="is not a file"):
        read_npz(tmp_path / "nowhere.npz")
    np.save(tmp_path / "array.npy", np.ones(3))
    with pytest.raises(InputError, match="is not an .npz file"):
        read_npz(tmp_path / "array.npy")


def test_npz_damaged_inside(tmp_path):
    path = npz(tmp_path)
    content = bytearray(path.read_bytes())
    content[content.index(b"NUMPY") + 130] ^= 0xFF  # behind the header, among the labels
    path.write_bytes(content)
    with pytest.raises(InputError, match="cannot be read"):
        read_npz(path)
