"""`msclr evaluate` over runs, layouts and seeds, what it keeps and what it refuses."""

from __future__ import annotations

import csv
import json
import os
import shlex
import statistics
from pathlib import Path

import numpy as np
import pytest

from msclr.cli import main
from msclr.data import prepare_arrays
from msclr.evaluation import evaluate_linear, evaluate_transfer, finetune, open_run, splits
from msclr.evaluation.summary import summarise
from tests.tiny import FRAMES, LAYOUTS, UNSEEN, VAL, tiny_clips, tree

A, B = LAYOUTS
QUICK = ["--epochs", "2", "--lr", "0.1", "--batch-size", "16"]


@pytest.fixture
def copies(folders, tmp_path):
    """Folders of two runs, without results."""
    for name in ("joint", "motion"):
        (tmp_path / name).mkdir()
        os.link(folders[name] / "checkpoint.pt", tmp_path / name / "checkpoint.pt")
    return [str(tmp_path / name) for name in ("joint", "motion")]


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    folder = tmp_path_factory.mktemp("other") / "data"
    clips = tiny_clips((A,))
    clips["classes"] = ["rest", "greet"]
    prepare_arrays(folder, **clips, frames=FRAMES, name="other")
    return folder


def printed(capsys, *arguments, status=0):
    assert main([str(x) for x in arguments]) == status
    return capsys.readouterr()


def results_of(capsys, *arguments):
    return json.loads(printed(capsys, *arguments, "--json").out)


def test_several_runs_and_seeds_end_in_mean_and_deviation(copies, capsys):
    asked = ["evaluate", "linear", *copies, "--layout", f"{A},{B}", "--seeds", "0,1,2", *QUICK]
    results = results_of(capsys, *asked)
    keys = [(x["run"], x["layout"], x["seed"]) for x in results]
    assert keys == [(run, name, s) for run in copies for name in (A, B) for s in (0, 1, 2)]
    lines = printed(capsys, *asked).out.splitlines()
    assert len(lines) == 12 + 4  # a run each of the joint and of the motion stream
    assert lines[1].startswith(f"linear {A} (joint, pretrained, {copies[0]}, seed 1): top-1 ")
    top1 = [x["top1"] for x in results[:3]]
    mean, deviation = statistics.fmean(top1), statistics.stdev(top1)
    head = f"mean of 3 (1 run, 3 seeds): linear {A} (joint, pretrained): "
    assert lines[12].startswith(f"{head}top-1 {mean:.1f} ± {deviation:.1f} %, top-5 100.0 ± 0.0 %")


def test_runs_of_one_stream_are_averaged(copies):
    results = [
        {"protocol": "retrieval", "layout": A, "stream": "joint", "encoder": "pretrained",
         "run": run, "map": value, "recall_at": {"1": 2 * value}}
        for run, value in zip("abcc", (10.0, 20.0, 30.0, 40.0), strict=True)
    ]  # fmt: skip
    (summary,) = summarise([*results, results[0] | {"layout": B}])
    assert (summary["count"], summary["runs"], summary["seeds"]) == (4, 3, 1)
    assert summary["mean"] == {"mAP": 25.0, "R@1": 50.0}
    assert summary["deviation"]["mAP"] == pytest.approx((500 / 3) ** 0.5)


def test_one_result_is_an_object_and_several_are_a_list(copies, capsys):
    one = results_of(capsys, "evaluate", "retrieval", copies[0], "--layout", A)
    assert one["protocol"] == "retrieval" and set(one["recall_at"]) == {"1", "5", "10"}
    several = results_of(capsys, "evaluate", "retrieval", copies[0])
    assert [x["layout"] for x in several] == [*LAYOUTS, UNSEEN]
    said = printed(capsys, "evaluate", "knn", *copies, "--layout", A, "--json").err
    assert "mean of" not in said  # of two streams


def test_each_protocol_prints_its_line(copies, capsys):
    run = copies[0]
    out, err = printed(capsys, "evaluate", "semi", run, "--layout", A, "--labels", "0.2", *QUICK)
    assert out.startswith(f"semi {A} (joint, pretrained, 4 labelled clips): top-1 ")
    assert "epoch 2/2, loss " in err
    out = printed(capsys, "evaluate", "finetune", run, "--layout", A, *QUICK).out
    assert out.startswith(f"finetune {A} (joint, pretrained): top-1 ") and "'hug' " in out
    out = printed(capsys, "evaluate", "retrieval", run, "--layout", UNSEEN).out
    assert out.startswith(f"retrieval {UNSEEN} (joint, pretrained), unseen: mAP ")
    assert out.count(", R@") == 3


