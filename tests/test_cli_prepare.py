"""`msclr prepare` and `msclr export-data`, from files to a data set and back."""

from __future__ import annotations

import json
import pickle
import zipfile

import numpy as np
import pytest

from msclr import cli, layouts
from msclr.data import open_store, prepare_arrays, read_skeleton
from msclr.data.export import export_aimclr, export_pyskl
from msclr.data.prepare import prepare_aimclr, prepare_ctrgcn, prepare_pyskl, read_npz
from tests.data.skeleton_files import write_tree
from tests.tiny import FRAMES, LAYOUTS, tiny_clips, tree

NAMES = [
    f"S001C00{camera}P00{performer}R001A{action:03}"
    for camera in (1, 2)
    for performer in (1, 3)
    for action in range(1, 7)
]


@pytest.fixture(scope="module")
def skeletons(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ntu") / "skeletons"
    write_tree(folder, NAMES, frames=24)
    return folder


def run(*arguments) -> int:
    return cli.main([str(argument) for argument in arguments])


def prepare_ntu(skeletons, out, *options) -> int:
    always = ("--skeletons", skeletons, "--protocol", "xsub", "--out", out, "--frames", 8)
    return run("prepare", "ntu60", *always, *options)


def test_ntu_from_a_folder_and_from_a_zip(skeletons, tmp_path, capsys):
    assert prepare_ntu(skeletons, tmp_path / "a", "--derive", "coco_19,h36m_17") == 0
    out, err = capsys.readouterr()
    assert out.startswith("24 clips (train 12, val 12) of 60 classes, 8 frames")
    assert "ntu60 xsub train: 40,079 fewer than the 40,091 published" in out
    assert "24/24" in err  # the bar
    store = open_store(tmp_path / "a")
    assert list(store.layouts) == ["kinectv2_25", "coco_19", "h36m_17"]
    assert store.split("train").names == [name for name in sorted(NAMES) if "P001" in name]
    assert store.classes[:2] == ["drink water", "eat meal/snack"]

    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for path in reversed(sorted(skeletons.iterdir())):
            archive.write(path, f"nturgb+d_skeletons/{path.name}")
    assert prepare_ntu(tmp_path / "all.zip", tmp_path / "b", "--derive", "coco_19,h36m_17") == 0
    same = [{k: v for k, v in tree(tmp_path / x).items() if "npy" in k} for x in "ab"]
    assert same[0] == same[1]


def write_poses(poses, skeletons):
    """Poses of all clips but the first, derived from the Kinect's joints."""
    poses.mkdir()
    derivation = layouts.derivation(layouts.get("kinectv2_25"), layouts.get("smpl_24"))
    for name in NAMES[1:]:
        clip = read_skeleton(skeletons / f"{name}.skeleton")
        people = np.einsum("vj,ptjc->tpvc", derivation, clip.xyz) * [1000, -1000, 1000]
        np.save(poses / f"{name}.npy", people)
    return poses


def test_ntu_with_poses(skeletons, tmp_path, capsys):
    poses = write_poses(tmp_path / "poses", skeletons)
    assert prepare_ntu(skeletons, tmp_path / "data", "--poses", f"smpl_24={poses}") == 0
    assert "1 skipped: no poses under smpl_24 (S001C001P001R001A001)" in capsys.readouterr().out
    assert len(open_store(tmp_path / "data").split("train")) == 11
    keep = ("--poses", f"smpl_24={poses}", "--absent-poses", "keep")
    assert prepare_ntu(skeletons, tmp_path / "kept", *keep) == 0
    split = open_store(tmp_path / "kept").split("train")
    assert not split.views["smpl_24"][0].any() and split.views["smpl_24"][1].any()


def test_ntu_notes_a_layout_without_mirror_pairs(skeletons, tmp_path, capsys):
    smpl = layouts.get("smpl_24")
    fields = {"name": "cli_unpaired_24", "joints": list(smpl.joints), "center": smpl.center}
    bones = [list(bone) for bone in smpl.bones]
    text = "".join(f"{key} = {value!r}\n" for key, value in (fields | {"bones": bones}).items())
    (tmp_path / "own.toml").write_text(text + "flip = []\n")
    poses = write_poses(tmp_path / "poses", skeletons)
    own = ("--poses", f"{tmp_path / 'own.toml'}={poses}")
    assert prepare_ntu(skeletons, tmp_path / "data", *own) == 0
    out = capsys.readouterr().out
    assert "note: cli_unpaired_24 has no left-right pair of joints" in out
    assert "note: kinectv2_25" not in out


def test_the_rules_for_bodies_are_options(skeletons, tmp_path):
    # In one clip of these two people move; all are seen for 24 frames.
    assert prepare_ntu(skeletons, tmp_path / "one", "--bodies", 1, "--workers", 1) == 0
    assert open_store(tmp_path / "one").bodies == 1
    with pytest.raises(SystemExit) as caught:
        prepare_ntu(skeletons, tmp_path / "none", "--min-frames", "few")
    assert caught.value.code == 2


def test_corrupt_files_are_listed_and_more_than_a_twentieth_end_the_run(
    skeletons, tmp_path, capsys
):
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in skeletons.iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    first, second = (broken / f"{name}.skeleton" for name in NAMES[:2])
    first.write_text(first.read_text().replace("\n25\n", "\n20\n", 1))
    assert prepare_ntu(broken, tmp_path / "data") == 0
    out = capsys.readouterr().out
    assert "1 skipped: corrupt" in out and f"{NAMES[0]}:4: " in out and "20" in out
    second.write_text(second.read_text()[:5000])
    assert prepare_ntu(broken, tmp_path / "again") == 2
    error = capsys.readouterr().err
    assert "2 of 24 clips are corrupt, more than 5%" in error and NAMES[1] in error
    assert not (tmp_path / "again").exists() and not (tmp_path / ".again.prepare").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--skeletons", "nowhere", "--protocol", "xsub"], "nowhere does not exist"),
        (["--skeletons", ".", "--protocol", "xsub", "--poses", "x"], "takes LAYOUT=FOLDER"),
        (["--skeletons", ".", "--protocol", "xsub", "--poses", "x=y"], "unknown layout 'x'"),
        (["--skeletons", ".", "--protocol", "xsub", "--derive", "x"], "unknown layout 'x'"),
        (["--skeletons", ".", "--protocol", "xsub"], "holds no clip"),
        (["--skeletons", ".", "--protocol", "xsub", "--wide", "-1"], "wide is -1.0"),
    ],
)
def test_what_does_not_fit_is_said_in_a_line(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run("prepare", "ntu60", "--out", "data", *arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and words in err and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_protocol_of_the_other_data_set_is_refused(tmp_path):
    with pytest.raises(SystemExit) as caught:
        run("prepare", "ntu60", "--skeletons", tmp_path, "--protocol", "xset", "--out", "x")
    assert caught.value.code == 2


def test_there_and_back_again(tmp_path, capsys):
    data = tmp_path / "data"
    prepare_arrays(data, **tiny_clips(), frames=FRAMES)
    bodies, frames = open_store(data).bodies, open_store(data).frames
    exact = ("--frames", frames, "--bodies", bodies)
    for layout in LAYOUTS:
        out = tmp_path / layout
        assert run("export-data", data, "--format", "aimclr", "--layout", layout, "--out", out) == 0
        assert str(out) in capsys.readouterr().err
    again = tmp_path / "again"
    folders = [f"{layout}={tmp_path / layout}" for layout in LAYOUTS]
    assert run("prepare", "aimclr", *folders, "--out", again, *exact) == 0
    assert arrays(again) == arrays(data)

    file = tmp_path / "data.pkl"
    of = ("--layout", LAYOUTS[0])
    assert run("export-data", data, "--format", "pyskl", *of, "--out", file) == 0
    assert run("prepare", "pyskl", file, *of, "--out", tmp_path / "pyskl", *exact) == 0
    kept = {name: content for name, content in arrays(data).items() if LAYOUTS[1] not in name}
    assert arrays(tmp_path / "pyskl") == kept

    assert run("export-data", data, "--format", "aimclr", "--out", tmp_path / "which") == 2
    assert all(layout in capsys.readouterr().err for layout in LAYOUTS[:1])


def arrays(folder) -> dict[str, bytes | None]:
    return {k: v for k, v in tree(folder).items() if k.endswith(("npy", "names.json"))}


def test_ctrgcn_files(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 12, 150)).astype(np.float32)
    x[:, 9:] = 0
    y = np.eye(3, dtype=np.float32)[[0, 1, 2, 0]]
    np.savez(tmp_path / "NTU.npz", x_train=x, y_train=y, x_test=x[:2], y_test=y[:2])
    assert run("prepare", "ctrgcn", tmp_path / "NTU.npz", "--out", tmp_path / "data") == 0
    meta = json.loads((tmp_path / "data" / "dataset.json").read_text())
    assert meta["splits"] == {"train": 4, "val": 2} and list(meta["layouts"]) == ["kinectv2_25"]


def test_two_dimensions_through_aimclrs_form(tmp_path):
    rng = np.random.default_rng(0)
    clips = rng.uniform(0.1, 1, (4, 1, 6, 17, 3))
    data, form, again = (tmp_path / name for name in ("data", "form", "again"))
    made = {"frames": 6, "bodies": 1, "coordinates": "xy_score"}
    prepare_arrays(data, {"coco_17": clips}, [0, 1, 0, 1], ["train", "val"] * 2, **made)
    assert run("export-data", data, "--format", "aimclr", "--out", form) == 0
    same = ("--coordinates", "xy_score", "--frames", 6)
    assert run("prepare", "aimclr", f"coco_17={form}", "--out", again, *same) == 0
    assert arrays(again) == arrays(data)
    assert open_store(again).coordinates == "xy_score"


def test_a_link_that_leads_nowhere_is_one_corrupt_clip(skeletons, tmp_path, capsys):
    folder = tmp_path / "links"
    folder.mkdir()
    for path in skeletons.iterdir():
        (folder / path.name).symlink_to(path)
    (folder / "S001C003P001R001A001.skeleton").symlink_to(tmp_path / "nowhere")
    assert prepare_ntu(folder, tmp_path / "data") == 0
    out = capsys.readouterr().out
    assert "24 clips" in out and "S001C003P001R001A001: no file, or a link to none" in out


def test_a_tree_without_training_clips_is_refused(skeletons, tmp_path, capsys):
    some = tmp_path / "some"
    some.mkdir()
    for path in skeletons.glob("*P003*"):
        (some / path.name).symlink_to(path)
    assert prepare_ntu(some, tmp_path / "data") == 2
    assert "none of the 12 clips found trains in ntu60 xsub" in capsys.readouterr().err


# Paths, clips left out, coordinates


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder, and another one to work in."""
    (tmp_path / "home").mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "work")
    yield tmp_path / "home"
    assert not list((tmp_path / "work").iterdir())


def npz(path, dead=(), layout="cli_home_2", joints=2) -> None:
    xyz = np.random.default_rng(0).normal(0, 0.4, (6, 4, joints, 3))
    xyz[list(dead)] = np.nan
    split = np.array(["train"] * 4 + ["val"] * 2)
    rows = {f"view/{layout}": xyz.reshape(24, joints, 3)}
    np.savez(path, labels=np.arange(6) % 2, split=split, offset=np.arange(7) * 4, **rows)


LAYOUT = 'name = "cli_home_2"\njoints = ["lhip", "rhip"]\nbones = []\ncenter = "lhip"\n'


def test_a_tilde_is_the_home_folder_in_every_path(home, skeletons):
    (home / "own.toml").write_text(LAYOUT)
    npz(home / "c.npz")
    own = ("--layout=~/own.toml", "--out=~/arrays")
    assert run("prepare", "arrays", "~/c.npz", *own) == 0
    assert run("export-data", "~/arrays", "--format=aimclr", "--out=~/form") == 0
    assert run("prepare", "aimclr", "cli_home_2=~/form", "--out=~/aimclr") == 0
    assert run("export-data", "~/arrays", "--format=pyskl", "--out=~/f.pkl") == 0
    assert run("prepare", "pyskl", "~/f.pkl", *own[:1], "--out=~/pyskl") == 0
    x, y = np.ones((2, 3, 150), np.float32), np.eye(2, dtype=np.float32)
    np.savez(home / "NTU.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    assert run("prepare", "ctrgcn", "~/NTU.npz", "--out=~/ctrgcn") == 0
    (home / "skeletons").symlink_to(skeletons)
    assert prepare_ntu("~/skeletons", "~/ntu") == 0
    for name in ("arrays", "aimclr", "pyskl", "ctrgcn", "ntu"):
        assert open_store(home / name).meta["name"] == name


def test_a_tilde_in_python(home):
    clips = np.random.default_rng(0).normal(0, 0.4, (2, 4, 17, 3))
    prepare_arrays("~/out", {"coco_17": clips}, [0, 0], ["train", "val"])
    data = open_store(home / "out")
    assert data.meta["name"] == "out"
    npz(home / "c.npz")
    assert list(read_npz("~/c.npz")["views"]) == ["cli_home_2"]
    export_aimclr(data, home / "form")
    export_pyskl(data, home / "f.pkl")
    x, y = np.ones((2, 3, 150), np.float32), np.eye(2, dtype=np.float32)
    np.savez(home / "NTU.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    prepare_aimclr("~/flat", "~/form", coordinates="xy_score")
    prepare_aimclr("~/named", {"coco_17": "~/form"})
    prepare_pyskl("~/pyskl", "~/f.pkl", layout="coco_17")
    prepare_ctrgcn("~/ctrgcn", "~/NTU.npz")
    for name in ("flat", "named", "pyskl", "ctrgcn"):
        assert open_store(home / name).meta["name"] == name


def test_strict_and_the_clips_left_out(tmp_path, capsys):
    npz(tmp_path / "c.npz", dead=[1], layout="coco_17", joints=17)
    arguments = ("prepare", "arrays", tmp_path / "c.npz", "--out", tmp_path / "data")
    assert run(*arguments, "--strict") == 2
    error = capsys.readouterr().err
    assert "1 clips would be left out, and strict allows none: no body in" in error
    assert not (tmp_path / "data").exists()
    assert run(*arguments) == 0
    assert "1 left out: no body in view coco_17 (clip1)" in capsys.readouterr().out


def test_two_files_and_a_score(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        clips = []
        for i in range(3):
            xy, score = rng.uniform(100, 900, (1, 5, 18, 2)), rng.uniform(0.3, 1, (1, 5, 18, 1))
            clip = {"filename": f"{split}{i}", "label": i % 2, "img_shape": (1080, 1920)}
            clips.append(clip | {"keypoint": np.concatenate([xy, score], axis=-1)})
        (tmp_path / f"{split}.pkl").write_bytes(pickle.dumps(clips))
    files = (tmp_path / "train.pkl", tmp_path / "val.pkl")
    arguments = ("prepare", "pyskl", *files, "--out", tmp_path / "data")
    assert run(*arguments) == 2
    assert "looks like a score, not like z; choose --coordinates" in capsys.readouterr().err
    assert run(*arguments, "--coordinates", "xy_score") == 0
    assert open_store(tmp_path / "data").coordinates == "xy_score"
