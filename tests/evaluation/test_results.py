"""Where results are kept: nothing that was kept is lost, and no figure is lost that cannot be."""

from __future__ import annotations

import json
import os

import pytest
import torch

from msclr import cli
from msclr.data import prepare_arrays
from msclr.errors import InputError
from msclr.evaluation import (
    ensemble,
    evaluate_ensemble,
    evaluate_knn,
    evaluate_linear,
    knn,
    open_run,
    results,
)
from msclr.evaluation.splits import features_of
from tests.tiny import LAYOUTS, TRAIN, VAL, tiny_clips, tree

LAYOUT = LAYOUTS[0]


@pytest.fixture
def copy(folders, tmp_path):
    """A run's folder without results."""
    folder = tmp_path / "run"
    folder.mkdir()
    os.link(folders["joint"] / "checkpoint.pt", folder / "checkpoint.pt")
    return folder


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """Data of the same clips under one layout, with a name that no file may have."""
    folder = tmp_path_factory.mktemp("other") / "data"
    prepare_arrays(folder, **tiny_clips([LAYOUT]), frames=8, name="a/b: of Grün")
    return folder


def kept(folder):
    return sorted(path.name for path in (folder / "evaluation").iterdir())


def test_a_result_is_kept_for_each_data_set(copy, other, data):
    run = open_run(copy)
    mine = evaluate_knn(run, LAYOUT)
    before = tree(copy / "evaluation")
    result = evaluate_knn(run, LAYOUT, other)
    assert before.items() <= tree(copy / "evaluation").items()
    own, others = sorted(kept(copy), key=len)
    assert own == f"knn-{LAYOUT}-joint-pretrained.json"
    assert others.startswith(f"knn-{LAYOUT}-joint-pretrained-a_b_of_Grün-")
    assert json.loads((copy / "evaluation" / own).read_text(encoding="utf-8")) == mine
    assert json.loads((copy / "evaluation" / others).read_text(encoding="utf-8")) == result
    evaluate_knn(run, LAYOUT, other)  # the same file again
    assert len(kept(copy)) == 2


def test_the_runs_own_data_are_known_by_their_content(copy, tmp_path):
    """A copy is the run's own data; what was prepared otherwise since is not, even in its place."""
    run = open_run(copy)
    evaluate_knn(run, LAYOUT, run.recipe.data)
    os.symlink(run.recipe.data, tmp_path / "copy")
    evaluate_knn(run, LAYOUT, tmp_path / "copy")
    assert kept(copy) == [f"knn-{LAYOUT}-joint-pretrained.json"]
    run.checksums = run.checksums | {"train/labels.npy": "of before"}
    evaluate_knn(run, LAYOUT)
    assert len(kept(copy)) == 2


def test_options_other_than_the_protocols_have_separate_files(copy):
    run = open_run(copy)
    evaluate_linear(run, LAYOUT, seed=1, lr=0.1, epochs=2, batch_size=8)
    evaluate_knn(run, LAYOUT, ks=(1, 5))
    assert kept(copy) == [
        f"knn-{LAYOUT}-joint-pretrained-k1-k5.json",
        f"linear-{LAYOUT}-joint-pretrained-seed1-epochs2-lr0.1-batch_size8.json",
    ]


def test_a_figure_that_cannot_be_kept_is_returned_with_a_note(copy):
    (copy / "evaluation").write_text("in the way")
    run = open_run(copy)
    result = evaluate_knn(run, LAYOUT)
    f = features_of(run, LAYOUT)
    assert result["top1"] == knn(f.train, f.train_labels, f.val, f.val_labels, 2, [1])[1]
    assert "could not be kept in" in result["notes"][-1] and "exists" in result["notes"][-1]
    assert (copy / "evaluation").read_text() == "in the way"


