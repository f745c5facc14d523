"""The frame and the size of prepared clips, and views that are derived as clips are prepared."""

from __future__ import annotations

import json

import numpy as np
import pytest

from msclr import layouts
from msclr.data import open_store, prepare_arrays, prepare_ctrgcn, prepare_pyskl
from msclr.data.skeleton.frame import body_frame
from msclr.errors import InputError
from msclr.layouts import Layout, derivation

NAMES = ["kinectv1_20", "smpl_24"]
FRAMES = 30


def clips(name: str, count: int = 6) -> list[np.ndarray]:
    """Upright bodies that sway and walk, each somewhere else: (2, T, V, 3) metres.

    The second body moves more from clip 3 on.
    """
    layout = layouts.get(name)
    rng = np.random.default_rng(layout.num_joints)
    rest = rng.normal(0, 0.05, (layout.num_joints, 3))
    rest += [[_side(joint), _height(joint), 0] for joint in layout.joints]
    made = []
    for i in range(count):
        time = np.linspace(0, 1, 20 + i)[:, None, None]
        walk = np.array([0.3, 0, 0.5]) * time  # (T, 1, 3)
        sway = 0.02 * np.sin(9 * time + rng.uniform(0, 6, rest.shape))
        one = rest + sway + walk * (i < 3)
        other = rest + sway[:, ::-1] + 1.5 * walk * (i >= 3) + [1, 0, 0.2]
        made.append(np.stack([one, other]) @ _rotation(i).T + [i, 1, 3])
    return made


def _side(joint: str) -> float:
    joint = joint.lower()
    left = joint.startswith("l") and not joint.startswith(("lum", "low")) or "left" in joint
    right = joint.startswith("r") or "right" in joint
    return 0.2 * (left - right)


def _height(joint: str) -> float:
    heights = {"head": 0.7, "should": 0.5, "sho": 0.5, "neck": 0.55, "spine": 0.25, "bell": 0.2}
    heights |= {"spin": 0.25, "clav": 0.45, "thor": 0.4}
    return next((y for part, y in heights.items() if part in joint.lower()), 0.0)


def _rotation(seed: int) -> np.ndarray:
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return q * np.linalg.det(q)


def prepare(out, views=None, **options):
    views = views or {name: clips(name) for name in NAMES}
    count = len(next(iter(views.values())))
    split = ["train"] * (count - 2) + ["val"] * 2
    options = {"frames": FRAMES} | options
    return prepare_arrays(out, views, [i % 2 for i in range(count)], split, **options)


def view_of(folder, name):
    """(N, M, T, V, 3) of both splits."""
    store = open_store(folder)
    return np.concatenate([store.split(split).views[name] for split in ("train", "val")])


def test_the_body_frame_forgets_where_the_sensor_stood_and_how_large_the_person_is(tmp_path):
    prepare(tmp_path / "one", frame="body")
    views = {}
    for name in NAMES:
        turned = [2 * x @ _rotation(90 + i).T + [3, i, 1] for i, x in enumerate(clips(name))]
        views[name] = turned
    prepare(tmp_path / "other", views, frame="body")
    for name in NAMES:
        one, other = view_of(tmp_path / "one", name), view_of(tmp_path / "other", name)
        np.testing.assert_allclose(one, other, atol=2e-6)
        assert np.abs(one[:3, 0, :, 0] - one[:3, 0, :1, 0]).max() > 0.5  # the walk stays


def test_constants_are_those_of_body_frame_by_each_views_own_landmarks(tmp_path):
    prepare(tmp_path / "set", frame="body")
    store = open_store(tmp_path / "set")
    assert (store.frame, store.size_by, store.meta["units"][:5]) == ("body", "torso", "torso")
    for name in NAMES:
        split = store.split("train")
        for i, clip in enumerate(clips(name)[:4]):
            wanted = body_frame(clip, store.layouts[name], main=int(i >= 3))
            np.testing.assert_allclose(split.constants[name][i], wanted.to_row(), atol=1e-12)


def test_all_views_of_a_clip_take_one_main_body(tmp_path):
    """The one that moves most under all of them, though it is the other under the second alone."""
    views = {name: clips(name, 3) for name in NAMES}
    for clip in views["smpl_24"]:
        clip[1] += 0.4 * np.sin(np.arange(clip.shape[1]) / 3)[:, None, None]
        clip[0] = clip[0].mean(axis=0)
    for clip in views["kinectv1_20"]:
        clip[0] += 3 * np.sin(np.arange(clip.shape[1]) / 3)[:, None, None]
    prepare(tmp_path / "set", views, frame="body")
    store = open_store(tmp_path / "set")
    for name in NAMES:
        wanted = body_frame(views[name][0], store.layouts[name], main=0)
        got = store.split("train").constants[name][0]
        np.testing.assert_allclose(got, wanted.to_row(), atol=1e-12)
    alone = body_frame(views["smpl_24"][0], store.layouts["smpl_24"])
    assert np.abs(alone.to_row() - wanted.to_row()).max() > 0.1


