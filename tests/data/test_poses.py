"""Pose files: every accepted form, people followed over time and matched, and what is refused."""

import re

import numpy as np
import pytest
import torch

from msclr import layouts
from msclr.data.prepare.poses import PoseFolder, follow_people, match_people
from msclr.errors import InputError
from msclr.layouts import Layout

CLIP = "S001C002P003R001A050"
# Bones of 0.4 m: joint i is 0.4 i above joint 0.
CHAIN = Layout("chain_3", ["a", "b", "c"], [["b", "a"], ["c", "b"]], "a")
POSE = np.array([[0, 0, 0], [0, 0.4, 0], [0, 0.8, 0]])


def people(*tracks):
    """(P, T, V, 3) metres: the chain at the given places (T, 3); None is an absent frame."""
    absent = np.full((3, 3), np.nan)
    return np.array([[absent if at is None else POSE + at for at in track] for track in tracks])


# Two people that walk past each other in x, 1 m apart in z; the second leaves for a frame.
CROSSING = people(
    [(0.3 * t - 1, 0, 3) for t in range(7)],
    [None if t == 3 else (1 - 0.3 * t, 0, 4) for t in range(7)],
)


def as_frames(tracks, rng=None):
    """The tracks as T arrays (m_t, V, 3), in an order that changes from frame to frame."""
    frames = []
    for t in range(tracks.shape[1]):
        here = [track[t] for track in tracks if np.isfinite(track[t]).any()]
        order = range(len(here)) if rng is None else rng.permutation(len(here))
        frames.append(np.array([here[i] for i in order]).reshape(-1, *tracks.shape[2:]))
    return frames


FRAMES = [1000 * frame for frame in as_frames(CROSSING)]  # millimetres
ROWS = np.concatenate(FRAMES)
COUNTS = np.array([len(frame) for frame in FRAMES])
SLOTS = 1000 * CROSSING.swapaxes(0, 1)  # (T, M, V, 3)
FORMS = {
    "npy, M places": ("npy", SLOTS),
    "npy, int16, zeros where absent": ("npy", np.nan_to_num(SLOTS).round().astype(np.int16)),
    "npz, M places": ("npz", {"poses3d": SLOTS, "boxes": np.zeros(4)}),
    "npz, the only array": ("npz", {"arr_0": SLOTS.astype(np.float32)}),
    "npz, num_people": ("npz", {"poses3d": ROWS, "num_people": COUNTS}),
    "npz, offset": ("npz", {"poses3d": ROWS, "offset": np.append(0, COUNTS.cumsum())}),
    "npz, an array a frame": ("npz", {f"frame{t}": frame for t, frame in enumerate(FRAMES)}),
    "pt, tensor": ("pt", torch.tensor(SLOTS)),
    "pt, half": ("pt", torch.tensor(SLOTS).half()),
    "pt, bfloat16": ("pt", torch.tensor(SLOTS).bfloat16()),
    "pt, list": ("pt", [torch.tensor(frame) for frame in FRAMES]),
    "pt, dict of a tensor": ("pt", {"poses3d": torch.tensor(SLOTS), "boxes": torch.ones(3)}),
    "pt, dict of a list": ("pt", {"poses3d": [torch.tensor(frame) for frame in FRAMES]}),
    "pt, dict, num_people": (
        "pt",
        {"poses3d": torch.tensor(ROWS), "num_people": torch.tensor(COUNTS)},
    ),
}


def write(folder, suffix, content, name=CLIP):
    path = folder / f"{name}.{suffix}"
    if suffix == "pt":
        torch.save(content, path)
    elif suffix == "npz":
        np.savez(path, **content)
    else:
        np.save(path, content, allow_pickle=False)
    return path


def test_the_folder_is_found_from_anywhere(tmp_path, monkeypatch):
    write(tmp_path, *FORMS["npy, M places"])
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    monkeypatch.chdir(tmp_path)
    folders = [PoseFolder(name, CHAIN) for name in (".", f"~/{tmp_path.name}")]
    monkeypatch.chdir("/")
    for folder in folders:
        assert folder.read(CLIP).shape == (2, 7, 3, 3)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_people(tmp_path, form):
    write(tmp_path, *FORMS[form])
    tolerance = {"pt, half": 1e-3, "pt, bfloat16": 2e-2, "npz, the only array": 1e-6}
    read = PoseFolder(tmp_path, CHAIN).read(CLIP)
    assert read.dtype == np.float64
    np.testing.assert_allclose(read, CROSSING, rtol=0, atol=tolerance.get(form, 1e-12))


