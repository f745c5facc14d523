"""`prepare_ntu` from trees to data sets: against a slow pipeline, and whatever goes wrong."""

from __future__ import annotations

import json
import os
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest

from benchmarks.data import plain_ntu
from msclr.data.prepare.ntu import BodyRules, job, prepare_ntu
from msclr.data.prepare.ntu.names import skip_list
from msclr.data.store import open_store
from msclr.errors import InputError
from tests.data.skeleton_files import (
    body,
    clip_names,
    file_text,
    ghost_body,
    moving_body,
    write_tree,
)
from tests.tiny import tree

pytestmark = pytest.mark.usefixtures("small_ranges")


def damaged(text: str) -> str:
    """Some joints lost, as Kinect and later tools write it."""
    lines = text.split("\n")
    rng = random.Random(len(lines))
    for at, line in enumerate(lines):
        if line.count(" ") == 11 and rng.random() < 0.02:
            lost = rng.choice(["0 0 0", "nan nan nan", "1.5 inf 2"])
            lines[at] = " ".join([lost, *line.split(" ")[3:]])
    return "\n".join(lines)


@pytest.fixture(scope="module")
def skeletons(tmp_path_factory) -> Path:
    """60 clips of 20 performers and 3 cameras with every quirk, in two folders."""
    folder = tmp_path_factory.mktemp("skeletons")
    names = [name.replace("S001", "S002") for name in clip_names(60, setups=(2,), actions=1)]
    names = [f"{name[:16]}A{1 + 7 * i % 60:03}" for i, name in enumerate(names)]
    options = dict(frames=(20, 34), variety=6, ghosts=0.4, lost=0.4, pairs=range(20, 61))
    write_tree(folder / "part one", names[:40], form=damaged, **options)
    write_tree(folder / "part two", names[40:], seed=1, **options)
    return folder


def prepare(skeletons, out: Path, **options):
    options = dict(dataset="ntu60", protocol="xsub", workers=1) | options
    return prepare_ntu(options.pop("dataset"), skeletons, out, **options)


def clips_of(store) -> dict[str, np.ndarray]:
    """Name -> (M, T, V, 3)."""
    splits = [store.split(name) for name in ("train", "val")]
    return {n: x for s in splits for n, x in zip(s.names, s.views["kinectv2_25"], strict=True)}


# The result


def test_equals_the_slow_pipeline(skeletons, prepared):
    clips = clips_of(open_store(prepared[0]))
    paths = sorted(skeletons.rglob("*.skeleton"))
    assert len(paths) == len(clips) == 60
    for number, path in enumerate(paths):
        wanted = plain_ntu.prepare_clip(path, lean=number % 2 == 1)
        np.testing.assert_allclose(clips[path.stem], wanted, atol=1e-6, err_msg=path.stem)


def test_splits_labels_and_order(prepared):
    store = open_store(prepared[0])
    assert store.frames == 50 and store.bodies == 2 and len(store.classes) == 60
    for split in ("train", "val"):
        part = store.split(split)
        assert part.names == sorted(part.names)
        assert part.labels.tolist() == [int(name[-3:]) - 1 for name in part.names]
        there = part.views["kinectv2_25"].any(axis=(2, 3, 4))
        np.testing.assert_array_equal(part.bodies, there)
        performers = {int(name[9:12]) for name in part.names}
        assert (
            performers <= {1, 2, 4, 5, 8, 9, *range(13, 20)} if split == "train" else {3, 6, 7, 20}
        )


def test_the_report_counts(prepared):
    out, report = prepared
    store = open_store(out)
    splits = {name: store.split(name) for name in ("train", "val")}
    assert report.found == 60 and report.listed == report.other == 0
    assert report.clips == {name: len(part) for name, part in splits.items()}
    for name, part in splits.items():
        assert report.per_class[name] == np.bincount(part.labels, minlength=60).tolist()
    bodies = np.concatenate([part.bodies for part in splits.values()]).sum(axis=1)
    assert report.people == [int((bodies == 1).sum()), int((bodies == 2).sum())]
    assert min(report.people) > 5
    assert report.body_counts.joined > 5 and report.body_counts.wide > 5
    view = report.views["kinectv2_25"]
    assert 0 < view.interpolated < 0.1 * view.joints
    assert json.loads((out / "dataset.json").read_text())["report"] == json.loads(
        json.dumps(report.to_dict())
    )
    text = "\n".join(report.lines())
    fewer = 40_091 - report.clips["train"]
    assert f"ntu60 xsub train: {fewer:,} fewer than the 40,091 published" in text
    assert "no clip at all of setups 1, 3-17" in text
    assert f"bodies: {report.people[0]} with 1, {report.people[1]} with 2" in text
    assert not list(out.parent.glob(".*")), "the work folder stays"


