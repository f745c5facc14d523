"""Published encoders of NTU RGB+D on other people's clips, neither part of this project."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import msclr
from examples.utkinect import LAYOUT, read_actions
from msclr.evaluation import fit_linear, knn

WEIGHTS = "ntu60_xview_{}_joint_linear.pt"


@pytest.fixture(scope="module")
def utkinect(shared_data):
    """Clips, labels, and which are of odd people, whose labels are known."""
    folder = shared_data / "utkinect"
    if not (folder / "actionLabel.txt").is_file():
        pytest.skip(f"no clips of UTKinect in {folder} (MSCLR_SHARED_DATA names a folder)")
    actions = read_actions(folder / "actionLabel.txt")
    recordings = {a[0]: np.loadtxt(folder / f"joints_{a[0]}.txt") for a in actions}
    classes = sorted({action for _, action, _, _ in actions})
    clips = []
    for name, _, first, last in actions:
        frames = recordings[name]
        rows = (frames[:, 0] >= first) & (frames[:, 0] <= last)
        clips.append(frames[rows, 1:].reshape(-1, 20, 3))
    labels = torch.tensor([classes.index(action) for _, action, _, _ in actions])
    return clips, labels, torch.tensor([int(name[1:3]) % 2 == 1 for name, _, _, _ in actions])


def load(shared_data, name, **options):
    path = shared_data / "weights" / WEIGHTS.format(name)
    if not path.is_file():
        pytest.skip(f"no genuine weights: {path} is no file (MSCLR_SHARED_DATA names a folder)")
    return msclr.load(path, **options)


@pytest.mark.parametrize(("name", "neighbour", "linear"), [("actclr", 90, 94), ("aimclr", 91, 90)])
def test_a_line_gives_features_that_tell_the_actions_of_another_sensor(
    shared_data, utkinect, name, neighbour, linear
):
    clips, labels, known = utkinect
    features = load(shared_data, name).embed(clips, layout=LAYOUT)
    assert features.shape == (len(clips), 256)
    data = features[known], labels[known], features[~known], labels[~known]
    assert knn(*data, 10, [1])[1] >= neighbour
    assert fit_linear(*data, 10).top1 >= linear


def test_attached_it_tells_far_more_than_chance(shared_data, utkinect):
    clips, labels, known = utkinect
    features = load(shared_data, "actclr", route="attach").embed(clips, layout=LAYOUT)
    data = features[known], labels[known], features[~known], labels[~known]
    assert knn(*data, 10, [1])[1] >= 85  # 65 with edge importance 1


def test_which_axis_points_up_changes_nothing(shared_data, utkinect):
    encoder, clips = load(shared_data, "aimclr"), utkinect[0][:4]
    turned = [clip[..., [0, 2, 1]] * [1, -1, 1] for clip in clips]  # x, -z, y: z is up
    assert encoder.embed(turned, LAYOUT).equal(encoder.embed(clips, LAYOUT))
