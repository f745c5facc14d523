"""What a file does not say: fixed by its form, seen in its numbers, asked for, or noted."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from msclr.data.prepare import prepare_aimclr, prepare_arrays, prepare_pyskl
from msclr.data.prepare._detect import layout_of, looks_like_score
from msclr.data.store import open_store
from msclr.errors import InputError
from msclr.layouts import Layout

SPLITS = {"train": 4, "val": 2}
PAIR = Layout("detect_pair_3", ["hip", "lhand", "rhand"], [["lhand", "hip"]], "hip")


def notes(report) -> list[str]:
    return [line for line in report.lines() if line.startswith("note: ")]


def scored(count: int, joints: int = 18, seed: int = 0) -> np.ndarray:
    """(N, T, V, 3): x and y within half an image of the middle, and a score; some not found."""
    rng = np.random.default_rng(seed)
    xy = rng.uniform(-0.5, 0.5, (count, 6, joints, 2))
    xys = np.concatenate([xy, rng.uniform(0.3, 1, (count, 6, joints, 1))], axis=-1)
    return xys * (rng.random((count, 6, joints, 1)) > 0.3)


def aimclr(folder, clips_of):
    folder.mkdir()
    for split, count in SPLITS.items():
        xyz = clips_of(count).transpose(0, 3, 1, 2)[..., None]  # (N, 3, T, V, 1)
        np.save(folder / f"{split}_position.npy", xyz.astype("f4"))
        names = [f"{split}{i}" for i in range(count)]
        (folder / f"{split}_label.pkl").write_bytes(pickle.dumps((names, [0, 1] * (count // 2))))
    return folder


def pyskl(path, keypoints, **fields):
    """Four clips of (M, T, V, C); a field is the same of all of them."""
    names = ["a", "b", "c", "d"]
    annotations = [
        {"frame_dir": name, "label": i % 2, "total_frames": keypoint.shape[1], "keypoint": keypoint}
        | fields
        for i, (name, keypoint) in enumerate(zip(names, keypoints, strict=True))
    ]
    content = {"split": {"train": names[:2], "val": names[2:]}, "annotations": annotations}
    path.write_bytes(pickle.dumps(content))
    return path


def pixels(joints: int, axes: int = 2) -> np.ndarray:
    """(N, M, T, V, C) of images of 1920 x 1080; a third axis is a score."""
    rng = np.random.default_rng(0)
    xy = rng.uniform(100, 900, (4, 1, 6, joints, 2))
    return np.concatenate([xy, rng.uniform(0.3, 1, (4, 1, 6, joints, axes - 2))], axis=-1)


IMAGE = {"img_shape": (1080, 1920)}


# Layouts


@pytest.mark.parametrize(
    ("joints", "coordinates", "name", "guessed"),
    [
        (25, "xyz", "kinectv2_25", False),
        (17, "xy_score", "coco_17", False),
        (18, "xy_score", "openpose_18", False),
        (33, "xy_score", "mediapipe_33", True),
        (33, "xyz", "mediapipe_33", True),
        (42, "xyz", "smplx_42", True),
        (43, "xyz", "berkeley_mhad_43", True),
    ],
)
def test_a_layout_is_fixed_by_the_form_or_noted(joints, coordinates, name, guessed):
    layout, notes = layout_of(joints, coordinates, "f.pkl", "give --layout")
    assert layout.name == name and layout.num_joints == joints
    assert [*notes] == (
        [f"{name} was guessed from the number of joints; if they are another's, give --layout"]
        if guessed
        else []
    )


@pytest.mark.parametrize(
    ("joints", "coordinates", "message"),
    [
        (25, "xy_score", "25 joints in two dimensions, as .*kinectv2_25.*; name its layout"),
        (21, "xy_score", "21 joints in two dimensions, as total_capture_21; name its layout"),
        (21, "xyz", "21 joints, as total_capture_21; name its layout, .*: give --layout"),
        (17, "xyz", "17 joints, as .*h36m_17"),
        (18, "xyz", "18 joints, as openpose_18; name"),
        (20, "xyz", "20 joints, as kinectv1_20; name"),
        (7, "xyz", "7 joints, as no known layout; name"),
    ],
)
def test_a_layout_is_not_guessed_from_the_joint_count_alone(joints, coordinates, message):
    with pytest.raises(InputError, match=f"f.pkl has {message}") as caught:
        layout_of(joints, coordinates, "f.pkl", "give --layout")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("joints", [25, 21])
def test_pyskl_of_two_dimensions_wants_the_layout(tmp_path, joints):
    file = pyskl(tmp_path / "f.pkl", pixels(joints), **IMAGE)
    with pytest.raises(InputError, match=f"{joints} joints in two dimensions, .*name its layout"):
        prepare_pyskl(tmp_path / "out", file)
    own = Layout(f"detect_hand_{joints}", [f"j{i}" for i in range(joints)], [], "j0")
    prepare_pyskl(tmp_path / "out", file, layout=own)
    assert list(open_store(tmp_path / "out").layouts) == [own.name]


def test_a_guess_is_in_the_report(tmp_path):
    file = pyskl(tmp_path / "f.pkl", pixels(33), **IMAGE)
    report = prepare_pyskl(tmp_path / "out", file)
    assert any("mediapipe_33 was guessed from the number of joints" in n for n in notes(report))
    assert open_store(tmp_path / "out").meta["report"]["notes"] == report.notes
    assert not notes(prepare_pyskl(tmp_path / "named", file, layout="mediapipe_33"))


# A score in the place of z


def test_what_looks_like_a_score():
    clips = scored(3)
    assert looks_like_score(clips)
    assert looks_like_score(clips[:, None].astype("f4"))
    assert looks_like_score([np.where(clips[0] == 0, np.nan, clips[0])])
    third = np.array([0.0, 0.0, 1.0])
    assert not looks_like_score([*clips, clips[0] - third])
    assert not looks_like_score([*clips, clips[0] + third])
    kept = clips[0].copy()
    kept[0, 0] = [0.3, 0.3, 0]  # seen at z = 0
    assert not looks_like_score([kept])
    assert looks_like_score([kept], in_image=True)
    centre = clips[0].copy()
    centre[:, 0] = [0, 0, 0.4]
    assert not looks_like_score([centre])
    assert not looks_like_score([]) and not looks_like_score(clips * 0)
    millimetres = np.arange(90).reshape(1, 6, 5, 3)
    assert not looks_like_score(millimetres)


def test_aimclr_refuses_a_score_as_z_until_it_is_asked_for(tmp_path):
    folder = aimclr(tmp_path / "k", scored)
    for views in (folder, {"openpose_18": folder}):
        with pytest.raises(InputError, match="third channel in .*k lies in 0..1 .*--coordinates"):
            prepare_aimclr(tmp_path / "out", views)
    assert not (tmp_path / "out").exists()
    prepare_aimclr(tmp_path / "flat", folder, coordinates="xy_score")
    store = open_store(tmp_path / "flat")
    assert (store.coordinates, list(store.layouts)) == ("xy_score", ["openpose_18"])
    prepare_aimclr(tmp_path / "deep", {"openpose_18": folder}, coordinates="xyz")
    assert open_store(tmp_path / "deep").coordinates == "xyz"
    with pytest.raises(InputError, match="coordinates is 'xy'; choose one of xyz, xy_score"):
        prepare_aimclr(tmp_path / "out", folder, coordinates="xy")


def test_arrays_have_a_note_of_a_score_as_z(tmp_path):
    flat = {"labels": [0] * 4, "split": ["train"] * 2 + ["val"] * 2}
    views = {"openpose_18": scored(4)}
    (note,) = notes(prepare_arrays(tmp_path / "a", views, **flat))
    assert "third coordinate of openpose_18 lies in 0..1" in note and "xy_score" in note
    for coordinates in ("xyz", "xy_score"):
        assert not notes(
            prepare_arrays(tmp_path / coordinates, views, **flat, coordinates=coordinates)
        )


def test_pyskl_refuses_a_score_as_z_until_it_is_asked_for(tmp_path):
    clips = pixels(18, axes=3)
    file = pyskl(tmp_path / "f.pkl", clips, **IMAGE)
    with pytest.raises(InputError, match="third channel of keypoint looks like a score"):
        prepare_pyskl(tmp_path / "out", file)
    prepare_pyskl(tmp_path / "flat", file, coordinates="xy_score")
    score = {"keypoint_score": clips[0, ..., 2]}
    for clip in clips:
        clip[..., 2] = clips[0, ..., 2]
    prepare_pyskl(
        tmp_path / "scored", pyskl(tmp_path / "f.pkl", clips, **IMAGE), coordinates="xy_score"
    )
    two = pyskl(tmp_path / "g.pkl", clips[..., :2], **IMAGE, **score)
    prepare_pyskl(tmp_path / "wanted", two)
    for split in SPLITS:
        ours, wanted = (
            (tmp_path / name / split / "openpose_18.npy").read_bytes()
            for name in ("scored", "wanted")
        )
        assert ours == wanted


def test_pyskl_without_the_image(tmp_path):
    file = pyskl(tmp_path / "f.pkl", pixels(18, axes=3))
    with pytest.raises(InputError, match="third channel of keypoint looks like a score"):
        prepare_pyskl(tmp_path / "out", file)
    with pytest.raises(InputError, match="img_shape None; clips of two dimensions want"):
        prepare_pyskl(tmp_path / "out", file, coordinates="xy_score")
    with pytest.raises(InputError, match="in two dimensions; it takes no coordinates xyz"):
        flat = pyskl(tmp_path / "g.pkl", pixels(18), **IMAGE)
        prepare_pyskl(tmp_path / "out", flat, coordinates="xyz")


def test_pyskl_of_three_dimensions_with_an_image_has_a_note(tmp_path):
    clips = np.random.default_rng(0).normal(0, 0.4, (4, 1, 6, 25, 3))
    (note,) = notes(prepare_pyskl(tmp_path / "a", pyskl(tmp_path / "f.pkl", clips, **IMAGE)))
    assert "has img_shape, as clips in pixels have; its keypoint was read as x, y, z" in note
    assert not notes(prepare_pyskl(tmp_path / "b", pyskl(tmp_path / "f.pkl", clips)))


# Units


def test_normalised_coordinates_are_noted_where_pixels_are_wanted(tmp_path):
    unit = pixels(17) / 1000
    (note,) = notes(prepare_pyskl(tmp_path / "a", pyskl(tmp_path / "f.pkl", unit, **IMAGE)))
    assert "all joints of all clips of coco_17 lie within 0.000" in note
    assert "normalised to 0..1? pyskl's form wants pixels" in note
    # In an image of one pixel they are what the form wants; so are pixels.
    square = pyskl(tmp_path / "f.pkl", unit, img_shape=(1, 1))
    assert not notes(prepare_pyskl(tmp_path / "b", square))
    report = prepare_pyskl(tmp_path / "c", pyskl(tmp_path / "f.pkl", pixels(17), **IMAGE))
    assert not notes(report)
    xy = open_store(tmp_path / "c").split("train").views["coco_17"][..., :2]
    assert report.views["coco_17"].span >= np.ptp(xy, axis=(0, 1, 2, 3)).max() > 0.8


def test_pixels_are_noted_where_halves_of_the_image_are_wanted(tmp_path):
    clips = np.concatenate([pixels(17)[:, 0], np.ones((4, 6, 17, 1))], axis=-1)
    options = {"labels": [0] * 4, "split": ["train"] * 3 + ["val"], "coordinates": "xy_score"}
    (note,) = notes(prepare_arrays(tmp_path / "a", {"coco_17": clips}, **options))
    assert "half images from its middle is far outside: are x and y of coco_17 in pixels?" in note
    assert not notes(prepare_arrays(tmp_path / "b", {"coco_17": clips}, **options, scale=1e-3))


# Mirror pairs


def test_a_layout_without_mirror_pairs_is_noted(tmp_path):
    bare = Layout("detect_bare_2", ["hip", "head"], [["head", "hip"]], "hip")
    clips = np.random.default_rng(0).normal(size=(2, 5, 3, 3))
    views = {PAIR: clips, bare: clips[:, :, :2]}
    report = prepare_arrays(tmp_path / "out", views, [0, 0], ["train", "val"])
    (note,) = notes(report)
    assert note.startswith("note: detect_bare_2 has no left-right pair") and "flip = [[" in note
    assert open_store(tmp_path / "out").meta["report"]["unpaired"] == ["detect_bare_2"]