def test_a_full_disk_leaves_the_former_result_whole(copy, monkeypatch):
    run = open_run(copy)
    evaluate_knn(run, LAYOUT)
    before = tree(copy / "evaluation")

    def full(path, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(results.os, "replace", full)
    run.step += 1  # another result
    assert "No space left on device" in evaluate_knn(run, LAYOUT)["notes"][-1]
    assert tree(copy / "evaluation") == before


def test_the_command_prints_the_figure_and_says_that_it_was_not_kept(copy, capsys):
    (copy / "evaluation").write_text("in the way")
    assert cli.main(["evaluate", "knn", str(copy), "--layout", LAYOUT]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"knn {LAYOUT} (joint, pretrained): k=1: ") and out.count("\n") == 1
    assert err.splitlines()[-1].startswith(f"msclr: note: {LAYOUT}: the result could not be kept")

    assert cli.main(["evaluate", "knn", str(copy), "--json"]) == 0
    out, err = capsys.readouterr()
    results = json.loads(out)
    said = [f"msclr: note: {x['layout']}: {note}" for x in results for note in x["notes"]]
    assert said == err.splitlines()
    assert sum("could not be kept" in note for note in said) == 3  # a layout each


def test_options_of_the_linear_protocol_from_the_command_line(copy, capsys):
    options = ["--lr", "0.5", "--epochs", "3", "--batch-size", "4", "--layout", LAYOUT, "--json"]
    assert cli.main(["evaluate", "linear", str(copy), *options]) == 0
    result = json.loads(capsys.readouterr().out)
    run = open_run(copy)
    assert result == evaluate_linear(run, LAYOUT, lr=0.5, epochs=3, batch_size=4)
    assert (result["lr"], result["epochs"], result["batch_size"]) == (0.5, 3, 4)
    assert cli.main(["ensemble", str(copy), *options]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result == evaluate_ensemble([run], [LAYOUT], lr=0.5, epochs=3, batch_size=4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["knn", "--lr", "1", "--batch-size", "8"], "takes no --lr, --batch-size; leave"),
        (["linear", "--lr", "0"], "lr is 0.0; it must be a number above 0"),
        (["linear", "--epochs", "0"], "epochs is 0; it must be 1 or more"),
    ],
)
def test_options_that_do_not_fit_are_refused(arguments, message, folders, capsys):
    protocol, *options = arguments
    assert cli.main(["evaluate", protocol, str(folders["joint"]), *options]) == 2
    assert message in capsys.readouterr().err


# Ensembles of data in another order


@pytest.fixture(scope="module")
def reordered(tmp_path_factory):
    """The tiny clips with named val clips, in two orders, and in one with other labels."""
    folder = tmp_path_factory.mktemp("orders")
    clips = tiny_clips([LAYOUT])
    names = [f"clip {i}" for i in range(TRAIN + VAL)]
    val = [6, 3, 0, 5, 2, 7, 4, 1]  # the labels are in the same order
    order = [*range(TRAIN), *(TRAIN + i for i in val)]
    shuffled = {
        "views": {LAYOUT: [clips["views"][LAYOUT][i] for i in order]},
        "labels": [clips["labels"][i] for i in order],
    }
    unlike = clips["labels"][:-1] + [1 - clips["labels"][-1]]
    there, here = {"names": names}, {"names": [names[i] for i in order]}
    prepare_arrays(folder / "a", **clips, **there, frames=8)
    prepare_arrays(folder / "b", **(clips | shuffled), **here, frames=8)
    prepare_arrays(folder / "labels", **(clips | {"labels": unlike}), **there, frames=8)
    prepare_arrays(folder / "names", **clips, frames=8)
    return folder


def run_on(folders, stream, data):
    run = open_run(folders[stream], random=True)
    run.recipe = type(run.recipe)(**(vars(run.recipe) | {"data": str(data)}))
    return run


def test_clips_in_another_order_are_added_up_by_name(folders, reordered, monkeypatch):
    """Training clips are in one order in both, so the classifiers are the same."""
    added = []
    add_up = ensemble.ensemble_logits
    monkeypatch.setattr(ensemble, "ensemble_logits", lambda x, w: added.append(x) or add_up(x, w))
    first = run_on(folders, "joint", reordered / "a")
    alike, shuffled = (
        evaluate_ensemble([first, run_on(folders, "motion", reordered / x)], lr=0.1, epochs=5)
        for x in ("a", "b")
    )
    for wanted, got in zip(*added, strict=True):
        torch.testing.assert_close(got, wanted)
        assert wanted.std(dim=0).min() > 1e-3  # or any order would do
    assert shuffled["per_class"].keys() == alike["per_class"].keys()


@pytest.mark.parametrize(
    ("other_data", "message"),
    [
        ("names", "clip 'clip 22' is in the data of .*joint, not in the data of .*motion"),
        ("labels", "val clip 'clip 29' has label 0 in the data of .*motion, 1 in that of .*joint"),
    ],
)
def test_other_clips_and_other_labels_are_refused(other_data, message, folders, reordered):
    runs = [
        run_on(folders, "joint", reordered / "a"),
        run_on(folders, "motion", reordered / other_data),
    ]
    with pytest.raises(InputError, match=message):
        evaluate_ensemble(runs, epochs=1)


def test_paths_may_begin_with_the_home_folder(copy, other, monkeypatch):
    monkeypatch.setenv("HOME", str(copy.parent))
    result = evaluate_knn(open_run("~/run"), LAYOUT, other)
    assert result["run"] == str(copy)
    monkeypatch.setenv("HOME", str(other.parent))
    assert evaluate_knn(open_run(copy), LAYOUT, "~/data") == result