def test_metres_come_back(tmp_path):
    views = {"kinectv1_20": clips("kinectv1_20")}
    views["kinectv1_20"][0][:, :, 5] = 0  # never seen
    prepare(tmp_path / "raw", views, frame="none")
    for size in ("torso", "none"):
        prepare(tmp_path / size, views, frame="body", size=size)
        for split in ("train", "val"):
            framed = open_store(tmp_path / size).split(split)
            raw = open_store(tmp_path / "raw").split(split)
            for i in range(len(raw)):
                wanted = raw.views["kinectv1_20"][i]
                np.testing.assert_allclose(framed.metres("kinectv1_20", i), wanted, atol=1e-5)
                np.testing.assert_array_equal(raw.metres("kinectv1_20", i), wanted)
    assert not open_store(tmp_path / "torso").split("train").metres("kinectv1_20", 0)[:, :, 5].any()


def test_metres_of_a_body_at_rest(tmp_path):
    """Its hips lie at the origin in every frame, which is not to be read as missing."""
    still = clips("smpl_24")[0][:, :1].repeat(4, axis=1)
    prepare(tmp_path / "set", {"smpl_24": [still] * 4}, frame="body", frames=4)
    got = open_store(tmp_path / "set").split("train").metres("smpl_24", 0)
    np.testing.assert_allclose(got, still, atol=1e-5)


@pytest.mark.parametrize("frame", ["camera", "ntu"])
def test_centred_frames_keep_no_place_and_say_so(tmp_path, frame):
    prepare(tmp_path / "set", frame=frame, size="torso")
    store = open_store(tmp_path / "set")
    assert (store.frame, store.size_by) == (frame, "torso")
    xyz = view_of(tmp_path / "set", "smpl_24")
    assert not xyz[:, :, :, store.layouts["smpl_24"].center_index].any()
    with pytest.raises(InputError, match=f"{frame!r} does not keep .*--frame body or none"):
        store.split("train").metres("smpl_24", 0)
    prepare(tmp_path / "plain", frame=frame)
    scale = open_store(tmp_path / "set").split("train").constants["smpl_24"][:, 12]
    plain = open_store(tmp_path / "plain").split("train").views["smpl_24"]
    np.testing.assert_allclose(
        xyz[:4] * scale[:, None, None, None, None], plain, rtol=1e-5, atol=1e-6
    )


def test_the_ntu_frame_lays_the_shoulders_of_the_main_body_along_x(tmp_path):
    prepare(tmp_path / "set", frame="ntu")
    xyz, joints = view_of(tmp_path / "set", "kinectv1_20"), layouts.get("kinectv1_20").joints
    left, right = joints.index("ShoulderLeft"), joints.index("ShoulderRight")
    for i, clip in enumerate(xyz):
        across = (clip[:, 0, right] - clip[:, 0, left])[int(i >= 3)]  # in the first frame
        assert across[0] > 0 and abs(across[2]) < 1e-6


def test_a_default_that_the_landmarks_do_not_tell_gives_way_and_says_so(tmp_path):
    fly = Layout("frames_fly", ["body", "head"], [["head", "body"]], "body", flip=[])
    views = {fly: [np.random.default_rng(i).normal(size=(5, 2, 3)) for i in range(4)]}
    report = prepare(tmp_path / "fly", views)
    assert open_store(tmp_path / "fly").frame == "camera"
    assert prepare(tmp_path / "people").frame == "body"
    (line,) = (line for line in report.lines() if line.startswith("frame: "))
    assert "the landmarks of frames_fly do not tell the frame of a body" in line
    assert not open_store(tmp_path / "fly").split("train").constants


def test_clips_whose_frame_cannot_be_found_are_named(tmp_path):
    views = {"kinectv1_20": clips("kinectv1_20")}
    trunk = [layouts.get("kinectv1_20").joints.index(j) for j in ("HipLeft", "HipRight")]
    trunk += [layouts.get("kinectv1_20").joints.index(j) for j in ("HipCenter", "Spine")]
    views["kinectv1_20"][1][:, :, trunk] = 0
    report = prepare(tmp_path / "set", views, frame="body", names=list("abcdef"))
    assert report.unframed == {"kinectv1_20": {"hips or back": ["b"]}}
    assert any("1 clips keep their axes" in line and "(b)" in line for line in report.lines())
    assert open_store(tmp_path / "set").meta["report"]["unframed"] == report.unframed