def test_one_person_and_frames_without_anybody(tmp_path):
    write(tmp_path, "npy", SLOTS[:, 0])  # (T, V, 3)
    np.testing.assert_allclose(PoseFolder(tmp_path, CHAIN).read(CLIP), CROSSING[:1])
    write(tmp_path, "pt", [torch.empty(0), *map(torch.tensor, FRAMES)], "S001C001P001R001A001")
    read = PoseFolder(tmp_path, CHAIN).read("S001C001P001R001A001")
    assert np.isnan(read[:, 0]).all()
    np.testing.assert_allclose(read[:, 1:], CROSSING)
    write(tmp_path, "npy", np.zeros((4, 2, 3, 3)), "S001C001P001R001A002")
    assert PoseFolder(tmp_path, CHAIN).read("S001C001P001R001A002").shape == (0, 4, 3, 3)


def test_frames_in_the_order_of_their_numbers(tmp_path):
    walk = 1000 * people([(0.01 * t, 0, 3) for t in range(12)])[0][:, None]  # (12, 1, 3, 3)
    write(tmp_path, "npz", {f"f{t}": walk[t] for t in (10, 9, 11, *range(9))})
    read = PoseFolder(tmp_path, CHAIN).read(CLIP)
    np.testing.assert_allclose(read[0] * 1000, walk[:, 0])


def test_names_are_found_in_file_names_of_all_subfolders(tmp_path):
    (tmp_path / "part").mkdir()
    write(tmp_path, "npz", {"poses3d": SLOTS}, "S001C001P001R001A001_rgb")
    write(tmp_path / "part", "pt", torch.tensor(SLOTS), "metrabs-S001C001P001R001A002")
    write(tmp_path, "npy", SLOTS, "S001C001P001R001A0031")  # no clip's name
    write(tmp_path, "npy", SLOTS, "calibration")
    (tmp_path / "S001C001P001R001A004.txt").touch()
    folder = PoseFolder(str(tmp_path), CHAIN)
    assert folder.names() == {"S001C001P001R001A001", "S001C001P001R001A002"}
    assert folder.read("S001C001P001R001A003") is None
    assert folder.read("S001C001P001R001A002").shape == (2, 7, 3, 3)


@pytest.mark.parametrize("suffix", ["npz", "pt"])
def test_joints_are_put_into_the_layouts_order_by_name(tmp_path, suffix):
    poses, names = SLOTS[:, :, [2, 0, 1]], ["c", "a", "b"]
    if suffix == "pt":
        content = {"poses3d": torch.tensor(poses), "joint_names": names}
    else:
        content = {"poses3d": poses, "joint_names": np.array(names)}
    write(tmp_path, suffix, content)
    np.testing.assert_allclose(PoseFolder(tmp_path, CHAIN).read(CLIP), CROSSING)


def test_scale(tmp_path):
    write(tmp_path, "npy", CROSSING.swapaxes(0, 1))
    np.testing.assert_array_equal(PoseFolder(tmp_path, CHAIN, scale=1).read(CLIP), CROSSING)
    with pytest.raises(InputError, match=r"A050.npy: the median bone is 0.0004 m .*--pose-scale"):
        PoseFolder(tmp_path, CHAIN).read(CLIP)
    for scale in (0, -1, np.nan, np.inf):
        with pytest.raises(InputError, match="the scale of poses is"):
            PoseFolder(tmp_path, CHAIN, scale)


def objects(frames):
    array = np.empty(len(frames), object)
    array[:] = frames
    return array