@pytest.mark.parametrize(("dataset", "protocol"), [("ntu60", "xview"), ("ntu120", "xset")])
def test_other_protocols(skeletons, tmp_path, dataset, protocol):
    report = prepare(skeletons, tmp_path / "out", dataset=dataset, protocol=protocol)
    cameras = [int(path.name[5:8]) for path in skeletons.rglob("*.skeleton")]
    trains = {"xview": sum(camera != 1 for camera in cameras), "xset": 60}[protocol]
    assert report.clips == {"train": trains, "val": 60 - trains}
    assert len(report.classes) == {"ntu60": 60, "ntu120": 120}[dataset]


def test_options(skeletons, tmp_path):
    rules = BodyRules(join_metres=0, wide=float("inf"), min_frames=1)
    report = prepare(skeletons, tmp_path / "out", rules=rules, frames=9, bodies=4, name="mine")
    store = open_store(tmp_path / "out")
    assert store.split("train").views["kinectv2_25"].shape[1:] == (4, 9, 25, 3)
    assert store.meta["name"] == "mine"
    assert vars(report.body_counts) == dict(joined=0, short=0, wide=0, surplus=0, rescued=0)
    assert report.people[2] > 0


# What must change nothing


def test_the_order_and_place_of_the_files_change_nothing(skeletons, prepared, tmp_path):
    paths = list(skeletons.rglob("*.skeleton"))
    random.Random(0).shuffle(paths)
    for i, path in enumerate(paths):
        folder = tmp_path / "there" / f"{i % 3}" / f"{i % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / path.name).write_bytes(path.read_bytes())
    (tmp_path / "there" / "notes.txt").write_text("no clip")
    (tmp_path / "there" / "._S001C001P001R001A001.skeleton").write_text("no clip")
    prepare(tmp_path / "there", tmp_path / "ntu")
    assert tree(tmp_path / "ntu") == tree(prepared[0])


def zipped(paths, target: Path) -> Path:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("nturgb+d_skeletons/", "")
        for path in reversed(list(paths)):
            archive.write(path, f"nturgb+d_skeletons/{path.name}")
    return target


def test_zips_are_as_good_as_folders(skeletons, prepared, tmp_path):
    one = zipped((skeletons / "part one").iterdir(), tmp_path / "one.zip")
    two = zipped((skeletons / "part two").iterdir(), tmp_path / "two.zip")
    before = sorted(os.listdir(tmp_path))
    prepare([two, one], tmp_path / "ntu")
    assert tree(tmp_path / "ntu") == tree(prepared[0])
    assert sorted(os.listdir(tmp_path)) == sorted([*before, "ntu"])
    prepare([skeletons / "part two", one], tmp_path / "mixed" / "ntu")
    assert tree(tmp_path / "mixed" / "ntu") == tree(prepared[0])


