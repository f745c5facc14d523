"""The joint, motion and bone streams, by hand and for every layout's own bones."""

from __future__ import annotations

import pytest
import torch

from msclr import layouts
from msclr.data.streams import STREAMS, to_stream
from msclr.errors import InputError
from msclr.layouts import Layout

ARM = Layout(
    "streams_arm_3", ["hand", "elbow", "hip"], [["elbow", "hip"], ["hand", "elbow"]], "hip"
)


def two_frames() -> torch.Tensor:
    """One clip of one body, three joints along x: (1, 1, 2, 3, 3)."""
    x = torch.zeros(1, 1, 2, 3, 3)
    x[0, 0, :, :, 0] = torch.tensor([[7.0, 4.0, 2.0], [9.0, 4.0, 1.0]])
    return x


@pytest.mark.parametrize(
    ("stream", "wanted"),
    [
        ("joint", [[7, 4, 2], [9, 4, 1]]),
        ("motion", [[2, 0, -1], [0, 0, 0]]),
        ("bone", [[3, 2, 0], [5, 3, 0]]),
    ],
)
def test_streams_by_hand(stream, wanted):
    found = to_stream(two_frames(), stream, ARM)
    assert found.shape == (1, 1, 2, 3, 3)
    assert found[0, 0, :, :, 0].tolist() == wanted
    assert not found[..., 1:].any()


@pytest.mark.parametrize("name", layouts.names())
def test_bones_are_those_of_the_layout(name):
    layout = layouts.get(name)
    x = torch.randn(2, 2, 3, layout.num_joints, 3, generator=torch.Generator().manual_seed(0))
    found = to_stream(x, "bone", layout)
    wanted, done = torch.zeros_like(x), set()
    for child, parent in layout.bone_indices:
        if child not in done:  # a later bone of the same joint only closes a loop
            wanted[:, :, :, child] = x[:, :, :, child] - x[:, :, :, parent]
            done.add(child)
    assert len(done) < layout.num_joints  # at least the centre has no parent
    assert torch.equal(found, wanted)


def test_motion_joins_neither_clips_nor_bodies():
    x = torch.randn(3, 2, 5, 3, 3, generator=torch.Generator().manual_seed(1))
    found = to_stream(x, "motion", ARM)
    for clip in range(3):
        for body in range(2):
            for t in range(4):
                assert torch.equal(found[clip, body, t], x[clip, body, t + 1] - x[clip, body, t])
            assert not found[clip, body, 4].any()


@pytest.mark.parametrize("stream", STREAMS)
def test_streams_leave_their_input_and_absent_bodies_as_they_are(stream):
    x = torch.randn(2, 2, 4, 3, 3, generator=torch.Generator().manual_seed(2))
    x[1, 1] = 0
    before = x.clone()
    assert not to_stream(x, stream, ARM)[1, 1].any()
    assert torch.equal(x, before)


@pytest.mark.parametrize("stream", STREAMS)
def test_planar_joints_keep_their_score(stream):
    x = torch.randn(2, 2, 5, 3, 3, generator=torch.Generator().manual_seed(2))
    found = to_stream(x, stream, ARM, planar=True)
    assert torch.equal(found[..., :2], to_stream(x, stream, ARM)[..., :2])
    assert torch.equal(found[..., 2], x[..., 2])


def test_an_unknown_stream_is_refused_in_one_line():
    with pytest.raises(InputError, match="joint, motion, bone, got 'speed'") as error:
        to_stream(two_frames(), "speed", ARM)
    assert "\n" not in str(error.value)