def test_transfer_to_another_data_set(copies, other, capsys):
    asked = ["evaluate", "transfer", copies[0], "--data", other]
    results = results_of(capsys, *asked, "--seeds", "0,1", "--lr", "0.1")
    assert [(x["protocol"], x.get("seed")) for x in results] == [
        ("linear", 0), ("linear", 1), ("knn", None)
    ]  # fmt: skip
    assert {x["data"] for x in results} == {str(other)}
    assert set(results[0]["per_class"]) == {"rest", "greet"}
    wanted = evaluate_linear(open_run(copies[0]), A, other, lr=0.1)
    assert results[0] == wanted


def test_transfer_finetunes_where_asked(copies, other, capsys, monkeypatch):
    monkeypatch.setattr(finetune, "SCHEDULES", {"finetune": finetune.Schedule(2, 0, (1,))})
    results = results_of(capsys, "evaluate", "transfer", copies[0], "--data", other, "--finetune")
    assert [x["protocol"] for x in results] == ["linear", "knn", "finetune"]
    assert results[2]["data"] == str(other)


def test_labels_of_other_data_have_a_file_of_their_own(copies, other, data, tmp_path):
    run = open_run(copies[0])
    twin = tmp_path / "twin"
    clips = tiny_clips((A,))
    prepare_arrays(twin, **(clips | {"labels": [1 - x for x in clips["labels"]]}), frames=FRAMES)
    own = evaluate_transfer(run, A, B, epochs=1)
    theirs = evaluate_transfer(run, A, B, data, train_data=twin, epochs=1)
    assert own["files"]["json"] != theirs["files"]["json"]
    assert "-from-twin-" in theirs["files"]["json"]
    assert json.loads(Path(own["files"]["json"]).read_text(encoding="utf-8")) == own
    assert f"--train-data {twin}" in theirs["command"]


def test_of_several_data_sets_each_has_a_file_of_its_own(copies):
    """A run that was trained on several has their checksums together, and none as its own."""
    run = open_run(copies[0])
    own = run.checksums
    run.checksums = {f"0:{file}": checksum for file, checksum in own.items()}
    run.parts = [{"data_checksums": own, "size": run.size, "derived": {}}]
    stem = f"linear-{A}-joint-pretrained"
    name = Path(evaluate_linear(run, A, epochs=1)["files"]["json"]).name
    assert name.startswith(f"{stem}-data-") and name.endswith("-epochs1.json")


def test_an_earlier_checkpoint_has_results_of_its_own(copies, capsys):
    run = Path(copies[0])
    os.link(run / "checkpoint.pt", run / "checkpoint_epoch_1.pt")
    asked = ["--layout", A]
    last = results_of(capsys, "evaluate", "knn", run, *asked)
    early = results_of(capsys, "evaluate", "knn", run / "checkpoint_epoch_1.pt", *asked)
    assert (last["run"], early["run"]) == (str(run), str(run / "checkpoint_epoch_1.pt"))
    assert Path(early["files"]["json"]).name == f"knn-{A}-joint-pretrained-checkpoint_epoch_1.json"
    assert early["command"].split()[3] == early["run"] and early["top1"] == last["top1"]


def test_the_command_of_a_result_prints_it_again(copies, other, capsys):
    asked = [
        ["linear", "--layout", UNSEEN, "--route", "attach", "--seeds", "3", "--epochs", "2"],
        ["knn", "--layout", A, "--data", other, "--random"],
        ["transfer", "--train-layout", A, "--test-layout", B, "--epochs", "1"],
        ["semi", "--layout", A, "--labels", "0.2", "--epochs", "1"],
        ["linear", "--layout", A, "--solver", "lbfgs", "--mirror"],
        ["knn", "--layout", UNSEEN, "--route", "derive", "--mirror"],
        ["retrieval", "--layout", A, "--mirror"],
        ["transfer", "--train-layout", A, "--test-layout", UNSEEN, "--route", "attach", "--mirror"],
    ]
    for protocol, *options in asked:
        result = results_of(capsys, "evaluate", protocol, copies[0], *options)
        words = shlex.split(result["command"])
        assert words[0] == "msclr" and results_of(capsys, *words[1:]) == result


