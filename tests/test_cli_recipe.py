"""msclr recipe, and the keys in the help of msclr pretrain."""

from __future__ import annotations

from dataclasses import fields

import pytest

from msclr.cli import main
from msclr.cli._output import TrainingBar
from msclr.config import Recipe, recipe_names
from msclr.training.log import KnnRecord, StepRecord

KEYS = [f.name for f in fields(Recipe)]


def printed(capsys, *arguments) -> str:
    assert main(arguments) == 0
    return capsys.readouterr().out


def entries(text: str) -> dict[str, str]:
    """{key: what is said of it} of indented blocks."""
    found, key = {}, ""
    for line in text.splitlines():
        if not line.startswith("    "):
            key = line.partition(":")[0]
        found[key] = f"{found.get(key, '')} {line.strip()}"
    return found


def test_every_key_is_printed_with_value_meaning_default_and_kind(capsys):
    found = entries(printed(capsys, "recipe", "ntu60_xsub", "lr=0.05", "augment=noise=off"))
    assert list(found) == KEYS
    for f in fields(Recipe):
        assert f.metadata["meaning"].split()[0] in found[f.name]
    assert found["lr"] == " lr: 0.05 learning rate at its highest; number; default 0.1"
    assert found["layouts"].startswith(" layouts: kinectv2_25,smplx_42 ")
    assert "noise=0,blur=2" in found["augment"] and "default shear=0.5," in found["augment"]
    assert found["nesterov"].endswith("; true or false; default false")
    assert found["steps"].endswith("; whole number or null; default null")
    assert found["optimizer"].endswith("; sgd | adamw; default sgd")
    assert found["milestones"].endswith("; whole number, or several by commas; default 250")
    assert "default" not in found["data"]


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_is_printed(name, capsys):
    assert list(entries(printed(capsys, "recipe", name))) == KEYS


def test_what_is_printed_can_be_given_again(capsys):
    text = printed(capsys, "recipe", "ui_prmd_crossclr")
    given = [
        line.replace(": ", "=", 1) for line in text.splitlines() if not line.startswith("    ")
    ]
    given = [text for text in given if not text.endswith("=") and "stream=" not in text]
    own = ("mining_epoch", "negatives")  # of other methods
    given = [text for text in given if not text.startswith(own)]
    assert printed(capsys, "recipe", "ui_prmd_crossclr", *given) == text


def test_without_a_name_the_shipped_recipes_are_printed(capsys):
    assert printed(capsys, "recipe").split() == recipe_names()


def test_an_unknown_recipe_is_an_error_of_one_line(capsys):
    assert main(["recipe", "ntu60_xsup"]) == 2
    assert "did you mean 'ntu60_xsub'?" in capsys.readouterr().err


def test_the_help_of_pretrain_has_every_key(capsys):
    with pytest.raises(SystemExit):
        main(["pretrain", "--help"])
    keys = capsys.readouterr().out.partition("keys of a recipe:\n")[2]
    assert [line[2:] for line in keys.splitlines() if not line.startswith("    ") and line] == KEYS


def test_an_error_of_usage_has_no_keys(capsys):
    with pytest.raises(SystemExit):
        main(["pretrain"])
    assert "keys of a recipe" not in capsys.readouterr().err


def test_the_bar_shows_the_accuracy(capsys):
    with TrainingBar() as bar:
        bar.on_knn([KnnRecord(1, "joint", x, a, 0.5) for x, a in (("a", 40.0), ("b", 60.0))])
        bar.on_step(2, 2, [StepRecord(2, 1, 1.0, 0.5, 0.1, 10.0)])
        assert capsys.readouterr().err.endswith("contrast 50 %, 10 clips/s, 1-NN 50 %\n")
        found = (("a", 40.0), ("a", 60.0), ("b", 25.0))
        bar.on_knn([KnnRecord(3, "joint", "x", a, 0.5, data) for data, a in found])
        bar.on_step(4, 4, [StepRecord(4, 1, 1.0, 0.5, 0.1, 10.0)])
    assert capsys.readouterr().err.endswith(" 10 clips/s, 1-NN 50 % a, 25 % b\n")