@pytest.mark.parametrize(
    ("suffix", "content", "message"),
    [
        ("npy", SLOTS[:, :, :2], "has 2 joints, but layout chain_3 has 3"),
        ("npy", SLOTS[..., :2], "frame 0 has shape (2, 3, 2); wanted (people, V, 3)"),
        ("npy", SLOTS[0, 0], "holds poses of shape (3, 3); wanted (T, V, 3), (T, M, V, 3)"),
        ("npy", SLOTS[:0], "holds no frame"),
        ("npy", SLOTS.astype(str), "poses holds <U32; wanted integers or floating-point"),
        ("npy", SLOTS.astype(complex), "poses holds complex128; wanted"),
        ("npz", {"poses3d": ROWS, "num_people": COUNTS[1:]}, "speak of 11 rows"),
        ("npz", {"poses3d": ROWS, "num_people": -COUNTS}, "num_people is no count of rows"),
        ("npz", {"poses3d": ROWS, "offset": [1, 13]}, "offset is no count of rows"),
        ("npz", {"poses3d": ROWS, "offset": [[0, 13]]}, "offset is int64 of shape (1, 2)"),
        ("npz", {"poses3d": SLOTS, "num_people": COUNTS}, "poses3d has shape (7, 2, 3, 3), but"),
        ("npz", {"poses": SLOTS, "boxes": SLOTS}, "holds poses, boxes; wanted poses3d, or one"),
        ("npz", {}, "holds no frame"),
        ("npz", {"f1": FRAMES[1], "f3": FRAMES[3]}, "has no array for frame 2; write frames"),
        ("npz", {"f1": FRAMES[1], "g1": FRAMES[3]}, "holds f1, g1; wanted poses3d"),
        ("npz", {"f0": FRAMES[0], "f1": FRAMES[1][:, :2]}, "frame 1 has shape (2, 2, 3); wanted"),
        ("npz", {"poses3d": SLOTS, "joint_names": np.arange(3)}, "joint_names is [0, 1, 2]; want"),
        ("npz", {"poses3d": SLOTS, "joint_names": ["a", "b"]}, "has 3 joints but 2 joint_names"),
        ("npz", {"poses3d": SLOTS, "joint_names": ["a", "b", "a"]}, "joint_names holds 'a' twice"),
        (
            "npz",
            {"poses3d": SLOTS, "joint_names": ["a", "b", "x"]},
            "joint_names do not fit layout chain_3: lacks c; has x that are not among its joints",
        ),
        ("pt", {"poses": torch.zeros(3), "b": 1}, "holds poses, b; wanted poses3d, or one array"),
        ("pt", [1, 2], "frame 0 is a int; wanted an array of numbers"),
        ("pt", [], "holds no frame"),
        ("pt", "text", "poses is a str; wanted an array of numbers"),
        ("pt", [np.zeros((1, 3, 3))], "holds dense tensors, lists, dicts and texts only"),
    ],
)
def test_refused_with_the_files_name_and_what_came(tmp_path, suffix, content, message):
    path = write(tmp_path, suffix, content)
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        PoseFolder(tmp_path, CHAIN).read(CLIP)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("the file was unpickled",))


@pytest.mark.parametrize("suffix", ["npy", "npz", "pt"])
def test_nothing_is_unpickled(tmp_path, suffix):
    path = tmp_path / f"{CLIP}.{suffix}"
    if suffix == "npy":
        np.save(path, objects([*FRAMES, Bomb()]), allow_pickle=True)
    elif suffix == "npz":
        np.savez(path, poses3d=objects([*FRAMES, Bomb()]))
    else:
        torch.save([Bomb()], path)
    wanted = "wanted a file of torch.save" if suffix == "pt" else "poses3d .*num_people"
    with pytest.raises(InputError, match=f"{suffix}: .*{wanted}"):
        PoseFolder(tmp_path, CHAIN).read(CLIP)


@pytest.mark.parametrize("form", ["npy, M places", "npz, num_people", "pt, list"])
def test_a_damaged_file_is_refused_or_read_and_never_ends_the_run(tmp_path, form):
    path = write(tmp_path, *FORMS[form])
    folder, whole, rng = PoseFolder(tmp_path, CHAIN), path.read_bytes(), np.random.default_rng(0)
    refused = 0
    for attempt in range(60):
        damaged = bytearray(whole)
        if attempt < 20:
            del damaged[rng.integers(len(damaged)) :]
        else:
            for at in rng.integers(len(damaged), size=4):
                damaged[at] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            folder.read(CLIP)
        except InputError as error:
            refused += 1
            assert str(error).startswith(str(path)) and "\n" not in str(error)
    assert refused >= 20  # each of the cut ones