def test_mirror_images_count_where_asked(copies, other, capsys):
    plain, mirrored = (
        results_of(capsys, "evaluate", "knn", copies[0], "--layout", A, *options)
        for options in ([], ["--mirror"])
    )
    assert (plain["mirror"], mirrored["mirror"]) == (False, True)
    assert mirrored["files"]["json"] == plain["files"]["json"].replace(".json", "-mirror.json")
    line = printed(capsys, "evaluate", "knn", copies[0], "--layout", A, "--mirror").out
    assert f"knn {A} (joint, pretrained, mirror): " in line
    both = results_of(capsys, "ensemble", copies[0], "--layout", f"{A},{B}", "--mirror", *QUICK)
    assert "--mirror" in both["command"].split() and both["mirror"]
    words = shlex.split(both["command"])
    assert results_of(capsys, *words[1:]) == both
    member = results_of(capsys, "evaluate", "linear", copies[0], "--layout", A, "--mirror", *QUICK)
    assert member["top1"] == both["members"][0]["top1"]
    of_both = results_of(capsys, "evaluate", "transfer", copies[0], "--data", other, "--mirror")
    assert {(each["protocol"], each["mirror"]) for each in of_both} == {
        ("linear", True), ("knn", True),
    }  # fmt: skip


# What is kept


def test_scores_and_confusion_matrix_of_a_classifier(copies, capsys):
    asked = ["evaluate", "linear", copies[0], "--layout", A, *QUICK, "--scores", "--confusion"]
    out, err = printed(capsys, *asked)
    result = results_of(capsys, *asked)
    files = result["files"]
    stem = f"{copies[0]}/evaluation/linear-{A}-joint-pretrained-epochs2-lr0.1-batch_size16"
    assert files == {kind: f"{stem}.{kind}" for kind in ("json", "npz", "csv", "png")}
    assert f"msclr: scores: {files['npz']}" in err
    kept = np.load(files["npz"], allow_pickle=False)
    assert kept["classes"].tolist() == ["stand", "hug"] and len(kept["names"]) == VAL
    found = kept["logits"].argmax(1)
    assert 100 * (found == kept["labels"]).mean() == result["top1"]
    matrix = [[int(((kept["labels"] == i) & (found == j)).sum()) for j in (0, 1)] for i in (0, 1)]
    assert result["confusion"] == matrix
    rows = list(csv.reader(Path(files["csv"]).read_text(encoding="utf-8").splitlines()))
    assert rows == [["true class", "stand", "hug"],
                    ["stand", *map(str, matrix[0])], ["hug", *map(str, matrix[1])]]  # fmt: skip
    assert Path(files["png"]).read_bytes().startswith(b"\x89PNG")
    text = Path(files["json"]).read_text(encoding="utf-8")
    assert f"[{matrix[0][0]}, {matrix[0][1]}]" in text and json.loads(text) == result


def test_scores_of_neighbours_and_retrieval(copies, capsys):
    for protocol in ("knn", "retrieval"):
        files = results_of(capsys, "evaluate", protocol, copies[0], "--layout", A, "--scores")
        kept = np.load(files["files"]["npz"], allow_pickle=False)
        if protocol == "knn":
            assert 100 * (kept["k1"] == kept["labels"]).mean() == files["by_k"]["1"]
            assert np.sum(files["confusion"]) == VAL
        else:
            assert 100 * kept["average_precision"].mean() == pytest.approx(files["map"])


def test_what_is_not_asked_for_is_not_kept(copies, capsys):
    printed(capsys, "evaluate", "knn", copies[0], "--layout", A)
    assert list(tree(Path(copies[0]) / "evaluation")) == [f"knn-{A}-joint-pretrained.json"]


