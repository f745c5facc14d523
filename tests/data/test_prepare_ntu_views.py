"""Further layouts of NTU clips: from pose files, people matched, and derived from the Kinect's."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import pytest

from msclr import layouts
from msclr.data.prepare.ntu import job, prepare_ntu, processes
from msclr.data.prepare.ntu.ranges import RangeReport
from msclr.data.prepare.poses import PoseFolder
from msclr.data.store import open_store
from msclr.errors import InputError
from msclr.layouts import Layout
from msclr.layouts.derive import derivation
from tests.data.skeleton_files import FIRST_ID, body, file_text, moving_body

FRAMES = 16
KINECT = layouts.get("kinectv2_25")
COCO = layouts.get("coco_19")
NAMES = ["S001C001P001R001A050", "S001C001P001R001A051", "S001C001P003R001A001"]


class Poses:
    """Poses in memory: clip name -> (P, T, V, 3) metres."""

    def __init__(self, clips: dict[str, np.ndarray], layout: Layout = COCO) -> None:
        self.layout, self.clips = layout, clips

    def read(self, name: str) -> np.ndarray | None:
        return self.clips.get(name)


def people(name: str) -> list[np.ndarray]:
    """The Kinect's bodies of a clip, (T, V, 3) each, the most moving first."""
    number = NAMES.index(name)
    count = 2 if int(name[-3:]) >= 50 else 1
    made = [moving_body(FRAMES, seed=10 * number + i) + [2.0 * i, 0, 0] for i in range(count)]
    made = [np.vectorize(lambda x: float(f"{x:.7g}"))(xyz) for xyz in made]  # as in the file
    return sorted(made, key=lambda xyz: -xyz.var(axis=0).sum())


def poses_of(xyz: np.ndarray, layout: Layout = COCO, seed: int = 0) -> np.ndarray:
    """(T, V, 3) in the colour camera's space, y down: any joints around where the body stands."""
    spread = np.random.default_rng(seed).uniform(-0.4, 0.4, (len(xyz), layout.num_joints, 3))
    spread[:, layout.center_index] = 0
    return spread + (xyz[:, 20] * [1, -1, 1])[:, None]