def test_backslashes_in_a_zip_are_slashes(skeletons, prepared, tmp_path):
    """As some programs on Windows write them; one half of the clips, the other as usual."""
    paths = sorted((skeletons / "part one").iterdir())
    with zipfile.ZipFile(tmp_path / "one.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for i, path in enumerate(paths):
            slash = "\\" if i % 2 else "/"
            archive.writestr(f"nturgb+d{slash}{path.name}", path.read_bytes())
    prepare([tmp_path / "one.zip", skeletons / "part two"], tmp_path / "ntu")
    assert tree(tmp_path / "ntu") == tree(prepared[0])


@pytest.mark.skipif(os.sep == "\\", reason="no file can have such a name")
def test_files_with_backslashes_in_their_names_are_found(tmp_path):
    paths = write_tree(tmp_path / "in", clip_names(3), frames=3, variety=1)
    paths[0].rename(paths[0].with_name(f"nturgb+d\\{paths[0].name}"))
    report = prepare(tmp_path / "in", tmp_path / "out")
    assert report.found == 3 and not report.corrupt
    assert sum(report.clips.values()) == 3


def test_relative_paths_and_a_tilde(tmp_path, monkeypatch):
    write_tree(tmp_path / "in", clip_names(3), frames=3, variety=1)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(job, "RANGE", 1)
    for name, (source, out) in {"a": ("in", "a"), "b": ("~/in", "~/b")}.items():
        monkeypatch.chdir(tmp_path)
        prepare(source, out, on_clip=lambda *_: os.chdir("/"))  # between the first and the second
        assert open_store(tmp_path / name).size["kinectv2_25"] > 1
    with pytest.raises(InputError, match="exists and is not empty"):
        prepare("~/in", "~/b")


# What is left out


def test_listed_and_other_clips_are_skipped_and_counted(tmp_path):
    listed = sorted(skip_list("ntu60"))[:3]
    names = [*clip_names(6, setups=(17,)), *listed, "S018C001P001R001A001", "S001C001P001R001A061"]
    write_tree(tmp_path / "in", names, frames=14, variety=3)
    report = prepare(tmp_path / "in", tmp_path / "60")
    assert (report.found, report.listed, report.other) == (11, 3, 2)
    assert sum(report.clips.values()) == 6
    text = "\n".join(report.lines())
    assert "3 skipped: on the list" in text and "2 skipped: of actions or setups" in text
    report = prepare(tmp_path / "in", tmp_path / "120", dataset="ntu120")
    assert (report.listed, report.other, sum(report.clips.values())) == (3, 0, 8)


def test_clips_with_nobody_are_skipped_and_named(tmp_path):
    write_tree(tmp_path / "in", clip_names(5), frames=14, variety=3)
    for name, text in [("A050", "3\n0\n0\n0\n"), ("A051", "0\n")]:
        (tmp_path / "in" / f"S001C001P001R001{name}.skeleton").write_text(text)
    report = prepare(tmp_path / "in", tmp_path / "out")
    assert report.empty == ["S001C001P001R001A050", "S001C001P001R001A051"]
    assert sum(report.clips.values()) == 5
    assert "2 skipped: nobody in them (S001C001P001R001A050, " in "\n".join(report.lines())


def corrupt_tree(folder: Path, count: int, corrupt: int) -> list[str]:
    """`count` clips of which the first `corrupt` are each corrupt in another way."""
    paths = write_tree(folder, clip_names(count), frames=12, variety=2, pairs=())
    ways = [
        lambda text: text[: len(text) // 2].rpartition("\n")[0] + "\n",
        lambda text: text.replace("\n25\n", "\n20\n"),
        lambda text: text.replace(" ", " x", 30),
    ]
    for path, way in zip(paths[:corrupt], ways, strict=False):
        path.write_text(way(path.read_text()))
    return [path.stem for path in paths[:corrupt]]


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_corrupt_files_are_listed_with_line_and_reason(tmp_path, form):
    names = corrupt_tree(tmp_path / "in", 60, 3)
    source = tmp_path / "in"
    if form == "zip":
        source = zipped(sorted(source.iterdir()), tmp_path / "in.zip")
    report = prepare(source, tmp_path / "out")
    assert sum(report.clips.values()) == 57
    assert [name for name, _, _ in report.corrupt] == sorted(names)
    by_name = {name: (line, reason) for name, line, reason in report.corrupt}
    line, reason = by_name[names[1]]
    assert line == 4 and reason.startswith("20 joints; wanted the 25")
    text = "\n".join(report.lines())
    assert "3 skipped: corrupt" in text
    for name in names:
        line, reason = by_name[name]
        assert line > 0 and f"  {name}:{line}: {reason}" in text
    stored = open_store(tmp_path / "out").meta["report"]["corrupt"]
    assert stored == [list(row) for row in report.corrupt]


@pytest.mark.parametrize("workers", [1, 2])
def test_too_many_corrupt_files_end_the_run(tmp_path, workers):
    """3 of 59 are 5.08 %."""
    names = corrupt_tree(tmp_path / "in", 59, 3)
    with pytest.raises(InputError, match="3 of 59 clips are corrupt, more than 5%") as error:
        prepare(tmp_path / "in", tmp_path / "deep" / "out", workers=workers)
    assert all(name in str(error.value) for name in names)
    assert "\n" not in str(error.value)
    assert os.listdir(tmp_path) == ["in"]


def test_a_damaged_member_of_a_zip_is_corrupt(tmp_path):
    paths = write_tree(tmp_path / "in", clip_names(30), frames=12, variety=2)
    archive = zipped(paths, tmp_path / "in.zip")
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 255  # somewhere in the middle of the packed clips
    archive.write_bytes(data)
    report = prepare(archive, tmp_path / "out")
    assert len(report.corrupt) == 1 and "cannot be unpacked" in report.corrupt[0][2]


def test_coordinates_beyond_float32_are_corrupt(tmp_path):
    write_tree(tmp_path / "in", clip_names(30), frames=12, variety=2)
    xyz = moving_body(12, 0)
    xyz[:, 3] = 3e38
    xyz[:, 20] = -3e38
    huge = tmp_path / "in" / "S001C001P001R001A060.skeleton"
    huge.write_text(file_text(12, [body(xyz)]))
    report = prepare(tmp_path / "in", tmp_path / "out")
    assert report.corrupt == [(huge.stem, 0, "coordinates too large for float32")]


# What is refused


def test_a_clip_must_be_there_once(tmp_path):
    for part in ("a", "b"):
        write_tree(tmp_path / part, clip_names(2), frames=3, variety=1)
    with pytest.raises(
        InputError, match="S001C001P001R001A001 is there twice: .*/a/.* and .*/b/.*; keep"
    ):
        prepare(tmp_path, tmp_path / "out")


def test_sources_must_hold_clips(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "no.zip").write_text("no zip")
    for source, said in [
        ("empty", "holds no clip; wanted files named like"),
        ("no.zip", "is no folder and no .zip"),
        ("none", "does not exist"),
    ]:
        with pytest.raises(InputError, match=said):
            prepare(tmp_path / source, tmp_path / "out")
    with pytest.raises(InputError, match="no folder of skeletons"):
        prepare([], tmp_path / "out")


def test_a_set_without_a_single_usable_clip_is_refused(tmp_path):
    write_tree(tmp_path / "other", ["S018C001P001R001A061"], frames=3, variety=1)
    with pytest.raises(InputError, match="none of the 1 clips found is one of ntu60's"):
        prepare(tmp_path / "other", tmp_path / "out")
    (tmp_path / "nobody").mkdir()
    (tmp_path / "nobody" / "S001C001P001R001A001.skeleton").write_text("1\n0\n")
    with pytest.raises(InputError, match="none of the 1 clips shows a body"):
        prepare(tmp_path / "nobody", tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == ["nobody", "other"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (dict(protocol="xset"), "ntu60 has no protocol 'xset'"),
        (dict(dataset="ntu"), "dataset 'ntu' is not known"),
        (dict(frames=0), "frames is 0"),
        (dict(bodies=0), "bodies is 0"),
        (dict(workers=0), "workers is 0"),
        (dict(absent_poses="zero"), "absent_poses is 'zero'"),
    ],
)
def test_options_that_do_not_fit(skeletons, tmp_path, options, said):
    with pytest.raises(InputError, match=said):
        prepare(skeletons, tmp_path / "out", **options)
    assert os.listdir(tmp_path) == []


def test_out_must_be_free(skeletons, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("")
    with pytest.raises(InputError, match="not empty"):
        prepare(skeletons, tmp_path / "out")


def test_a_lone_ghost_is_kept_and_many_leave_one(tmp_path):
    (tmp_path / "in").mkdir()
    ghosts = [body(ghost_body(20, seed), 10 + seed) for seed in range(3)]
    for number, cast in ((1, ghosts[:1]), (2, ghosts)):
        text = file_text(20, cast)
        (tmp_path / "in" / f"S001C001P001R001A00{number}.skeleton").write_text(text)
    report = prepare(tmp_path / "in", tmp_path / "out")
    assert report.people == [2, 0]
    assert vars(report.body_counts) == dict(joined=0, short=0, wide=2, surplus=0, rescued=1)
