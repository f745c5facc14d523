"""Labels of one convention, or data set, that serve for another."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch

from msclr.cli import main
from msclr.data import prepare_arrays
from msclr.errors import InputError
from msclr.evaluation import evaluate_linear, evaluate_transfer, fit_linear, transfer
from msclr.evaluation.splits import features_of
from msclr.evaluation.transfer import _of_classes, _shared
from tests.tiny import FRAMES, LAYOUTS, UNSEEN, tiny_clips

A, B = LAYOUTS


def test_trained_on_one_layout_and_tested_on_another(run, folders, monkeypatch):
    one, other = features_of(run, A), features_of(run, B)
    taken = []
    monkeypatch.setattr(
        transfer, "fit_linear", lambda *x, **options: taken.append(x) or fit_linear(*x, **options)
    )
    got = evaluate_transfer(run, A, B, epochs=5)
    ((x, y, test_x, test_y, count),) = taken
    assert torch.equal(x, one.train) and torch.equal(y, one.train_labels) and count == 2
    assert torch.equal(test_x, other.val) and torch.equal(test_y, other.val_labels)
    wanted = fit_linear(one.train, one.train_labels, other.val, other.val_labels, 2, epochs=5)
    assert got["top1"] == wanted.top1 and got["best_top1"] == wanted.best_top1
    assert (got["train_layout"], got["test_layout"]) == (A, B)
    assert (got["protocol"], got["classes"]) == ("transfer", ["stand", "hug"])
    kept = folders["joint"] / "evaluation" / f"transfer-{A}-to-{B}-joint-pretrained-epochs5.json"
    assert json.loads(kept.read_text())["top1"] == got["top1"]


def test_a_layout_to_itself_is_the_linear_protocol(run):
    got, wanted = evaluate_transfer(run, A, A, epochs=5), evaluate_linear(run, A, epochs=5)
    assert {k: got[k] for k in ("top1", "top5", "best_top1", "per_class")} == {
        k: wanted[k] for k in ("top1", "top5", "best_top1", "per_class")
    }


def test_a_layout_that_the_encoder_does_not_know_is_tested_on(run):
    got = evaluate_transfer(run, A, UNSEEN, epochs=2)
    assert got["test_layout"] == UNSEEN and not got["seen_in_pretraining"]


def test_classes_of_another_data_set_are_matched_by_name(run, tmp_path):
    clips = tiny_clips((B,))
    clips["labels"] = [2 - label for label in clips["labels"]]  # stand 2, hug 1
    clips["labels"][-1] = 0
    clips["classes"] = ["jump", "hug", "stand"]
    prepare_arrays(tmp_path / "other", **clips, frames=FRAMES)
    got = evaluate_transfer(run, A, B, tmp_path / "other", epochs=5)
    assert got["classes"] == ["stand", "hug"] and list(got["per_class"]) == ["stand", "hug"]
    assert any("2 classes are in both" in n and "1 that would be tested" in n for n in got["notes"])
    one, other = features_of(run, A), features_of(run, B)
    wanted = fit_linear(
        one.train, one.train_labels, other.val[:-1], other.val_labels[:-1], 2, epochs=5
    )
    assert got["top1"] == wanted.top1


def test_rows_of_classes_that_are_not_shared_go():
    x, y, names = _of_classes(
        torch.arange(8.0).view(4, 2), torch.tensor([0, 1, 2, 1]), list("abc"), ["c", "b"], "pqrs"
    )
    assert names == ["q", "r", "s"]
    assert x.tolist() == [[2, 3], [4, 5], [6, 7]] and y.tolist() == [1, 0, 1]


def test_no_class_in_common_is_refused():
    one, other = (
        SimpleNamespace(classes=names, store=SimpleNamespace(path=names[0]))
        for names in ("ab", "cd")
    )
    with pytest.raises(InputError, match="a and c have no class name in common .*'a' there"):
        _shared(one, other)


def test_the_command(run, folders, capsys):
    command = ["evaluate", "transfer", str(folders["joint"]), "--epochs", "2"]
    assert main([*command, "--train-layout", A, "--test-layout", B, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["layout"] == f"{A}-to-{B}" and 0 <= result["top1"] <= 100
    assert main([*command, "--train-layout", A, "--test-layout", B]) == 0
    assert capsys.readouterr().out.startswith(f"transfer {A}-to-{B} (joint, pretrained): top-1 ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["transfer", "--train-layout", A], "takes --train-layout A and --test-layout B"),
        (["transfer", "--train-layout", A, "--test-layout", B, "--layout", A], "no --layout"),
        (["linear", "--train-layout", A], "linear takes no --train-layout"),
    ],
)
def test_options_that_do_not_go_together(folders, capsys, arguments, message):
    assert main(["evaluate", arguments[0], str(folders["joint"]), *arguments[1:]]) != 0
    assert message in capsys.readouterr().err
