"""How the clips of other projects' encoders are prepared."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import msclr
from msclr import layouts
from msclr.encoder.features import encode
from msclr.encoder.preparation import Preparation
from msclr.encoder.projects import preparation_of
from msclr.errors import InputError
from tests.nn.lookalikes import Encoder, trained

KINECT = layouts.get("kinectv2_25")


def their_state(layout=KINECT, **more):
    """The state_dict of an encoder as AimCLR's."""
    torch.manual_seed(0)
    return {**trained(Encoder(layout.adjacency("spatial"))).state_dict(), **more}


@pytest.fixture(scope="module")
def encoder():
    return msclr.load(their_state())


@pytest.fixture(scope="module")
def standing():
    """A body of the generated data, of 30 frames, somewhere in a room: (T, 25, 3)."""
    from examples.derived_layouts import standing_body

    body = standing_body("kinectv2_25")
    wave = 0.1 * np.sin(np.arange(30) / 5)[:, None, None] * np.arange(25)[:, None]
    return body + 0.02 * wave + [0.3, -0.8, 2.5]


def turned(xyz, degrees, axis=1):
    """Turned about an axis through the origin."""
    angle, (a, b) = np.radians(degrees), [i for i in range(3) if i != axis]
    rotation = np.eye(3)
    rotation[a, a] = rotation[b, b] = np.cos(angle)
    rotation[b, a] = np.sin(angle)
    rotation[a, b] = -rotation[b, a]
    return xyz @ rotation.T


def prepared(encoder, clip):
    """(50, 25, 3)"""
    return encoder.preparation.prepare([clip], KINECT)[0][0, 0]


def test_clips_of_the_aimclr_family_are_centred_turned_and_of_50_frames(encoder, standing):
    x, bodies = encoder.preparation.prepare([turned(standing, 70)], KINECT)
    assert x.shape == (1, 2, 50, 25, 3) and bodies.tolist() == [[True, False]]
    assert not x[0, 0, :, KINECT.joints.index("spineshoulder")].any()
    left, right = (x[0, 0, 0, KINECT.joints.index(joint)] for joint in ("lsho", "rsho"))
    assert right[0] > left[0] and abs(right[2] - left[2]) < 1e-6


def test_a_bodys_place_and_direction_change_nothing(encoder, standing):
    wanted = prepared(encoder, standing)
    for clip in (standing + [1, 0.2, -2], turned(standing, 130), turned(standing, 90, axis=0)):
        torch.testing.assert_close(prepared(encoder, clip), wanted, rtol=0, atol=1e-6)
    torch.testing.assert_close(prepared(encoder, 1.3 * standing), 1.3 * wanted)


def test_a_mirrored_axis_is_no_turn(encoder, standing):
    """Down is -y in many images: turned by half a turn, and left stays left."""
    down = standing * [-1, -1, 1]
    wanted = prepared(encoder, standing)
    torch.testing.assert_close(prepared(encoder, down), wanted, rtol=0, atol=1e-6)


def test_an_absent_body_is_left_out_of_the_mean(encoder, standing):
    alone = encoder.embed(standing, KINECT)
    x, bodies = encoder.preparation.prepare([standing], KINECT)
    one = encode(encoder.model, x[:, :1], bodies[:, :1], "kinectv2_25", "joint")
    assert alone.equal(one)
    two = np.stack([standing, np.zeros_like(standing)])
    assert encoder.embed(two, KINECT).equal(alone)


def test_pyskl_has_z_up_about_the_spine(standing):
    x, _ = Preparation(100, 2, "body", pyskl=True).prepare([turned(standing, 40)], KINECT)
    first = dict(zip(KINECT.joints, x[0, 0, 0].tolist(), strict=True))
    assert x.shape[2] == 100
    assert first["head"][2] > 0.4 and first["lank"][2] < -0.5  # up
    assert first["rsho"][0] > 0.1 > -0.1 > first["lsho"][0]  # to the right
    assert np.abs(first["spinemid"]).max() < 0.1
    frame = x[0, 0, 0].double()
    got = torch.cdist(frame[None], frame[None])[0]
    body = torch.tensor(turned(standing, 40)[0])
    torch.testing.assert_close(got, torch.cdist(body[None], body[None])[0], rtol=0, atol=1e-5)


def test_weights_of_st_gcn_take_clips_as_they_are(standing):
    state = their_state(**{"fcn.weight": torch.zeros(60, 12, 1, 1)})
    encoder = msclr.load(state)
    assert (encoder.preparation.frame, encoder.preparation.frames) == ("none", 300)
    x, _ = encoder.preparation.prepare([standing], KINECT)
    assert np.abs(x[0, 0, 0].numpy() - standing[0]).max() < 1e-6


def test_weights_on_poses_in_images_are_refused_where_nobody_knows_their_scale():
    state = their_state(layouts.get("openpose_18"), **{"fcn.weight": torch.zeros(400, 12, 1, 1)})
    with pytest.raises(InputError, match="ST-GCN on poses in images"):
        msclr.load(state)


def test_millimetres_are_noticed(encoder, standing):
    with pytest.raises(InputError, match="another unit; give metres"):
        encoder.embed(1000 * standing, KINECT)


def test_other_streams_of_them_are_asked_for(standing):
    joint, bone = msclr.load(their_state()), msclr.load(their_state(), stream="bone")
    assert not joint.embed(standing, KINECT).equal(bone.embed(standing, KINECT))
    with pytest.raises(InputError, match="stream is 'velocity'; choose one of joint, motion, bone"):
        msclr.load(their_state(), stream="velocity")


def test_what_is_no_checkpoint_is_refused(tmp_path):
    torch.save(torch.zeros(3), tmp_path / "x.pt")
    with pytest.raises(InputError, match="holds a Tensor, wanted a checkpoint"):
        msclr.load(tmp_path / "x.pt")
    with pytest.raises(InputError, match="it has no ST-GCN"):
        msclr.load({"weight": torch.zeros(3)})


def test_keys_decide_the_preparation():
    encoder = msclr.load(their_state())
    assert encoder.preparation == preparation_of(their_state(), encoder.model)
    assert encoder.preparation.frame == "ntu"
