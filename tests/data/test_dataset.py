"""A split held as tensors: every clip in its place, layouts by any of their names."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from msclr import layouts
from msclr.data import SkeletonDataset, open_store
from msclr.data.store import StoreWriter
from msclr.data.streams import to_stream
from msclr.errors import InputError

FRAMES, BODIES = 5, 2
LAYOUTS = ["kinectv2_25", "h36m_17"]
SPLIT = ["train", "val", "train", "train", "val", "train"]


def clip(i: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(i)
    made = {}
    for name in LAYOUTS:
        shape = (BODIES, FRAMES, layouts.get(name).num_joints, 3)
        made[name] = rng.normal(size=shape).astype(np.float32)
        if i % 2:
            made[name][1] = 0
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six clips, four of them for training; the clips of odd number have one body."""
    out = tmp_path_factory.mktemp("dataset") / "set"
    described = {"name": "six", "layouts": [layouts.get(n) for n in LAYOUTS], "source": "a test"}
    with StoreWriter(
        out, **described, classes=["sit", "stand", "go"], frames=FRAMES, bodies=BODIES
    ) as writer:
        for i, split in enumerate(SPLIT):
            writer.add(split, clip(i), np.array([True, i % 2 == 0]), i % 3, f"clip {i}")
        writer.finish()
    return out


@pytest.mark.parametrize("split", ["train", "val"])
def test_every_clip_of_a_split_is_there_in_order(folder, split):
    dataset = SkeletonDataset(folder, split)
    numbers = [i for i, s in enumerate(SPLIT) if s == split]
    assert len(dataset) == len(numbers)
    assert dataset.names == [f"clip {i}" for i in numbers]
    assert dataset.classes == ["sit", "stand", "go"]
    assert dataset.labels.tolist() == [i % 3 for i in numbers]
    assert dataset.bodies.tolist() == [[True, i % 2 == 0] for i in numbers]
    assert dataset.device == torch.device("cpu")
    assert list(dataset.views) == list(dataset.layouts) == LAYOUTS
    for name in LAYOUTS:
        assert dataset.views[name].dtype == torch.float32
        wanted = np.stack([clip(i)[name] for i in numbers])
        np.testing.assert_array_equal(dataset.views[name].numpy(), wanted)


def test_clips_are_gathered_in_the_order_asked_for(folder):
    dataset = SkeletonDataset(folder, "train")
    found = dataset.clips("h36m_17", torch.tensor([3, 0, 3]))
    wanted = np.stack([clip(i)["h36m_17"] for i in (5, 0, 5)])
    np.testing.assert_array_equal(found.numpy(), wanted)


def test_gathered_clips_are_copies(folder):
    dataset = SkeletonDataset(folder, "train")
    dataset.clips("h36m_17", torch.tensor([0, 1])).zero_()
    np.testing.assert_array_equal(dataset.views["h36m_17"][0].numpy(), clip(0)["h36m_17"])


@pytest.mark.parametrize("stream", ["joint", "motion", "bone"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_inputs_have_the_axes_of_an_encoder(folder, name, stream):
    dataset = SkeletonDataset(folder, "train")
    x = dataset.clips(name, torch.tensor([2, 1]))
    found = dataset.inputs(x, name, stream)
    assert found.shape == (2, 3, FRAMES, layouts.get(name).num_joints, BODIES)
    y = to_stream(x, stream, layouts.get(name))
    for c in range(3):
        for m in range(BODIES):
            assert torch.equal(found[:, c, :, :, m], y[:, m, :, :, c])


def test_an_open_store_serves_as_the_folder_does(folder):
    store = open_store(folder)
    dataset = SkeletonDataset(store, "val")
    assert dataset.store is store
    assert dataset.names == ["clip 1", "clip 4"]


@pytest.mark.parametrize("asked", ["kinectv2_25", "KinectV2_25", "ntu-rgb+d"])
def test_a_layout_is_found_by_any_of_its_names(folder, asked):
    dataset = SkeletonDataset(folder, "train", [asked])
    assert list(dataset.views) == list(dataset.layouts) == ["kinectv2_25"]
    assert dataset.layouts["kinectv2_25"] == layouts.get("kinectv2_25")


def test_layouts_come_in_the_order_asked_for(folder):
    for asked in (LAYOUTS, LAYOUTS[::-1]):
        assert list(SkeletonDataset(folder, "val", asked).views) == asked


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["smplx_42"], "no layout 'smplx_42'; it has kinectv2_25, h36m_17"),
        (["h36m_71"], "unknown layout 'h36m_71'; did you mean 'h36m_17'"),
    ],
    ids=["not in the data", "known nowhere"],
)
def test_a_layout_that_is_not_there_is_refused_in_one_line(folder, asked, message):
    with pytest.raises(InputError) as error:
        SkeletonDataset(folder, "train", asked)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_split_is_refused(folder):
    with pytest.raises(InputError, match="split 'test' is not known; choose one of train, val"):
        SkeletonDataset(folder, "test")
