"""Several data sets as one: clips of one set after those of the other, each as it is alone."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from msclr.data import MixedDataset, SkeletonDataset, open_store
from msclr.data.stored_views import StackedClips
from msclr.errors import InputError
from tests.tiny import FRAMES, LAYOUTS, OTHER, TRAIN, prepare_other, prepare_tiny

H36M, KINECT = LAYOUTS


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("mixed")
    return [prepare_tiny(root / "a"), prepare_other(root / "b")]


def view(dataset, layout: str, clips: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """An augmented view of clips, by the numbers that their random numbers follow from."""
    held = dataset.hold({layout: clips})[layout]
    about = {"seed": 3, "purpose": 1, "view": "extreme"}
    return dataset.view(layout, held, numbers, torch.zeros_like(numbers), **about)


@pytest.mark.parametrize("resident", [True, False])
def test_clips_are_those_of_their_set(folders, resident):
    mixed = MixedDataset(folders, "train", resident=resident)
    one, other = (SkeletonDataset(folder, "train") for folder in folders)
    assert len(mixed) == TRAIN + OTHER and list(mixed.layouts) == [H36M, KINECT, "smpl_24"]
    assert mixed.present.shape == (TRAIN + OTHER, 2) and not mixed.present[TRAIN:, 1].any()
    assert mixed.names == one.names + other.names and len(mixed.classes) == 4
    assert mixed.labels.tolist() == [*one.labels.tolist(), *(2 + other.labels).tolist()]

    index = torch.tensor([TRAIN + 1, 0, 7, TRAIN + 1])
    x = mixed.clips(KINECT, index)
    assert torch.equal(x[1:3], one.clips(KINECT, index[1:3]))
    assert torch.equal(x[[0, 3], :1], other.clips(KINECT, index[[0, 3]] - TRAIN))
    assert not x[[0, 3], 1].any()
    of_other = torch.tensor([TRAIN + 9, TRAIN])
    assert torch.equal(mixed.clips("smpl_24", of_other), other.clips("smpl_24", of_other - TRAIN))
    for dataset, layout, clips in ((one, H36M, torch.arange(5)), (other, "smpl_24", of_other)):
        mine = clips if dataset is one else clips - TRAIN
        mixed.prefetch({layout: clips})
        made = view(mixed, layout, clips, clips)
        assert torch.equal(made, view(dataset, layout, mine, clips))
    with pytest.raises(IndexError, match=f"clip {TRAIN} has no layout h36m_17"):
        mixed.hold({H36M: torch.tensor([0, TRAIN])})
    mixed.close()


def test_rows_of_stacked_clips_by_slices_and_in_another_process(folders):
    maps = [open_store(folder).split("train").views[KINECT] for folder in folders]
    stacked = StackedClips(maps)
    assert stacked.shape == (TRAIN + OTHER, 2, FRAMES, 20, 3) and stacked.size == stacked[:].size
    whole = stacked[:]
    assert np.array_equal(whole[:TRAIN], maps[0]) and np.array_equal(whole[TRAIN:, :1], maps[1])
    sent = pickle.dumps(stacked)
    assert len(sent) < 2000 and np.array_equal(pickle.loads(sent)[:], whole)


def test_layouts_are_loaded_where_they_are_and_derived_where_they_are_not(folders):
    mixed = MixedDataset(folders, "train", ["smpl_24", H36M], derive=["openpose_18"])
    a, b = mixed.parts
    assert list(mixed.layouts) == ["smpl_24", H36M, "openpose_18"]
    assert (list(a.layouts), a.derived) == ([H36M, "openpose_18"], {"openpose_18": H36M})
    assert list(b.layouts) == ["smpl_24", "openpose_18"]
    assert b.derived == {"openpose_18": KINECT}  # which smpl_24 does not allow
    own = SkeletonDataset(folders[1], "train", derive={"openpose_18": KINECT})
    clips = torch.arange(4)
    x = mixed.clips("openpose_18", TRAIN + clips)
    assert torch.equal(x[:, :1], own.clips("openpose_18", clips))

    # A set derives what the other one has; alone, it would be asked for twice there.
    mixed = MixedDataset(folders, "train", [H36M, KINECT], derive=["smpl_24"])
    assert [part.derived for part in mixed.parts] == [{"smpl_24": KINECT}, {}]
    of_part = [list(part.layouts) for part in mixed.parts]
    assert of_part == [[H36M, KINECT, "smpl_24"], [KINECT, "smpl_24"]]


@pytest.mark.parametrize(
    ("asked", "text"),
    [({"layouts": ["coco_17"]}, "no data set has the layout 'coco_17': .*/a has h36m_17, kin"),
     ({"layouts": [H36M]}, "b has none of the layouts h36m_17; it has kinectv1_20, smpl_24"),
     ({"derive": [KINECT]}, "no data set gives the layout 'kinectv1_20': .*a has it already"),
     ({"derive": ["nowhere"]}, "nowhere"), ({"storage": "int8"}, "storage must be one of")],
)  # fmt: skip
def test_layouts_that_are_not_there(folders, asked, text):
    with pytest.raises(InputError, match=text):
        MixedDataset(folders, "train", **asked)


@pytest.mark.parametrize(
    ("changes", "text"),
    [({"frame": "body"}, "camera .size none. and body .size torso.; prepare one of them again"),
     ({"frames": 9}, "clips of 8 and of 9 frames; prepare one of them again with --frames 8")],
)  # fmt: skip
def test_data_sets_that_are_prepared_unlike_are_refused(folders, tmp_path, changes, text):
    other = prepare_other(tmp_path / "b", **changes)
    with pytest.raises(InputError, match=text) as refused:
        MixedDataset([folders[0], other], "train")
    assert "\n" not in str(refused.value)


def test_clips_of_two_and_of_three_dimensions_are_refused(folders, tmp_path):
    given = {"frame": None, "coordinates": "xy_score"}
    other = prepare_other(tmp_path / "b", **given)
    with pytest.raises(InputError, match="hold xyz and xy_score clips"):
        MixedDataset([folders[0], other], "train")