@pytest.mark.parametrize("suffix", ["npy", "npz", "pt"])
@pytest.mark.parametrize("content", [b"", b"no such file", b"PK\x03\x04", b"\x93NUMPY\x01\x00(("])
def test_another_kind_of_file(tmp_path, suffix, content):
    (tmp_path / f"{CLIP}.{suffix}").write_bytes(content)
    wanted = {"npy": r"numpy\.save", "npz": r"numpy\.savez", "pt": r"torch\.save"}[suffix]
    with pytest.raises(InputError, match=rf"A050\.{suffix}: cannot be read.*{wanted}"):
        PoseFolder(tmp_path, CHAIN).read(CLIP)


def test_folder_refusals(tmp_path):
    with pytest.raises(InputError, match="none is not a folder"):
        PoseFolder(tmp_path / "none", CHAIN)
    with pytest.raises(InputError, match="has no pose file; wanted names such as S001.*.npz"):
        PoseFolder(tmp_path, CHAIN)
    write(tmp_path, "npy", SLOTS)
    write(tmp_path, "pt", torch.tensor(SLOTS))
    with pytest.raises(InputError, match=f"A050.npy and .*A050.pt are both poses of {CLIP}"):
        PoseFolder(tmp_path, CHAIN)


def test_people_keep_their_rows_whatever_the_order_of_each_frame():
    rng = np.random.default_rng(0)
    walks = np.cumsum(rng.normal(0, 0.03, (3, 80, 1, 3)), axis=1)
    place = np.array([[0, 0, 3], [0.8, 0, 3], [0, 0, 4]])[:, None, None]
    tracks = walks + place + rng.normal(0, 0.2, (3, 1, 42, 3)) + rng.normal(0, 0.02, (3, 80, 42, 3))
    tracks[1, 30:50] = np.nan  # a gap, bridged
    tracks[2, :10] = np.nan
    tracks[0, 20, 5] = np.nan  # one joint
    followed = follow_people(as_frames(tracks, rng))
    # The first frame's order is drawn: the first two rows may come in either.
    first = 0 if np.array_equal(followed[0, 0], tracks[0, 0]) else 1
    np.testing.assert_array_equal(followed, tracks[[first, 1 - first, 2]])


def test_the_sum_decides_not_the_nearest():
    # The pose at 0.4 is nearest to the second person; the sum is least where both move 0.4 m.
    frames = as_frames(people([(0, 0, 3), (0.4, 0, 3)], [(0.5, 0, 3), (0.9, 0, 3)]))
    assert follow_people(frames)[:, 1, 0, 0] == pytest.approx([0.4, 0.9])
    frames[1] = frames[1][::-1]
    assert follow_people(frames)[:, 1, 0, 0] == pytest.approx([0.4, 0.9])


def test_beyond_the_limit_begins_a_new_person():
    track = people([(0, 0, 3), None, (0.9, 0, 3), (2, 0, 3)])
    followed = follow_people(as_frames(track))
    assert followed.shape == (2, 4, 3, 3)
    np.testing.assert_array_equal(followed[0, :3], track[0, :3])
    assert np.isnan(followed[0, 3]).all() and np.isnan(followed[1, :3]).all()
    assert len(follow_people(as_frames(track), limit=0.5)) == 3
    assert len(follow_people(as_frames(track), limit=1.2)) == 1
    # A second person appears close by: the first is still the first.
    pair = people([(0, 0, 3), (0.1, 0, 3)], [None, (0.05, 0, 3.2)])
    np.testing.assert_array_equal(follow_people(as_frames(pair)), pair)


def test_alone_or_not_the_distance_is_over_the_joints_seen_in_both():
    # The joint that both frames have moved by 0.3 m; the two others were never seen together.
    track = people([(0, 0, 3), (0.3, 0, 3)])
    track[0, 0, 1] = track[0, 1, 2] = np.nan
    for others in ([], people([(9, 0, 3), (9, 0, 3)])):
        tracks = np.concatenate([track, others]) if len(others) else track
        followed = follow_people(as_frames(tracks), limit=0.31)
        np.testing.assert_array_equal(followed, tracks)
        assert len(follow_people(as_frames(tracks), limit=0.29)) == len(tracks) + 1
    strangers = people([(0, 0, 3), (0, 0, 3)])
    strangers[0, 0, 1:] = strangers[0, 1, 0] = np.nan  # no joint in common
    assert len(follow_people(as_frames(strangers))) == 2