# What is refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["semi"], "semi takes --labels SHARE"),
        (["semi", "--labels", "0"], "labels is 0.0; wanted a share above 0 and at most 1"),
        (["semi", "--labels", "1.5"], "labels is 1.5; wanted a share above 0 and at most 1"),
        (["semi", "--labels", "nan"], "labels is nan; wanted a share"),
        (["linear", "--labels", "0.1"], "linear takes no --labels"),
        (["finetune", "--lr", "0"], "finetuning: lr is 0.0; it must be a number above 0"),
        (["knn", "--seeds", "1"], "knn trains nothing and takes no --seeds"),
        (["retrieval", "--epochs", "1"], "retrieval trains nothing and takes no --epochs"),
        (["retrieval", "--confusion"], "retrieval predicts no class"),
        (["linear", "--seeds", "a"], "seeds is 'a'; wanted different whole numbers"),
        (["linear", "--seeds", ""], "seeds is ''; wanted different whole numbers"),
        (["linear", "--seeds", "9223372036854775808"], "of 0 or more (below 2^63)"),
        (["linear", "--lr", "1e300"], "a number above 0 that float32 can hold"),
        (["linear", "--layout", ","], "--layout is ',' and names none; give a layout"),
        (["linear", "--seeds", "1,1"], "seeds is '1,1'; wanted different whole numbers"),
        (["transfer"], "transfer takes --data OTHER"),
        (["transfer", "--data", "absent"], "absent is not a folder"),
        (["transfer", "--data", "x", "--finetune", "--lr", "1"], "each by its own defaults"),
        (["linear", "--finetune"], "linear takes no --finetune"),
        (["finetune", "--mirror"], "--mirror is for frozen encoders, not for semi and finetune"),
        (["transfer", "--data", "x", "--finetune", "--mirror"], "--mirror is for frozen encoders"),
        (["linear", "--layout", f"{A},nonsense"], "nonsense"),
        (["finetune", "--stream", "bone"], "has no encoder of stream 'bone'"),
    ],
)
def test_what_does_not_go_together_is_one_line_and_status_2(arguments, message, folders, capsys):
    protocol, *options = arguments
    err = printed(capsys, "evaluate", protocol, folders["joint"], *options, status=2).err
    last = err.splitlines()[-1]
    assert last.startswith("msclr: error: ") and message in last


def test_absent_runs_and_layouts_are_found_before_the_first_is_evaluated(copies, capsys):
    for rest in (["absent"], ["--layout", f"{A},nonsense"], ["--layout", f"{A},coco_19"]):
        printed(capsys, "evaluate", "knn", copies[0], *rest, status=2)
    assert not (Path(copies[0]) / "evaluation").exists()


def test_data_given_twice_are_refused(copies, other, capsys):
    with pytest.raises(SystemExit) as error:
        main(["evaluate", "knn", copies[0], "--data", str(other), "--data", str(other)])
    assert error.value.code == 2 and "--data is given twice" in capsys.readouterr().err


def test_a_class_without_a_train_clip_is_noted(copies, tmp_path, capsys):
    clips = tiny_clips((A,))
    clips["labels"] = [*clips["labels"][:-1], 2]
    clips["classes"] = ["stand", "hug", "jump"]
    prepare_arrays(tmp_path / "data", **clips, frames=FRAMES)
    data = ["--data", tmp_path / "data"]
    between = ["--train-data", tmp_path / "data", "--train-layout", A, "--test-layout", A]
    for command in (
        ["evaluate", "linear", copies[0], *data],
        ["evaluate", "knn", copies[0], *data],
        ["evaluate", "transfer", copies[0], *data, *between],
        ["ensemble", *copies, *data],
    ):
        err = printed(capsys, *command).err
        assert "1 of 8 val clips count as wrong, for their class 'jump' has no train clip" in err
    assert printed(capsys, "evaluate", "retrieval", copies[0], *data).err.count("left out") == 1
    err = printed(capsys, "evaluate", "finetune", copies[0], *data, status=2).err
    assert "class 'jump' has val clips and no train clip to take" in err


def test_a_run_given_twice_is_refused(copies, capsys):
    again = f"{copies[0]}/../{Path(copies[0]).name}"
    assert (
        "give each run once" in printed(capsys, "evaluate", "knn", copies[0], again, status=2).err
    )


def test_a_note_is_said_once_and_of_its_run(copies, capsys, monkeypatch):
    monkeypatch.setattr(splits, "collapse_note", lambda features: "they coincide")
    asked = ["evaluate", "linear", "--layout", A, "--seeds", "0,1", *QUICK]
    assert printed(capsys, *asked, copies[0]).err.count("they coincide") == 1
    lines = printed(capsys, *asked, *copies).err.splitlines()
    said = [f"msclr: note: {A} ({run}): they coincide" for run in copies]
    assert [line for line in lines if "coincide" in line] == said


def test_a_run_without_a_checkpoint_is_said_to_be_one(copies, tmp_path, capsys):
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "recipe.yaml").touch()
    for folder, why in (("begun", "its run has written none yet"), (".", "this is no run's")):
        given = tmp_path / folder
        for command in (["evaluate", "knn", given], ["report", given]):
            assert f"no checkpoint in {given}: {why}" in printed(capsys, *command, status=2).err
