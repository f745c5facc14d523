"""The size of the bodies: the same wherever they are, a thousandth in metres of what it is in
millimetres, and not spoilt by what is missing."""

from __future__ import annotations

import json

import numpy as np
import pytest

from msclr.data.size import MAX_CLIPS, body_size
from msclr.data.store import StoreWriter, open_store
from msclr.errors import InputError
from msclr.layouts import Layout

LAYOUT = Layout("size_quad_4", ["a", "b", "c", "d"], [["b", "a"], ["c", "b"], ["d", "c"]], "a")


def body(*lengths: float) -> np.ndarray:
    """A box of joints per frame: 3, 4 and 12 times its length wide, 13 times its diagonal."""
    corners = np.array([[1, 1, 1], [4, 5, 13], [2, 3, 5], [3, 2, 9]], np.float32)
    return np.array(lengths, np.float32)[:, None, None] * corners  # (T, 4, 3)


def test_a_clip_is_measured_by_hand():
    clips = np.stack([body(1, 2, 9), body(1, 1, 1), body(3, 3, 3)])[:, None]  # (3, 1, 3, 4, 3)
    assert body_size(clips) == pytest.approx(13 * 2)  # the medians are 2, 1 and 3
    assert body_size(1000 * clips) == pytest.approx(13 * 2000)
    assert body_size(list(clips[:, 0])) == body_size(clips)  # (T, V, 3) each
    moved = clips + np.float32([10, -20, 5])
    assert body_size(moved) == pytest.approx(13 * 2)


@pytest.mark.parametrize("missing", [0.0, np.nan])
def test_what_is_missing_does_not_count(missing):
    clips = np.full((1, 2, 3, 6, 3), missing, np.float32)  # an absent body, two unseen joints
    clips[0, 0, :2, :4] = body(1, 1) + 100
    assert body_size(clips) == pytest.approx(13, rel=1e-5)
    assert body_size(np.full_like(clips, missing)) is None
    assert body_size(clips[:0]) is None


def test_of_scored_joints_only_the_seen_count():
    joints = np.float32([[[0, 0, 0.9], [0.3, 0.4, 0.5], [-1, 1, 0], [5, 5, np.nan]]])  # (1, 4, 3)
    assert body_size([joints], planar=True) == pytest.approx(0.5)
    assert body_size([joints[:, :1]], planar=True) is None


def test_a_sample_spans_all_clips():
    class Counted:
        asked: list[int] = []

        def __len__(self):
            return 5 * MAX_CLIPS

        def __getitem__(self, clip):
            self.asked.append(clip)
            return body(1.0)

    assert body_size(Counted()) == pytest.approx(13)
    assert Counted.asked == list(range(0, 5 * MAX_CLIPS, 5))


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "set", {"train": [1, 3, 3], "val": [100]})


def write(out, lengths):
    with StoreWriter(
        out, name="s", layouts=[LAYOUT], classes=["x"], frames=2, bodies=1, source="a test"
    ) as writer:
        for split, sizes in lengths.items():
            for i, size in enumerate(sizes):
                views = {LAYOUT.name: body(size, size)[None]}
                writer.add(split, views, np.array([True]), 0, f"{split}{i}")
        return writer.finish()


def rewrite_size(folder, size):
    path = folder / "dataset.json"
    meta = json.loads(path.read_text())
    del meta["size"]
    path.write_text(json.dumps(meta if size == "none" else meta | {"size": size}))


def test_dataset_json_holds_the_size_of_the_training_clips(folder):
    assert json.loads((folder / "dataset.json").read_text())["size"] == {LAYOUT.name: 39.0}
    assert open_store(folder).size == {LAYOUT.name: 39.0}


def test_a_data_set_without_training_clips_tells_that_of_the_others(tmp_path):
    assert open_store(write(tmp_path / "val", {"val": [2]})).size == {LAYOUT.name: 26.0}
    assert open_store(write(tmp_path / "none", {})).size == {LAYOUT.name: None}


@pytest.mark.parametrize("size", ["none", {}, None])
def test_a_data_set_of_before_is_measured_when_asked(folder, size):
    rewrite_size(folder, size)
    assert open_store(folder).size == {LAYOUT.name: 39.0}


@pytest.mark.parametrize("size", [{LAYOUT.name: "tall"}, {LAYOUT.name: 0}, 3, {LAYOUT.name: True}])
def test_a_size_that_is_none_is_refused(folder, size):
    rewrite_size(folder, size)
    with pytest.raises(InputError, match="'size' is .*; prepare the data set again"):
        open_store(folder)