def test_infinite_and_absurd_joints_do_not_disturb():
    track = people([(0, 0, 3)] * 4)
    track[0, 1, 0], track[0, 3, 0] = np.inf, 1e300
    assert len(follow_people(list(track[0][:3, None]))) == 1
    assert len(follow_people(list(track[0][:, None]))) == 2


def test_follow_refuses_other_shapes():
    with pytest.raises(InputError, match="there is no frame"):
        follow_people([])
    with pytest.raises(InputError, match=r"frame 1 has shape \(1, 2, 3\); wanted"):
        follow_people([np.zeros((1, 3, 3)), np.zeros((1, 2, 3))])


def in_colour_camera(kinect, frames):
    """What the colour camera sees of Kinect tracks (M, T, 3): y down, other frames, aside."""
    at = np.linspace(0, kinect.shape[1] - 1, frames)
    out = np.array(
        [[np.interp(at, range(kinect.shape[1]), axis) for axis in body.T] for body in kinect]
    )
    return out.swapaxes(1, 2) * [1, -1, 1] + [0.05, 0.4, 0.1]


def walks(*ends, frames=60):
    """(M, frames, 3) from ((x, z), (x, z)) of the first and last frame."""
    return np.array([np.linspace((a[0], 0.2, a[1]), (b[0], 0.2, b[1]), frames) for a, b in ends])


def test_bodies_are_matched_by_where_they_walk():
    # The first two cross in x; the third stands behind them. Mean places alone would not tell.
    kinect = walks(((-1, 3), (1, 3)), ((1, 3), (-1, 3)), ((0, 4.5), (0, 4.5)))
    seen = in_colour_camera(kinect, 47)
    for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0]):
        np.testing.assert_array_equal(match_people(kinect, seen[order]), np.argsort(order))
    np.testing.assert_array_equal(match_people(kinect[[1]], seen), [1])
    np.testing.assert_array_equal(match_people(kinect, seen[[1]]), [-1, 0, -1])


def test_height_does_not_count():
    kinect = walks(((0, 3), (0, 3)), ((0.6, 3), (0.6, 3)))
    seen = in_colour_camera(kinect, 60)
    seen[1, :, 1] += 2  # were y compared, the pair would be too far apart
    np.testing.assert_array_equal(match_people(kinect, seen), [0, 1])


def test_who_is_away_or_too_far_matches_nobody():
    kinect = walks(((0, 3), (0, 3)), ((2, 3), (2, 3)))
    seen = in_colour_camera(kinect, 60)
    np.testing.assert_array_equal(match_people(kinect, seen[:0]), [-1, -1])
    np.testing.assert_array_equal(match_people(kinect[:0], seen), [])
    np.testing.assert_array_equal(match_people(kinect, seen + [0, 0, 5]), [-1, -1])
    kinect[0], seen[1] = np.nan, 0
    np.testing.assert_array_equal(match_people(kinect, seen), [-1, -1])


def test_a_whole_track_beats_a_closer_fragment():
    kinect = walks(((0, 3), (0, 3)))
    seen = in_colour_camera(walks(((0.3, 3), (0.3, 3)), ((0, 3), (0, 3))), 60)
    seen[1, 10:] = np.nan
    np.testing.assert_array_equal(match_people(kinect, seen), [0])
    np.testing.assert_array_equal(match_people(kinect, seen[1:]), [0])  # better than none


def test_match_refuses_other_shapes():
    with pytest.raises(InputError, match=r"candidates has shape \(2, 3\); wanted \(people"):
        match_people(np.zeros((1, 2, 3)), np.zeros((2, 3)))


def test_a_shipped_layout_by_its_names_out_of_order(tmp_path):
    layout = layouts.get("smplx_42")
    rng = np.random.default_rng(0)
    poses = rng.normal(0, 150, (5, 42, 3)) + [0, 0, 3000]
    order = rng.permutation(42)
    write(
        tmp_path,
        "npz",
        {"poses3d": poses[:, order], "joint_names": np.array(layout.joints)[order]},
    )
    np.testing.assert_allclose(PoseFolder(tmp_path, layout).read(CLIP)[0], poses / 1000)
