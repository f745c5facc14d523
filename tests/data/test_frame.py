"""The frame of a body: where it is, how the sensor saw it and its size change nothing."""

from __future__ import annotations

import numpy as np
import pytest

from msclr import layouts
from msclr.data import toy
from msclr.data.skeleton.frame import Frame, body_frame, tells_frame
from msclr.layouts import Layout

KINECT = layouts.get("kinectv2_25")


@pytest.fixture(scope="module")
def clips():
    """Two clips of one body under several conventions, {layout: [(1, T, V, 3), …]}."""
    names = ["kinectv2_25", "smplx_42", "berkeley_mhad_43", "smpl_24"]
    views = toy.generate(8, layouts=names)["views"]
    return {name: [np.atleast_1d(x[3]), x[5]] for name, x in views.items()}


def one(clips, name="kinectv2_25", number=0):
    clip = np.asarray(clips[name][number], np.float64)
    return clip if clip.ndim == 4 else clip[None]


def some_rotation(seed=0):
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return q * np.linalg.det(q)


def upright(frames=30):
    """A body that stands still with its hips at (1, 2, 3), faces z and has a torso of 0.5."""
    at = {joint: (0.0, 0.0, 0.0) for joint in KINECT.joints}
    at |= {"spineshoulder": (0, 0.5, 0), "neck": (0, 0.56, 0), "head": (0, 0.7, 0.02)}
    at |= {"lsho": (0.2, 0.45, 0), "rsho": (-0.2, 0.45, 0), "lhip": (0.1, 0, 0)}
    at |= {"rhip": (-0.1, 0, 0), "spinemid": (0, 0.28, 0), "lfoo": (0.1, -0.8, 0.1)}
    body = np.array([at[joint] for joint in KINECT.joints])
    return np.tile(body + [1, 2, 3], (1, frames, 1, 1))


def test_axes_are_left_up_and_forward():
    frame = body_frame(upright(), KINECT)
    np.testing.assert_allclose(frame.rotation, np.eye(3), atol=1e-9)
    np.testing.assert_allclose(frame.origin, [1, 2, 3], atol=1e-9)
    assert frame.scale == pytest.approx(0.5) and not frame.lacking
    seen = frame.apply(upright())[0, 0]
    np.testing.assert_allclose(seen[KINECT.joints.index("spineshoulder")], [0, 1, 0], atol=1e-9)
    np.testing.assert_allclose(seen[KINECT.joints.index("lfoo")], [0.2, -1.6, 0.2], atol=1e-9)


@pytest.mark.parametrize("name", ["kinectv2_25", "smplx_42", "berkeley_mhad_43", "smpl_24"])
def test_turning_moving_and_scaling_a_clip_change_nothing(clips, name):
    clip, layout = one(clips, name), layouts.get(name)
    for seed in range(3):
        moved = 3 * clip @ some_rotation(seed).T + [1, -2, 5]
        seen = np.isfinite(clip).all(axis=-1) & (clip != 0).any(axis=-1)
        a, b = (body_frame(x, layout, seen).apply(x, ~seen) for x in (clip, moved))
        np.testing.assert_allclose(a, b, atol=1e-9)


def test_conventions_of_one_clip_agree(clips):
    """All of them are clips of one body; landmarks of markers are some centimetres off."""
    frames = {name: body_frame(one(clips, name), layouts.get(name)) for name in clips}
    wanted = frames["kinectv2_25"]
    for frame in frames.values():
        turned = np.trace(frame.rotation @ wanted.rotation.T)
        assert np.degrees(np.arccos(np.clip((turned - 1) / 2, -1, 1))) < 12
        assert np.linalg.norm(frame.origin - wanted.origin) < 0.08
        assert frame.scale == pytest.approx(wanted.scale, rel=0.15)


def test_motion_through_space_and_turns_stay():
    clip = upright(60)
    clip[0, 30:] += [0, 0, 2]  # it walks two metres on: four torsos
    hips = body_frame(clip, KINECT).apply(clip)[0, :, 0]
    np.testing.assert_allclose(hips[40] - hips[10], [0, 0, 4], atol=1e-6)
    angle = np.linspace(0, np.pi, 60)
    turn = np.zeros((60, 3, 3))
    turn[:, 0, 0], turn[:, 0, 2] = np.cos(angle), np.sin(angle)
    turn[:, 2, 0], turn[:, 2, 2], turn[:, 1, 1] = -np.sin(angle), np.cos(angle), 1
    turning = np.einsum("tij,tvj->tvi", turn, upright(60)[0] - [1, 2, 3])[None]
    seen = body_frame(turning, KINECT).apply(turning)[0]
    left = KINECT.joints.index("lsho")
    assert np.linalg.norm(seen[0, left] - seen[-1, left]) == pytest.approx(0.8, abs=0.02)


def test_the_median_leaves_out_frames_that_jump():
    clip = upright()
    clip[0, [2, 9, 15]] = np.random.default_rng(0).normal(0, 5, (3, 25, 3))
    frame = body_frame(clip, KINECT)
    assert np.abs(frame.rotation - np.eye(3)).max() < 0.05
    assert np.abs(frame.origin - [1, 2, 3]).max() < 0.05 and abs(frame.scale - 0.5) < 0.05