@pytest.fixture
def skeletons(tmp_path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in NAMES:
        cast = [body(xyz, FIRST_ID + i) for i, xyz in enumerate(people(name))]
        (folder / f"{name}.skeleton").write_text(file_text(FRAMES, cast))
    return folder


def prepare(skeletons, poses, name="out", **options):
    out = skeletons.parent / name
    options = dict(protocol="xsub", frames=FRAMES, workers=1) | options
    report = prepare_ntu("ntu60", skeletons, out, poses=poses, **options)
    parts = [open_store(out).split(split) for split in ("train", "val")]
    clips = {}
    for part in parts:
        for row, clip in enumerate(part.names):
            clips[clip] = part.bodies[row], {k: np.array(v[row]) for k, v in part.views.items()}
    return report, clips


def by_hand(xyz: np.ndarray, layout: Layout, main: np.ndarray) -> np.ndarray:
    """Centred, and turned by the shoulders of the body `main` in its first frame."""
    left, right = (layout.joints.index(joint) for joint in ("lsho", "rsho"))
    x, _, z = main[0, right] - main[0, left]
    angle = np.arctan2(z, x)
    rotation = [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    return (xyz - xyz[:, [layout.center_index]]) @ np.array(rotation).T


def test_people_are_matched_cleaned_and_turned_by_their_own_shoulders(skeletons):
    clips = {}
    for name in NAMES:
        found = [poses_of(xyz, seed=i) for i, xyz in enumerate(people(name))]
        stranger = poses_of(people(name)[0] + [0, 0, 9])
        clips[name] = np.stack([stranger, *reversed(found)])  # in another order
    report, got = prepare(skeletons, {"coco_19": Poses(clips)})
    assert list(report.views) == ["kinectv2_25", "coco_19"]
    assert report.unmatched_bodies == report.absent_views["coco_19"] == 0
    assert report.no_poses == {}
    for name in NAMES:
        there, views = got[name]
        wanted = list(reversed(clips[name][1:]))
        assert there.tolist() == [True, len(wanted) == 2]
        for row, xyz in enumerate(wanted):
            expected = by_hand(xyz, COCO, wanted[0])
            np.testing.assert_allclose(views["coco_19"][row], expected, atol=1e-6)
        kinect = by_hand(people(name)[0], KINECT, people(name)[0])
        np.testing.assert_allclose(views["kinectv2_25"][0], kinect, atol=1e-6)


def test_gaps_and_length_of_poses_are_theirs(skeletons):
    """Twice the frames, some joints missing, gone at the ends: filled, trimmed, resampled."""
    clips = {}
    for name in NAMES:
        long = [np.repeat(poses_of(xyz), 2, axis=0) for xyz in people(name)]
        clips[name] = np.stack(long)
        clips[name][:, 5:9, 3] = np.nan
        clips[name][:, :2] = np.nan
        clips[name][:, 4] = 0
    report, got = prepare(skeletons, {"coco_19": Poses(clips)})
    view, bodies = report.views["coco_19"], 5
    assert view.joints == bodies * 30 * 19 and view.trimmed_frames == 3 * 2
    assert view.interpolated == bodies * (4 + 19)
    assert all(np.isfinite(views["coco_19"]).all() for _, views in got.values())


def without(name: str) -> Poses:
    """Poses of all clips but one."""
    return Poses({n: np.stack([poses_of(x) for x in people(n)]) for n in NAMES if n != name})


@pytest.mark.parametrize("nobody", [None, np.zeros((0, FRAMES, 19, 3))])
def test_clips_without_poses_are_dropped(skeletons, nobody):
    poses = without(NAMES[0])
    poses.clips[NAMES[0]] = nobody
    report, got = prepare(skeletons, {"coco_19": poses})
    assert sorted(got) == NAMES[1:]
    assert report.no_poses == {"coco_19": [NAMES[0]]}
    assert "1 skipped: no poses under coco_19 (S001C001P001R001A050)" in report.lines()


def test_or_kept_with_that_layout_absent(skeletons):
    report, got = prepare(skeletons, {"coco_19": without(NAMES[0])}, absent_poses="keep")
    assert sorted(got) == NAMES and report.absent_views == {"coco_19": 2}
    assert "2 bodies kept, 0 under coco_19: it has no poses of them" in report.lines()
    there, views = got[NAMES[0]]
    assert there.all() and views["kinectv2_25"].any() and not views["coco_19"].any()
    assert report.unmatched_bodies == 0


def test_a_body_that_the_poses_lack(skeletons):
    """The most moving of the two is not found: the other moves up, or it stays without poses."""
    poses = without("")
    poses.clips[NAMES[0]] = poses.clips[NAMES[0]][1:]
    report, got = prepare(skeletons, {"coco_19": poses}, "dropped")
    second = people(NAMES[0])[1]
    there, views = got[NAMES[0]]
    assert there.tolist() == [True, False] and report.unmatched_bodies == 1
    kinect = by_hand(second, KINECT, second)
    np.testing.assert_allclose(views["kinectv2_25"][0], kinect, atol=1e-6)
    wanted = by_hand(poses.clips[NAMES[0]][0], COCO, poses.clips[NAMES[0]][0])
    np.testing.assert_allclose(views["coco_19"][0], wanted, atol=1e-6)

    report, got = prepare(skeletons, {"coco_19": poses}, "kept", absent_poses="keep")
    there, views = got[NAMES[0]]
    assert there.all() and report.absent_views == {"coco_19": 1}
    assert not views["coco_19"][0].any()
    np.testing.assert_allclose(views["coco_19"][1], wanted, atol=1e-6)


def write_poses(folder: Path, scale: float = 1000) -> dict[str, np.ndarray]:
    folder.mkdir()
    clips = {name: np.stack([poses_of(x) for x in people(name)]) for name in NAMES}
    for name, xyz in clips.items():
        np.save(folder / f"{name}_rgb.npy", scale * xyz.swapaxes(0, 1))  # (T, P, V, 3)
    return clips


@pytest.fixture
def likely_bones(monkeypatch):
    """`PoseFolder` refuses poses whose bones are no person's; the random ones here are."""
    monkeypatch.setattr("msclr.data.prepare.poses.folder._PLAUSIBLE_BONE", (0.0, 9.0))


def test_a_folder_of_pose_files(skeletons, likely_bones):
    clips = write_poses(skeletons.parent / "poses")
    _, got = prepare(skeletons, {"coco_19": skeletons.parent / "poses"})
    wanted = by_hand(clips[NAMES[0]][1], COCO, clips[NAMES[0]][0])
    np.testing.assert_allclose(got[NAMES[0]][1]["coco_19"][1], wanted, atol=1e-6)
    folder = PoseFolder(skeletons.parent / "poses", COCO, 0.001)
    _, again = prepare(skeletons, {COCO: folder}, "again")
    for name in NAMES:
        np.testing.assert_array_equal(again[name][1]["coco_19"], got[name][1]["coco_19"])


def test_an_unreadable_pose_file_is_corrupt(skeletons, likely_bones):
    write_poses(skeletons.parent / "poses")
    (skeletons.parent / "poses" / f"{NAMES[1]}_rgb.npy").write_bytes(b"no poses")
    with pytest.raises(InputError, match=f"1 of 3 clips are corrupt, .*{NAMES[1]}: .*npy"):
        prepare(skeletons, {"coco_19": skeletons.parent / "poses"})
    assert sorted(os.listdir(skeletons.parent)) == ["in", "poses"]


def test_poses_of_another_layout_are_refused(skeletons):
    with pytest.raises(InputError, match="poses for smpl_24 are of layout coco_19"):
        prepare(skeletons, {"smpl_24": Poses({})})


def test_poses_that_cannot_travel_are_refused(skeletons, monkeypatch):
    poses = without("")
    monkeypatch.setattr(job, "RANGE", 1)

    answered = threading.Event()

    class Queue(SimpleQueue):
        def put(self, answer):
            super().put(answer)
            answered.set()

    def patient(_, clips):
        assert answered.wait(60), "the other process does not answer"
        return RangeReport(clips.number)

    monkeypatch.setattr(processes, "SimpleQueue", Queue)
    monkeypatch.setattr(processes.RangeConverter, "convert", patient)
    monkeypatch.setattr(Poses, "__module__", "__main__")
    monkeypatch.setattr(sys.modules["__main__"], "Poses", Poses, raising=False)
    with pytest.raises(InputError, match="another process cannot load the poses .*workers=1"):
        prepare(skeletons, {"coco_19": poses}, workers=2)
    poses.frame = sys._getframe()
    with pytest.raises(InputError, match="poses under coco_19 cannot be pickled"):
        prepare(skeletons, {"coco_19": poses})
    assert os.listdir(skeletons.parent) == ["in"]


def test_a_pose_file_edited_between_a_kill_and_its_resume_is_noticed(skeletons):
    folder = skeletons.parent / "poses"
    folder.mkdir()
    for name in NAMES:
        np.save(folder / f"{name}.npy", 1000 * poses_of(people(name)[0])[:, None])

    def stop(done, clips):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(skeletons, {"coco_19": folder}, on_clip=stop)
    edited = poses_of(people(NAMES[0])[0], seed=5)
    np.save(folder / f"{NAMES[0]}.npy", 1000 * edited[:, None])  # of the same size
    _, got = prepare(skeletons, {"coco_19": folder})
    expected = by_hand(edited, COCO, edited)
    np.testing.assert_allclose(got[NAMES[0]][1]["coco_19"][0], expected, atol=1e-6)


# Derived layouts


def test_derived_layouts_follow_from_the_prepared_joints(skeletons):
    target = layouts.get("h36m_17")
    matrix = derivation(KINECT, target)
    report, got = prepare(skeletons, {"coco_19": without("")}, derive=["h36m_17"])
    assert "h36m_17: computed from the Kinect's joints" in report.lines()
    for there, views in got.values():
        joints = np.einsum("vj,mtjc->mtvc", matrix, views["kinectv2_25"].astype(float))
        joints -= joints[:, :, [target.center_index]]
        np.testing.assert_allclose(views["h36m_17"][there], joints[there], atol=1e-6)
        assert list(views) == ["kinectv2_25", "coco_19", "h36m_17"]
        assert not views["h36m_17"][~there].any()


def test_what_a_joint_never_seen_decides_is_at_the_centre(skeletons):
    xyz = moving_body(FRAMES, 0)
    xyz[:, KINECT.joints.index("lkne")] = 0
    name = "S001C001P001R001A002"
    (skeletons / f"{name}.skeleton").write_text(file_text(FRAMES, [body(xyz)]))
    target = layouts.get("h36m_17")
    needs = derivation(KINECT, target)[:, KINECT.joints.index("lkne")] != 0
    assert 0 < needs.sum() < 3
    _, got = prepare(skeletons, {}, derive=["h36m_17"])
    moved = got[name][1]["h36m_17"][0].any(axis=(0, 2))
    expected = ~needs
    expected[target.center_index] = False
    np.testing.assert_array_equal(moved, expected)


def test_a_layout_is_asked_for_once(skeletons):
    for derive in (["h36m_17", "h36m_17"], ["coco_19"]):
        with pytest.raises(InputError, match="asked for twice"):
            prepare(skeletons, {"coco_19": Poses({})}, derive=derive)
