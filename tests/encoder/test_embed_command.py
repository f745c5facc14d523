"""`msclr embed`: features of files and of prepared data in a file."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import msclr
from msclr.cli import main
from msclr.evaluation import open_run
from msclr.evaluation.protocols import features_of
from tests.tiny import LAYOUTS, TRAIN, UNSEEN, VAL

KNOWN = LAYOUTS[0]


@pytest.fixture(scope="session")
def clips(arguments):
    """Of one body each, (T, V, 3)."""
    return [clip[0] for clip in arguments["views"][KNOWN][:4]]


@pytest.fixture
def file(clips, tmp_path):
    """Two recordings of 40 and 16 frames."""
    rows = np.concatenate(clips * 2 if len(clips[0]) < 14 else clips)[:56]
    offset, labels = np.array([0, 40, 56]), np.array([1, 0])
    path = tmp_path / "clips.npz"
    np.savez(path, offset=offset, labels=labels, **{f"view/{KNOWN}": rows})
    return path


def embed(capsys, *arguments) -> tuple[int, str, str]:
    status = main(["embed", *map(str, arguments)])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def read(path):
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)


def test_clips_of_a_file(folders, file, tmp_path, capsys):
    status, printed, _ = embed(capsys, folders["joint"], file, "--out", tmp_path / "f.npz")
    assert status == 0 and f"2 clips under {KNOWN}: features (2, 8), written to" in printed
    found, rows = read(tmp_path / "f.npz"), read(file)[f"view/{KNOWN}"]
    wanted = msclr.load(folders["joint"]).embed([rows[:40], rows[40:]], KNOWN)
    assert found["features"].dtype == np.float32
    np.testing.assert_array_equal(found["features"], wanted.numpy())
    assert found["labels"].tolist() == [1, 0] and str(found["layout"]) == KNOWN


def test_mirror_images(folders, data, file, tmp_path, capsys):
    rows = read(file)[f"view/{KNOWN}"]
    wanted = msclr.load(folders["joint"]).embed([rows[:40], rows[40:]], KNOWN, mirror=True)
    embed(capsys, folders["joint"], file, "--out", tmp_path / "f.npz", "--mirror")
    np.testing.assert_array_equal(read(tmp_path / "f.npz")["features"], wanted.numpy())
    options = "--layout", KNOWN, "--mirror", "--out", tmp_path / "g.npz"
    embed(capsys, folders["joint"], data, *options)
    f = features_of(open_run(folders["joint"]), KNOWN, data, mirror=True)
    wanted = torch.cat([f.train, f.val])
    np.testing.assert_array_equal(read(tmp_path / "g.npz")["features"], wanted.numpy())


def test_windows_of_recordings(folders, file, tmp_path, capsys):
    out = tmp_path / "f.npz"
    options = "--window", 16, "--stride", 8, "--plot"
    status, printed, _ = embed(capsys, folders["joint"], file, "--out", out, *options)
    assert status == 0 and "5 windows of 2 clips" in printed
    found, rows = read(out), read(file)[f"view/{KNOWN}"]
    assert found["clip"].tolist() == [0, 0, 0, 0, 1] and found["labels"].tolist() == [1, 1, 1, 1, 0]
    assert found["start"].tolist() == [0, 8, 16, 24, 0] and found["end"].tolist()[-2:] == [40, 16]
    wanted = msclr.load(folders["joint"]).embed(rows[8:24], KNOWN)
    np.testing.assert_array_equal(found["features"][1:2], wanted.numpy())
    assert (tmp_path / "f.png").read_bytes().startswith(b"\x89PNG")


def test_prepared_data_have_the_features_of_evaluation(folders, data, tmp_path, capsys):
    assert embed(capsys, folders["bone"], data, "--out", tmp_path / "f.npz")[0] == 0
    found, f = read(tmp_path / "f.npz"), features_of(open_run(folders["bone"]), KNOWN, data)
    assert found["features"].shape == (TRAIN + VAL, 8)
    assert torch.tensor(found["features"]).equal(torch.cat([f.train, f.val]))
    assert found["split"].tolist() == ["train"] * TRAIN + ["val"] * VAL
    assert found["labels"].tolist() == torch.cat([f.train_labels, f.val_labels]).tolist()
    assert found["classes"].tolist() == ["stand", "hug"] and found["names"][3] == "clip3"


def test_an_unknown_layout_takes_a_route_which_is_said(folders, data, tmp_path, capsys, caplog):
    out = tmp_path / "f.npz"
    command = folders["joint"], data, "--out", out, "--layout", UNSEEN, "--route", "derive"
    assert embed(capsys, *command)[0] == 0
    assert any(f"route derive: {UNSEEN} derived to" in r.message for r in caplog.records)
    f = features_of(open_run(folders["joint"]), UNSEEN, data, route="derive")
    assert torch.tensor(read(out)["features"]).equal(torch.cat([f.train, f.val]))


def test_one_clip_in_a_file_of_its_own(folders, clips, tmp_path, capsys):
    np.save(tmp_path / "clip.npy", clips[0])
    out = tmp_path / "new" / "f.npz"
    command = folders["joint"], tmp_path / "clip.npy", "--layout", KNOWN, "--out", out
    status, said, _ = embed(capsys, *command)
    assert status == 0 and said.startswith(f"1 clip under {KNOWN}: ")
    wanted = msclr.load(folders["joint"]).embed(clips[0], KNOWN)
    np.testing.assert_array_equal(read(out)["features"], wanted.numpy())


def write(path, **arrays):
    np.savez(path, **{key.replace("__", "/"): value for key, value in arrays.items()})


CLIP = np.ones((8, 17, 3))


@pytest.mark.parametrize(
    ("arrays", "options", "message"),
    [
        ({"view__h36m_17": np.full((8, 17, 3), np.nan)}, [], "has no joint"),
        ({"view__h36m_17": CLIP, "offset": [0, 8, 8]}, [], "clip 1 has no frame"),
        ({"view__h36m_17": np.ones((8, 17, 2))}, [], "joints of 2 coordinates"),
        ({"view__h36m_17": np.ones((8, 16, 3))}, [], "has 16 joints, layout h36m_17 has 17"),
        ({"view__h37m_17": CLIP}, [], "unknown layout 'h37m_17'"),
        ({"view__h36m_17": CLIP}, ["--layout", "coco_17"], "has no layout 'coco_17'"),
        ({"view__coco_17": CLIP, "view__umpm_15": CLIP}, [], "choose one with --layout"),
        ({"view__h36m_17": CLIP}, ["--stride", "4"], "a stride without a window"),
        ({"view__h36m_17": CLIP}, ["--window", "0"], "window is 0"),
        ({"view__h36m_17": CLIP, "labels": [0, 1]}, [], "2 labels for 1 clips"),
        ({"h36m_17": CLIP}, [], "lacks view/<layout>"),
    ],
)
def test_bad_input_is_one_line_and_status_2(folders, arrays, options, message, tmp_path, capsys):
    write(tmp_path / "clips.npz", **arrays)
    out = tmp_path / "f.npz"
    command = folders["joint"], tmp_path / "clips.npz", "--out", out, *options
    status, printed, error = embed(capsys, *command)
    assert (status, printed) == (2, "") and message in error
    assert error.startswith("msclr: error: ") and error.count("\n") == 1
    assert not out.exists() and not list(tmp_path.glob(".*partial*"))


def test_nothing_is_written_over(folders, file, data, tmp_path, capsys):
    out = tmp_path / "f.npz"
    out.write_text("mine")
    for command, message in (
        ((folders["joint"], file, "--out", out), "f.npz exists"),
        (("never looked at", file, "--out", out / "g.npz"), "f.npz is no folder"),
        ((folders["joint"], file, "--out", tmp_path / "f.txt"), "ends in .npz"),
        ((folders["joint"], tmp_path / "none", "--out", tmp_path / "g.npz"), "there is nothing at"),
        ((folders["joint"], data, "--window", 4, "--out", tmp_path / "g.npz"), "have no windows"),
        ((tmp_path / "norun", file, "--out", tmp_path / "g.npz"), "no run at"),
    ):
        status, _, error = embed(capsys, *command)
        assert status == 2 and message in error
    assert out.read_text() == "mine"