def test_data_sets_of_older_versions(tmp_path):
    prepare(tmp_path / "set", frame="camera")
    path = tmp_path / "set" / "dataset.json"
    meta = json.loads(path.read_text())
    for key in ("frame", "size_by"):
        del meta[key]
    path.write_text(json.dumps(meta))
    store = open_store(tmp_path / "set")
    assert (store.frame, store.size_by) == ("camera", "none")
    meta["report"]["protocol"] = "xsub"
    path.write_text(json.dumps(meta))
    assert open_store(tmp_path / "set").frame == "ntu"
    path.write_text(json.dumps(meta | {"frame": "world"}))
    with pytest.raises(InputError, match="frame is 'world', this msclr reads body and camera"):
        open_store(tmp_path / "set")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(frame="world"), "frame is 'world'; choose one of body, camera"),
        (dict(size="height"), "size is 'height'; choose one of torso, none"),
        (dict(coordinates="xy_score", frame="body"), "two dimensions have no frame 'body'"),
        (dict(coordinates="xy_score", size="torso"), "and no size 'torso'"),
        (dict(derive=["smplx_42"]), "smplx_42 cannot be derived from kinectv1_20: no rule"),
        (dict(derive=["smpl_24"]), "asked for twice: derive names smpl_24"),
        (dict(derive=["h36m_17", "h36m_17"]), "asked for twice: derive names h36m_17"),
        (dict(derive=["nope"]), "nope"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        prepare(tmp_path / "set", **options)
    assert not list(tmp_path.iterdir())


# Derived views


@pytest.mark.parametrize("frame", ["body", "camera", "ntu", "none"])
def test_a_derived_view_is_its_sources_in_the_same_frame(tmp_path, frame):
    report = prepare(tmp_path / "set", frame=frame, derive=["h36m_17"])
    assert "h36m_17: computed from kinectv1_20's joints" in report.lines()
    assert open_store(tmp_path / "set").meta["derived_from"] == {"h36m_17": "kinectv1_20"}
    source, target = layouts.get("kinectv1_20"), layouts.get("h36m_17")
    xyz = view_of(tmp_path / "set", "kinectv1_20").astype(float)
    wanted = derivation(source, target) @ xyz
    if frame in ("camera", "ntu"):
        wanted -= wanted[..., [target.center_index], :]
    np.testing.assert_allclose(view_of(tmp_path / "set", "h36m_17"), wanted, atol=1e-5)


@pytest.mark.parametrize("frame", ["body", "camera"])
def test_a_derived_joint_that_needs_one_never_seen_is_missing(tmp_path, frame):
    views = {"kinectv1_20": clips("kinectv1_20")}
    source, target = layouts.get("kinectv1_20"), layouts.get("h36m_17")
    views["kinectv1_20"][0][:, :, source.joints.index("WristLeft")] = np.nan
    prepare(tmp_path / "set", views, derive=["h36m_17"], frame=frame)
    needs = derivation(source, target)[:, source.joints.index("WristLeft")] != 0
    got = view_of(tmp_path / "set", "h36m_17").any(axis=(2, 4))  # (N, M, V)
    assert needs.any() and not got[0][:, needs].any()
    assert got[1].sum() >= 2 * (target.num_joints - 1)


def test_the_source_is_the_first_view_that_tells_the_landmarks(tmp_path):
    names = ["uiprmd_kinect_22", "kinectv2_25"]  # the first tells no tip of the hand
    views = {name: [x[0] for x in clips("kinectv1_20")] for name in names}
    for name in names:
        joints = layouts.get(name).num_joints
        views[name] = [np.resize(x, (len(x), joints, 3)) for x in views[name]]
    report = prepare(tmp_path / "set", views, frame="none", derive=["h36m_17", "kinectv1_20"])
    assert report.derived_from == {"h36m_17": "uiprmd_kinect_22", "kinectv1_20": "kinectv2_25"}


def test_a_derived_view_of_two_dimensions_has_the_least_score(tmp_path):
    rng = np.random.default_rng(0)
    flat = [rng.uniform(0.1, 1, (6, 17, 3)) for _ in range(4)]
    options = dict(coordinates="xy_score", derive=["h36m_17"], frames=6)
    prepare(tmp_path / "set", {"coco_17": flat}, **options)
    matrix = derivation(layouts.get("coco_17"), layouts.get("h36m_17"))
    got = view_of(tmp_path / "set", "h36m_17")[0, 0]
    np.testing.assert_allclose(got[..., :2], matrix @ flat[0][..., :2], atol=1e-6)
    least = [flat[0][:, row != 0, 2].min(axis=1) for row in matrix]
    np.testing.assert_allclose(got[..., 2], np.stack(least, axis=1), atol=1e-6)


def test_files_of_other_projects_take_frame_size_and_derive(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 20, 150))
    y = np.eye(2)[[0, 1, 0, 1]]
    np.savez(tmp_path / "in.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    prepare_ctrgcn(tmp_path / "out", tmp_path / "in.npz", frame="body", derive=["h36m_17"])
    store = open_store(tmp_path / "out")
    assert store.frame == "body" and list(store.layouts) == ["kinectv2_25", "h36m_17"]
    prepare_ctrgcn(tmp_path / "plain", tmp_path / "in.npz")
    assert open_store(tmp_path / "plain").frame == "camera"
    assert {"frame", "size", "derive"} <= set(prepare_pyskl.__kwdefaults__)
