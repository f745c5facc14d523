"""What an ensemble leaves in the folder of its first run."""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import replace

import pytest

from msclr import cli
from msclr.errors import InputError
from msclr.evaluation import evaluate_ensemble, evaluate_linear, open_run, results
from msclr.evaluation.run import chosen_streams
from msclr.evaluation.run_report import accuracies, confusion, read_results
from msclr.training import pretrain
from tests.tiny import LAYOUTS, UNSEEN, prepare_tiny, tiny_recipe, tree

BOTH = "+".join(LAYOUTS)
QUICK = {"epochs": 2}


@pytest.fixture
def runs(folders, tmp_path):
    """Folders of runs without results."""
    made = {stream: tmp_path / stream for stream in folders}
    for stream, folder in made.items():
        folder.mkdir()
        os.link(folders[stream] / "checkpoint.pt", folder / "checkpoint.pt")
    return made


def ensembles(folder):
    return sorted(path.name for path in (folder / "evaluation").glob("ensemble-*"))


def again(result, capsys):
    """What the command of a result prints as JSON."""
    program, *words = shlex.split(result["command"])
    assert program == "msclr" and cli.main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_it_is_kept_as_other_results_are(runs, capsys):
    run = open_run(runs["joint"])
    result = evaluate_ensemble([run], LAYOUTS, **QUICK)
    (name,) = ensembles(runs["joint"])
    assert name == f"ensemble-{BOTH}-joint-pretrained-epochs2.json"
    path = runs["joint"] / "evaluation" / name
    assert result["files"] == {"json": str(path)}
    assert json.loads(path.read_text(encoding="utf-8")) == result
    assert sum(map(sum, result["confusion"])) == 8
    assert again(result, capsys) == result
    before = tree(path.parent)
    for other in ({"lr": 0.5}, {"epochs": 3}):
        evaluate_ensemble([run], LAYOUTS, **QUICK | other)
    evaluate_ensemble([run], LAYOUTS[:1], **QUICK)
    evaluate_ensemble([open_run(runs["joint"], random=True)], LAYOUTS, **QUICK)
    assert len(ensembles(runs["joint"])) == 5
    assert before.items() <= tree(path.parent).items()


def test_a_route_is_part_of_the_name_where_it_matters(runs, capsys):
    run = open_run(runs["joint"])
    evaluate_ensemble([run], LAYOUTS, route="attach", **QUICK)
    result = evaluate_ensemble([run], [LAYOUTS[0], UNSEEN], route="attach", **QUICK)
    assert ensembles(runs["joint"]) == [
        f"ensemble-{BOTH}-joint-pretrained-epochs2.json",
        f"ensemble-{LAYOUTS[0]}+{UNSEEN}-joint-pretrained-epochs2-route_attach.json",
    ]
    assert again(result, capsys) == result


def test_runs_and_data_tell_ensembles_of_several_runs_apart(runs, tmp_path, capsys):
    joint, motion, bone = (open_run(folder) for folder in runs.values())
    other = prepare_tiny(tmp_path / "other", LAYOUTS)
    made = [
        evaluate_ensemble([joint, motion], LAYOUTS, **QUICK),
        evaluate_ensemble([joint, bone], LAYOUTS, **QUICK),
        evaluate_ensemble([joint, motion], LAYOUTS, other, **QUICK),
        evaluate_ensemble([joint, motion, bone], LAYOUTS, **QUICK),
    ]
    motion.recipe = replace(motion.recipe, data=str(other))  # of the second run alone
    made.append(evaluate_ensemble([joint, motion], LAYOUTS, **QUICK))
    names = ensembles(runs["joint"])
    assert len(names) == 5 and ensembles(runs["motion"]) == []
    start = f"ensemble-{BOTH}-joint+motion-pretrained-"
    assert sum(name.startswith(f"{start}epochs2-runs2_") for name in names) == 2
    assert sum(name.startswith(f"{start}other-") for name in names) == 1
    assert made[3]["runs"] == [str(folder) for folder in runs.values()]
    for result in made[1:3]:
        assert again(result, capsys) == result
    assert ensembles(runs["joint"]) == names


def test_streams_of_one_run_are_in_the_name_and_the_command(data, tmp_path, capsys):
    folder = pretrain(tiny_recipe(data, tmp_path / "run", method="crossclr", steps=1))
    for streams, flag in ((None, ""), ("bone+joint", " --stream bone+joint")):
        result = evaluate_ensemble(chosen_streams(open_run(folder), streams), LAYOUTS[:1], **QUICK)
        of = streams or "joint+motion+bone"
        name = f"ensemble-{LAYOUTS[0]}-{of}-pretrained-epochs2.json"
        assert result["files"]["json"] == str(folder / "evaluation" / name)
        layout = f"--layout {LAYOUTS[0]}"
        assert result["command"] == f"msclr ensemble {folder} {layout}{flag} --epochs 2"
        assert again(result, capsys) == result


def test_members_that_no_command_can_name_have_none(runs):
    mixed = [open_run(runs["joint"]), open_run(runs["motion"], random=True)]
    result = evaluate_ensemble(mixed, LAYOUTS[:1], **QUICK)
    assert "command" not in result and result["encoder"] == "pretrained+random"


def test_a_member_given_twice_is_refused(runs, capsys):
    folder = str(runs["joint"])
    assert cli.main(["ensemble", folder, f"{folder}/."]) == 2
    assert "the joint stream of" in capsys.readouterr().err
    with pytest.raises(InputError, match="twice; give it once"):
        evaluate_ensemble([open_run(folder)] * 2)
    assert not (runs["joint"] / "evaluation").exists()


@pytest.mark.parametrize("name", ["nonsense", "coco_19"])
def test_a_layout_that_is_not_there_is_found_before_any_fit(name, runs, capsys):
    assert cli.main(["ensemble", str(runs["joint"]), "--layout", f"{LAYOUTS[0]},{name}"]) == 2
    assert name in capsys.readouterr().err
    assert not (runs["joint"] / "evaluation").exists()


def test_a_report_shows_it_with_its_command(runs):
    run = open_run(runs["joint"])
    evaluate_linear(run, LAYOUTS[0], **QUICK)
    result = evaluate_ensemble([run, open_run(runs["bone"])], LAYOUTS, **QUICK)
    found = read_results(run.folder)
    table, commands, *_ = accuracies(found, run)
    (row,) = (row for row in table if row[0].startswith("ensemble-"))
    assert row[1:4] == [result["top1"], result["top5"], None]
    assert [row[0], result["command"]] in commands
    (kept,) = (each for each in found if each["protocol"] == "ensemble")
    assert confusion([kept], run.folder / "report")


def test_a_name_of_many_layouts_stays_short(runs):
    many = [f"layout_{i:02d}" for i in range(20)]
    short = {results._short("+".join(many[i:])) for i in range(3)}
    assert len(short) == 3 and all(len(name) < 100 for name in short)
    assert results._short(BOTH) == BOTH
