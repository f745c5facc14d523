"""The command line: what it prints where, its exit status, and one clear line for bad input."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from msclr import __version__, cli
from msclr.cli import demo as demo_command
from msclr.config import load_recipe
from msclr.training import checkpoint
from tests.tiny import (
    FRAMES,
    LAYOUTS,
    UNSEEN,
    column,
    prepare_tiny,
    tiny_clips,
    tree,
    write_recipe,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return prepare_tiny(tmp_path_factory.mktemp("tiny") / "data", (*LAYOUTS, UNSEEN))


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """Finished runs of two streams."""
    folder = tmp_path_factory.mktemp("runs")
    for stream in ("joint", "motion"):
        recipe = write_recipe(
            folder / f"{stream}.yaml", data, folder / stream, stream=stream, steps=3
        )
        assert cli.main(["pretrain", str(recipe)]) == 0
    return folder


@pytest.fixture
def recipe(data, tmp_path):
    return write_recipe(tmp_path / "recipe.yaml", data, tmp_path / "run", steps=2)


@pytest.fixture
def fails(capsys, tmp_path):
    """Runs a command that must end in one line and status 2, and leave the folder as it was."""

    def run(*arguments):
        before = tree(tmp_path)
        capsys.readouterr()
        assert cli.main([str(argument) for argument in arguments]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("msclr: error: ") and err.count("\n") == 1 and err.endswith("\n")
        assert tree(tmp_path) == before
        return err

    return run


def npz(path, **changes):
    """The tiny clips as `prepare arrays` reads them; `changes` replace arrays, by name."""
    clips = tiny_clips([LAYOUTS[0]])
    views = {name: [clip[0] for clip in x] for name, x in clips["views"].items()}  # one body
    count = len(clips["labels"])
    arrays = {
        "labels": np.array(clips["labels"]),
        "split": np.array(clips["split"]),
        "offset": np.arange(count + 1) * FRAMES,
        **{f"view/{name}": np.concatenate(x) for name, x in views.items()},
    }
    arrays |= changes
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return path


def rows(joints=17):
    return np.random.default_rng(0).normal(size=(30 * FRAMES, joints, 3))


# prepare arrays


def test_prepare_writes_a_data_set_and_reports_on_stdout(tmp_path, capsys):
    clips = npz(tmp_path / "clips.npz")
    status = cli.main(["prepare", "arrays", str(clips), "--out", str(tmp_path / "d"), "--frames=5"])
    out, err = capsys.readouterr()
    assert (status, err) == (0, "") and "22" in out
    stored = np.load(tmp_path / "d" / "train" / f"{LAYOUTS[0]}.npy")
    assert stored.shape == (22, 1, 5, 17, 3)


def test_prepare_takes_a_layout_of_ones_own(tmp_path):
    (tmp_path / "own.toml").write_text(
        'name = "cli_test_3"\njoints = ["hip", "lfoot", "rfoot"]\n'
        'bones = [["lfoot", "hip"], ["rfoot", "hip"]]\ncenter = "hip"\n'
    )
    clips = npz(tmp_path / "c.npz", **{f"view/{LAYOUTS[0]}": None, "view/cli_test_3": rows(3)})
    command = ["prepare", "arrays", str(clips), "--layout", str(tmp_path / "own.toml")]
    assert cli.main([*command, "--out", str(tmp_path / "d")]) == 0
    assert "cli_test_3" in json.loads((tmp_path / "d" / "dataset.json").read_text())["layouts"]


VIEW = f"view/{LAYOUTS[0]}"
EMPTY = np.arange(31) * FRAMES
EMPTY[[5, 9]] = EMPTY[[4, 8]]
BAD_CLIPS = {
    "wrong joint count": ({VIEW: rows(16)}, [LAYOUTS[0], "16 joints", "17"]),
    "clips of zero frames": ({"offset": EMPTY}, ["clip 4", "no frame"]),
    "labels and clips of unlike number": ({"labels": np.zeros(29, int)}, ["29", "30"]),
    "NaN-only clips": (
        {VIEW: np.where(np.arange(30 * FRAMES)[:, None, None] < 2 * FRAMES, np.nan, rows())},
        ["clip 0", "NaN"],
    ),
    "unknown layout": ({VIEW: None, "view/h36m_71": rows()}, ["'h36m_71'", "h36m_17"]),
    "no view": ({VIEW: None}, ["view/<layout>"]),
}


@pytest.mark.parametrize("fault", BAD_CLIPS)
def test_prepare_refuses(fault, fails, tmp_path):
    changes, words = BAD_CLIPS[fault]
    line = fails("prepare", "arrays", npz(tmp_path / "c.npz", **changes), "--out", tmp_path / "d")
    assert all(word in line for word in words), line


@pytest.mark.parametrize("option", [[], ["--layout", "absent.toml"]], ids=["clips", "layout"])
def test_prepare_names_a_file_that_is_missing(option, fails, tmp_path):
    clips = npz(tmp_path / "c.npz") if option else tmp_path / "absent.npz"
    assert "absent" in fails("prepare", "arrays", clips, "--out", tmp_path / "d", *option)


def test_prepare_refuses_a_folder_in_use(fails, tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "mine.txt").write_text("keep me")
    line = fails("prepare", "arrays", npz(tmp_path / "c.npz"), "--out", tmp_path / "d")
    assert "not empty" in line


# pretrain


def test_pretrain_says_where_the_run_is_and_nothing_on_stdout(recipe, tmp_path, capsys):
    assert cli.main(["pretrain", str(recipe), "seed=3"]) == 0
    out, err = capsys.readouterr()
    assert out == "" and err.endswith(f"run written to {tmp_path / 'run'}\n")
    assert load_recipe(str(tmp_path / "run" / "recipe.yaml")).seed == 3
    assert "loss" in err and "clips/s" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["absent.yaml"], ["absent.yaml"]),
        (["ntu60_xsubb"], ["did you mean 'ntu60_xsub'?"]),
        (["RECIPE", "hiden_dim=4"], ["unknown key 'hiden_dim'", "'hidden_dim'"]),
        (["RECIPE", "lr"], ["key=value", "'lr'"]),
        (["RECIPE", "pairs=both"], ["pairs", "batch, sample, all", "'both'"]),
        (["RECIPE", "data=absent"], ["absent"]),
        (["RECIPE", "layouts=[h36m_71]"], ["'h36m_71'", "h36m_17"]),
        (["RECIPE", "layouts=[coco_19]"], ["'coco_19'", "h36m_17"]),
        (["RECIPE", "device=cuda:99"], ["cuda:99"]),
    ],
    ids=lambda x: " ".join(x) if x[0] == "RECIPE" else x[0],
)
def test_pretrain_refuses(arguments, words, recipe, fails):
    line = fails("pretrain", *(recipe if x == "RECIPE" else x for x in arguments))
    assert all(word in line for word in words), line


def test_pretrain_refuses_data_whose_checksum_fails(recipe, data, fails, tmp_path):
    shutil.copytree(data, tmp_path / "data")
    damaged = tmp_path / "data" / "train" / f"{LAYOUTS[0]}.npy"
    content = bytearray(damaged.read_bytes())
    content[-3] ^= 1
    damaged.write_bytes(content)
    line = fails("pretrain", recipe, f"data={tmp_path / 'data'}")
    assert str(damaged) in line and "checksum" in line


def test_pretrain_refuses_a_folder_in_use_unless_resuming(trained, fails, tmp_path, capsys):
    shutil.copytree(trained / "joint", tmp_path / "run")
    arguments = ["pretrain", str(trained / "joint.yaml"), f"out={tmp_path / 'run'}"]
    assert "--resume" in fails(*arguments)
    losses = column(tmp_path / "run")
    assert cli.main([*arguments, "--resume"]) == 0
    assert column(tmp_path / "run") == losses


def test_pretrain_refuses_to_resume_from_another_recipe(trained, fails, tmp_path):
    shutil.copytree(trained / "joint", tmp_path / "run")
    arguments = ["pretrain", trained / "joint.yaml", f"out={tmp_path / 'run'}", "lr=0.5"]
    line = fails(*arguments, "--resume")
    assert "another recipe" in line and "lr=1e-05 there, 0.5 here" in line


@pytest.mark.parametrize("command", ["pretrain", "evaluate"])
def test_a_truncated_checkpoint_is_refused(command, trained, fails, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained / "joint", run)
    saved = run / "checkpoint.pt"
    saved.write_bytes(saved.read_bytes()[: saved.stat().st_size // 2])
    resume = ["pretrain", trained / "joint.yaml", f"out={run}", "--resume"]
    line = fails(*(resume if command == "pretrain" else ["evaluate", "linear", run]))
    assert str(saved) in line and "truncated" in line


def test_a_run_that_diverges_ends_with_status_1(recipe, tmp_path, capsys):
    arguments = ["pretrain", str(recipe), "lr=1e30", "steps=6", "checkpoint_every=100"]
    assert cli.main(arguments) == 1
    out, err = capsys.readouterr()
    last = err.splitlines()[-1]  # not glued to the progress bar, and not followed by it
    assert out == "" and last.startswith("msclr: stopped: the loss is nan at step ")
    assert "learning rate 1e+30" in last and "checkpoint" in last


def test_a_full_disk_ends_in_no_half_written_checkpoint(recipe, tmp_path, monkeypatch, capsys):
    def full(state, file):
        file.write(b"PK")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.torch, "save", full)
    assert cli.main(["pretrain", str(recipe)]) == 1
    assert capsys.readouterr().err.endswith("msclr: error: [Errno 28] No space left on device\n")
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


# evaluate, ensemble, info


@pytest.mark.parametrize(
    "command",
    ["evaluate linear RUN/joint", "evaluate knn RUN/joint", "ensemble RUN/joint RUN/motion"],
)
def test_json_is_one_object_on_stdout_with_the_agreed_keys(command, trained, capsys):
    arguments = command.replace("RUN", str(trained)).split()
    assert cli.main([*arguments, "--layout", LAYOUTS[0], "--json"]) == 0
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert out.count("\n") == 1
    assert all(line.startswith("msclr: note: ") for line in err.splitlines())
    assert len(err.splitlines()) == len(result["notes"])
    assert {"protocol", "layout", "top1", "top5", "best_top1"} <= result.keys()


def test_json_of_several_layouts_is_a_list(trained, capsys):
    assert cli.main(["evaluate", "linear", str(trained / "joint"), "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert [r["layout"] for r in results] == [*LAYOUTS, UNSEEN]
    assert [r["seen_in_pretraining"] for r in results] == [True, True, False]


def test_evaluate_prints_a_line_a_layout(trained, capsys):
    assert cli.main(["evaluate", "linear", str(trained / "joint"), "--random"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [["linear", x] for x in (*LAYOUTS, UNSEEN)]
    assert all("(joint, random)" in line and "top-1" in line for line in lines)


def test_evaluate_knn_of_an_unseen_layout_prints_every_k(trained, capsys):
    assert cli.main(["evaluate", "knn", str(trained / "joint"), "--layout", UNSEEN]) == 0
    assert capsys.readouterr().out.startswith(f"knn {UNSEEN} (joint, pretrained), unseen: k=1: ")


def test_ensemble_prints_members_with_their_weights(trained, capsys):
    runs = [str(trained / stream) for stream in ("joint", "motion")]
    assert cli.main(["ensemble", *runs, "--layout", LAYOUTS[0]]) == 0
    joint, motion, total = capsys.readouterr().out.splitlines()
    assert joint.endswith("weight 0.6") and motion.endswith("weight 0.4")
    assert total.startswith("ensemble: top-1 ")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["evaluate", "linear", "absent"], "no run at absent"),
        (["evaluate", "knn", "RUN", "--layout", "h36m_71"], "h36m_17"),
        (["evaluate", "linear", "RUN", "--layout", "coco_19"], "has no layout 'coco_19'"),
        (["evaluate", "knn", "RUN", "--data", "absent"], "absent is not a folder"),
        (["ensemble", "RUN", "absent"], "no run at absent"),
        (["evaluate", "knn", "RUN", "--device", "gpu0"], "device 'gpu0' is not known"),
    ],
)
def test_evaluation_refuses(arguments, word, trained, fails):
    assert word in fails(*(trained / "joint" if x == "RUN" else x for x in arguments))


def test_info_as_json_is_one_object(capsys):
    assert cli.main(["info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["msclr"] == __version__ and facts["backends"]["reference"] == ""
    assert set(LAYOUTS) <= set(facts["layouts"]) and "ntu60_xsub" in facts["recipes"]


def test_info_prints_a_line_a_fact(capsys):
    assert cli.main(["info"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"{'msclr':18}{__version__}" in lines
    assert any(line.split() == ["backend", "reference", "can", "run", "here"] for line in lines)


# demo, and the command as a process


def test_the_demo_refuses_a_folder_in_use(fails, tmp_path):
    (tmp_path / "kept.txt").write_text("mine")
    assert "not empty" in fails("demo", "--out", tmp_path)


def test_the_demos_recipe_is_shipped():
    recipe = load_recipe("toy", ["data=data", "out=run", "seed=1"])
    assert (recipe.data, recipe.seed, recipe.method) == ("data", 1, "aimclr")


def test_the_demo_takes_the_first_free_folder(tmp_path):
    wanted = str(tmp_path / "demo")
    assert demo_command._free_folder(wanted) == wanted
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo-2").mkdir()
    assert demo_command._free_folder(wanted) == f"{wanted}-3"


def test_as_a_process_bad_input_is_one_line_and_status_2():
    command = [sys.executable, "-m", "msclr", "pretrain", "absent.yaml"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("msclr: error: ") and done.stderr.count("\n") == 1


def test_an_interrupt_ends_with_status_130(recipe, monkeypatch, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("msclr.training.pretrain", interrupt)
    assert cli.main(["pretrain", str(recipe)]) == 130
    assert capsys.readouterr().err == "msclr: interrupted\n"


def test_a_key_may_follow_an_option():
    parsed = cli._parse(["pretrain", "toy", "--resume", "lr=0.5", "steps=3"])
    assert parsed.resume and parsed.overrides == ["lr=0.5", "steps=3"]
    with pytest.raises(SystemExit):
        cli._parse(["pretrain", "toy", "--resum", "lr"])
    with pytest.raises(SystemExit):
        cli._parse(["info", "lr=0.5"])


def test_a_reader_who_has_seen_enough_is_no_error(tmp_path):
    command = f"{sys.executable} -m msclr recipe ntu60_xsub | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=tmp_path)
    assert len(done.stdout.splitlines()) == 1 and done.stderr == ""
