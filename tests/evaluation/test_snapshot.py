"""The map of an embedding while its encoder trains: it changes nothing of the training."""

from __future__ import annotations

import pytest
import torch

from msclr.data.dataset import SkeletonDataset
from msclr.errors import InputError
from msclr.evaluation import embedding_snapshot, open_run
from msclr.evaluation.snapshot import sample_features
from msclr.evaluation.splits import features_of
from tests.tiny import LAYOUTS, TRAIN


@pytest.fixture
def encoder(folders):
    """In training, as pretraining has it."""
    return open_run(folders["joint"]).encoder.train()


def test_the_features_are_those_of_evaluation(encoder, data, run):
    train = SkeletonDataset(data, "train", [LAYOUTS[0]])
    features, labels = sample_features(encoder, train, LAYOUTS[0], "joint", 1000)
    wanted = features_of(run, LAYOUTS[0])
    torch.testing.assert_close(features, wanted.train)
    assert labels.equal(wanted.train_labels)
    some, _ = sample_features(encoder, train, LAYOUTS[0], "joint", 5)
    torch.testing.assert_close(some, wanted.train[[0, 4, 8, 13, 17]])


def test_training_is_not_touched(encoder, data):
    train = SkeletonDataset(data, "train", [LAYOUTS[0]])
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    state = torch.get_rng_state()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        figure = embedding_snapshot(encoder, train, LAYOUTS[0], title="step 40")
    assert encoder.training and all(module.training for module in encoder.modules())
    assert torch.get_rng_state().equal(state)
    assert all(value.equal(before[name]) for name, value in encoder.state_dict().items())
    (axes,) = figure.axes
    assert axes.get_title() == "step 40"
    assert sum(len(points.get_offsets()) for points in axes.collections) == TRAIN


def test_too_few_clips_are_refused(encoder, data):
    train = SkeletonDataset(data, "train", [LAYOUTS[0]])
    with pytest.raises(InputError, match="3 clips or more"):
        embedding_snapshot(encoder, train, LAYOUTS[0], clips=2)
    assert encoder.training
