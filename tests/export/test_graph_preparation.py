"""Preparation as a graph, held against the one in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from msclr import layouts
from msclr.encoder.preparation import Preparation
from msclr.encoder.upright import stand_up
from msclr.export.preparation import GraphPreparation

PREPARATIONS = [
    Preparation(11, 2, "body", "torso"),
    Preparation(11, 1, "body", "none"),
    Preparation(1, 2, "camera", "torso", extent=1.7),
    Preparation(11, 2, "ntu", upright=True, extent=1.7),
    Preparation(7, 2, "ntu", "torso"),
    Preparation(11, 2, "none"),
    Preparation(11, 2, "body", pyskl=True),
    Preparation(9, 2, coordinates="xy_score"),
]


def made_clips(layout, bodies, frames, lost, seed=0):
    """(8, M, T, V, 3) float32: with ``lost`` also joints and bodies that are never seen, and frames
    without a joint at both ends."""
    rng, joints = np.random.default_rng(seed), layout.num_joints
    shape = 8, bodies, 1, joints, 3
    time = np.linspace(0, 6, frames)[:, None, None]
    x = rng.normal(0, 0.5, shape) + 0.2 * np.sin(time * rng.uniform(0.5, 2, shape))
    x = (x + rng.normal(0, 1, (8, 1, 1, 1, 3))).astype(np.float32)
    x[rng.random(x.shape[:-1]) < lost] = np.nan
    x[rng.random(x.shape[:-1]) < lost / 2] = 0
    for clip in range(8) if lost else ():
        x[clip, :, :, rng.integers(joints, size=clip)] = np.nan
        if clip % 3 == 0 and bodies > 1:
            x[clip, rng.integers(bodies)] = 0
        if clip % 4 == 1:
            x[clip, :, :2], x[clip, :, -1] = 0, np.nan
    return x


def compact(x, kept):
    """Bodies that are kept first, as Preparation has them."""
    out = torch.zeros_like(x)
    for clip, rows in enumerate(kept):
        out[clip, : int(rows.sum())] = x[clip, rows]
    return out


@pytest.mark.parametrize("how", PREPARATIONS, ids=lambda how: f"{how.frame}-{how.size_by}")
@pytest.mark.parametrize("name", ["kinectv2_25", "h36m_17", "uiprmd_vicon_39"])
def test_a_clip_is_prepared_as_by_numpy(name, how):
    layout = layouts.get(name)
    graph = GraphPreparation(how, layout)
    for bodies, frames, lost in ((1, 9, 0), (2, 30, 0), (3, 30, 0.2), (2, 1, 0), (2, 25, 0.6)):
        clips = made_clips(layout, bodies, frames, lost)
        if how.planar:
            clips[..., 2] = np.abs(clips[..., 2])
        wanted, there = how.prepare(list(clips), layout)
        x, kept, usable = graph(torch.from_numpy(clips))
        assert usable.all() and kept.sum(dim=1).equal(there.sum(dim=1))
        x = compact(x, kept)[:, : how.bodies]
        assert (x - wanted[:, : x.shape[1]]).abs().max() < 1e-6
        assert wanted.abs().max() > 0.1


def test_a_centre_at_0_throughout_is_measured():
    layout = layouts.get("kinectv2_25")
    clips = made_clips(layout, 1, 9, 0)
    clips[..., layout.center_index, :] = 0
    how = Preparation(5, 1, "camera")
    x, *_ = GraphPreparation(how, layout)(torch.from_numpy(clips))
    assert (x - how.prepare(list(clips), layout)[0]).abs().max() < 1e-6


@pytest.mark.parametrize("factor", [1000.0, 0.001])
def test_clips_in_another_unit_are_not_usable(factor):
    layout = layouts.get("kinectv2_25")
    clips = torch.from_numpy(made_clips(layout, 1, 9, 0))
    graph = GraphPreparation(Preparation(5, 1, "camera", extent=2.0), layout)
    assert graph(clips)[2].all() and not graph(clips * factor)[2].any()


def test_clips_without_a_joint_or_too_large_are_not_usable():
    layout = layouts.get("kinectv2_25")
    clips = torch.from_numpy(made_clips(layout, 2, 9, 0))
    clips[1], clips[2] = torch.nan, 0
    clips[4, 0, :, 3] = 3e38
    clips[4, 0, :, layout.center_index] = -3e38
    *_, usable = GraphPreparation(Preparation(5, 2, "camera"), layout)(clips)
    assert usable.tolist() == [True, False, False, True, False, True, True, True]


def test_clips_that_show_no_trunk_are_not_turned():
    layout = layouts.get("kinectv2_25")
    clips = made_clips(layout, 1, 9, 0)
    clips[..., 2:, :] = 0
    assert stand_up(list(clips), layout)[3] is not None
    assert np.array_equal(stand_up(list(clips), layout), clips)