def test_only_the_first_twenty_frames_in_sight_count():
    clip = upright(50)
    clip[0, 20:] = clip[0, 20:] @ some_rotation().T
    clip[0, :5] = 0  # not there yet: five of the turned frames count, and are outvoted
    np.testing.assert_allclose(body_frame(clip, KINECT).rotation, np.eye(3), atol=0.01)


@pytest.mark.parametrize(
    "gone",
    [["lhip"], ["rhip", "lhip"], ["spinebase", "lhip"], ["spineshoulder"], ["lsho", "rsho"]]
    + [["spineshoulder", "neck"], ["spinebase", "rhip", "spinemid"]],
)
def test_landmarks_that_are_there_decide(gone):
    clip = upright()
    clip[:, :, [KINECT.joints.index(joint) for joint in gone]] = np.nan
    frame = body_frame(clip, KINECT)
    assert not frame.lacking
    assert np.abs(frame.rotation - np.eye(3)).max() < 0.1
    assert np.abs(frame.origin - [1, 2, 3]).max() < 0.06
    assert frame.scale == pytest.approx(0.5, rel=0.12)


@pytest.mark.parametrize(
    ("kept", "lacking"),
    [
        (["lsho", "rsho", "head", "neck"], "hips or back"),
        (["spinebase", "lhip", "rhip", "lfoo"], "shoulders, neck or head"),
        (["spinebase", "spineshoulder", "head"], "left and right"),
    ],
)
def test_too_few_landmarks_leave_axes_and_unit(kept, lacking):
    clip = upright()
    hidden = [v for v, joint in enumerate(KINECT.joints) if joint not in kept]
    clip[:, :, hidden] = 0
    frame = body_frame(clip, KINECT)
    assert frame.lacking == lacking and frame.scale == 1
    np.testing.assert_array_equal(frame.rotation, np.eye(3))


def test_ends_of_the_trunk_that_are_never_seen_together():
    clip = upright(40)
    low = [KINECT.joints.index(j) for j in ("spinebase", "lhip", "rhip", "spinemid")]
    clip[:, :20, low] = np.nan
    clip[:, 20:, [v for v in range(25) if v not in low]] = np.nan
    assert body_frame(clip, KINECT).lacking == "both ends of the trunk at once"


def test_left_along_up_is_no_frame():
    clip = upright()
    for joint, y in {"lsho": 2.45, "rsho": 1.45, "lhip": 2.2, "rhip": 1.8}.items():
        clip[:, :, KINECT.joints.index(joint)] = 1, y, 3
    assert body_frame(clip, KINECT).lacking == "a trunk and sides that are apart"


def test_the_main_body_moves_most_or_is_named():
    still, moving = upright() @ some_rotation(5).T, upright() @ some_rotation().T
    moving = moving + 0.1 * np.sin(np.arange(30))[None, :, None, None]
    both = np.concatenate([still, moving])
    np.testing.assert_array_equal(
        body_frame(both, KINECT).rotation, body_frame(moving, KINECT).rotation
    )
    np.testing.assert_array_equal(
        body_frame(both, KINECT, main=0).rotation, body_frame(still, KINECT).rotation
    )
    both[1, :, KINECT.joints.index("spinebase")] = np.nan
    both[1, :, [KINECT.joints.index(j) for j in ("lhip", "rhip", "spinemid")]] = np.nan
    np.testing.assert_array_equal(
        body_frame(both, KINECT, main=1).rotation, body_frame(still, KINECT).rotation
    )


def test_there_and_back_and_what_is_missing_stays_missing(clips):
    clip = one(clips).copy()
    clip[0, 3, 4], clip[0, :, 7] = np.nan, 0
    frame = body_frame(clip, KINECT)
    placed = frame.apply(clip)
    assert np.isnan(placed[0, 3, 4]).all() and not placed[0, :, 7].any()
    np.testing.assert_allclose(frame.invert(placed), clip, atol=1e-12)
    again = Frame.from_row(frame.to_row())
    np.testing.assert_array_equal(again.apply(clip), placed)


def test_a_joint_at_the_origin_is_not_missing():
    clip = upright()
    frame = Frame(np.eye(3), clip[0, 0, 0], 1.0)  # exactly at the base of the spine
    placed = frame.apply(clip)
    assert placed[0, :, 0].any(axis=-1).all() and np.abs(placed[0, :, 0]).max() < 1e-8
    np.testing.assert_allclose(frame.invert(placed), clip, atol=1e-8)


def test_nothing_in_sight():
    frame = body_frame(np.zeros((2, 4, 25, 3)), KINECT)
    assert frame.lacking == "any body" and frame.scale == 1


def test_every_shipped_layout_tells_the_frame_and_one_without_landmarks_does_not():
    assert all(tells_frame(layouts.get(name)) for name in layouts.names())
    fly = Layout("frame_fly", ["head", "body"], [["head", "body"]], "body", flip=[])
    assert not tells_frame(fly)
    frame = body_frame(np.ones((1, 3, 2, 3)), fly)
    assert frame.lacking == "hips or back"
    np.testing.assert_array_equal(frame.origin, [1, 1, 1])  # its centre
