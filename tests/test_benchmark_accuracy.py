"""The harness of accuracies: resumable, honest about people, right in its statistics."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from benchmarks import __main__ as benchmarks
from benchmarks import tables
from benchmarks.accuracy import collect, command, one, people, plan, workers
from benchmarks.accuracy import tables as rows
from msclr import layouts
from msclr.data import open_store, prepare_arrays
from msclr.errors import InputError
from msclr.evaluation import evaluate_ensemble, evaluate_linear, evaluate_transfer, open_run
from msclr.training.pretrain import Pretraining
from tests.tiny import FRAMES, LAYOUTS, TRAIN, VAL, prepare_other, tiny_clips, tiny_values

WHOSE = [f"s0{1 + clip % 3}" for clip in range(TRAIN)] + ["s04"] * VAL
NAMES = [f"{whose}_c{clip}" for clip, whose in enumerate(WHOSE)]
ONE, OTHER = LAYOUTS


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Clips of three people to train on and of a fourth to be asked."""
    folder = tmp_path_factory.mktemp("accuracy") / "data"
    prepare_arrays(folder, **tiny_clips(), names=NAMES, frames=FRAMES)
    return folder


@pytest.fixture
def planned(tmp_path):
    """A plan's file: one convention, both, and both with labels."""
    keys = ("data", "out", "layouts")
    recipe = {k: v for k, v in tiny_values("d", "o", steps=2).items() if k not in keys}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    values = {
        "recipe": str(tmp_path / "recipe.yaml"),
        "frame": "camera",
        "subject": r"s(\d+)_",
        "hold_out": ["2"],
        "runs": {
            "one": {"changes": [f"layouts={ONE}"]},
            "both": {},
            "labels": {"supervised": True},
        },
        "candidates": {"slow": ["lr=1e-6"]},
        "mirrored": True,
        "compare": [[f"both: linear {ONE}", f"one: linear {ONE}"]],
    }
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


class Done:
    returncode = 0

    def poll(self):
        return self.returncode


@pytest.fixture
def started(monkeypatch):
    """Jobs are not run, their figures are made up; returns the jobs that would have been."""
    jobs = []

    def start(job, out):
        jobs.append(job)
        figures = {f"linear {ONE}": 60.0 + job.recipe.seed + 10 * (job.run == "both")}
        about = {"key": job.key, "run": job.run, "candidate": job.candidate, "figures": figures}
        about |= {"seed": job.recipe.seed, "random": {}, "steps": 2, "seconds": 1, "commit": "c"}
        workers.result_file(out, job).write_text(json.dumps(about))
        return Done()

    monkeypatch.setattr(workers, "start", start)
    monkeypatch.setattr(workers, "_WAIT", 0)
    return jobs


def call(planned, data, out, *options) -> int:
    return benchmarks.main(
        ["accuracy", str(planned), "--data", str(data), "--out", str(out), *options]
    )


def test_final_runs_what_is_not_there_yet_and_gives_tables(planned, data, tmp_path, started):
    out, final = tmp_path / "out", ("--final", "--seeds", "2")
    assert call(planned, data, out, *final) == 0
    assert [job.run for job in started] == ["one", "both", "labels"] * 2
    result = json.loads((out / "accuracy-tiny.json").read_text())
    assert result["people"] == {"train": ["1", "2", "3"], "val": ["4"]}
    assert [run["seeds"] for run in result["runs"].values()] == [[0, 1]] * 3
    assert [len(line) for line in rows.accuracies(result)] == [4] * 4
    assert rows.accuracies(result)[:2] == [
        ["figure", "one (2 seeds)", "both (2 seeds)", "labels (2 seeds)"],
        [f"linear {ONE}", "60.5 ± 0.7", "70.5 ± 0.7", "60.5 ± 0.7"],
    ]
    (_, line) = rows.differences(result)
    assert line[2:] == ["2", "+10.0", "+10.0 to +10.0"]

    workers.result_file(out, started[0]).unlink()
    assert call(planned, data, out, *final) == 0
    assert started[6:] == started[:1]  # the rest was there
    assert call(planned, data, out, "--final", "--seeds", "3") == 0  # more seeds of the same
    assert call(planned, data, out, "--final", "--seeds", "1") == 0
    assert len(started) == 10


def test_test_people_are_asked_by_one_plan_only(planned, data, tmp_path, started, capsys):
    assert call(planned, data, tmp_path / "out", "--final", "--seeds", "1") == 0
    assert call(planned, data, tmp_path / "out", "--final", "--seeds", "1", "--set", "lr=1") == 2
    assert "asked by another plan already" in capsys.readouterr().err
    assert len(started) == 3


def test_selection_never_sees_a_test_clip(planned, data, tmp_path, started):
    out = tmp_path / "out"
    assert call(planned, data, out, "--select", "--seeds", "1") == 0
    assert {job.recipe.data for job in started} == {str(out / "held_out")}
    assert len(started) == 4  # two candidates of "one" and "both"
    store, source = open_store(out / "held_out"), open_store(data)
    splits = {name: store.split(name) for name in ("train", "val")}
    whose = {k: set(people.people_of(v.names, r"s(\d+)_")) for k, v in splits.items()}
    assert whose == {"train": {"1", "3"}, "val": {"2"}}
    assert not set(source.split("val").names) & {x for v in splits.values() for x in v.names}
    kept, of = splits["val"], source.split("train")
    rows = [of.names.index(name) for name in kept.names]
    assert np.array_equal(kept.labels, of.labels[rows])
    assert all(np.array_equal(kept.views[x], of.views[x][rows]) for x in LAYOUTS)


def test_final_takes_the_best_candidate(planned, data, tmp_path, started):
    out = tmp_path / "out"
    assert call(planned, data, out, "--select", "--seeds", "1") == 0
    for job in started:
        file = workers.result_file(out, job)
        result = json.loads(file.read_text())
        result["figures"][f"linear {ONE}"] += 3 * (job.candidate == "slow")
        file.write_text(json.dumps(result))
    assert call(planned, data, out, "--select", "--seeds", "1") == 0
    selected = json.loads((out / "selected.json").read_text())
    assert selected["means"] == {"recipe": 65.0, "slow": 68.0} and len(started) == 4
    assert call(planned, data, out, "--final", "--seeds", "1") == 0
    assert {job.recipe.lr for job in started[4:]} == {1e-6}
    assert json.loads((out / "accuracy-tiny.json").read_text())["candidate"] == "slow"


def test_candidates_are_tried_with_the_runs_that_the_plan_names(planned, data, tmp_path, started):
    values = yaml.safe_load(planned.read_text())
    planned.write_text(yaml.safe_dump(values | {"select": ["both"]}, sort_keys=False))
    assert call(planned, data, tmp_path / "out", "--select", "--seeds", "1") == 0
    assert {(job.run, job.candidate) for job in started} == {("both", "recipe"), ("both", "slow")}
    planned.write_text(yaml.safe_dump(values | {"select": ["neither"]}))
    with pytest.raises(InputError, match="select has .'neither'.; runs are both, labels, one"):
        plan.load_plan(str(planned))


def test_held_out_clips_keep_the_constants_of_their_frame(tmp_path):
    prepare_arrays(
        tmp_path / "data", **tiny_clips() | {"frame": "body"}, names=NAMES, frames=FRAMES
    )
    source = open_store(tmp_path / "data").split("train")
    store = people.hold_out(open_store(tmp_path / "data"), tmp_path / "out", r"s(\d+)_", ["3"])
    assert (store.frame, store.size_by) == ("body", "torso")
    kept = store.split("train")
    of = source.names.index(kept.names[-1])
    assert np.array_equal(kept.constants[ONE][-1], source.constants[ONE][of])
    with pytest.raises(InputError, match="other data or people"):
        people.hold_out(open_store(tmp_path / "data"), tmp_path / "out", r"s(\d+)_", ["1"])


@pytest.mark.parametrize(
    ("pattern", "who", "text"),
    [("x(.)", ["2"], "no person"), (r"s(\d+)_", ["4"], "4 cannot be held out"),
     (r"s(\d+)_", ["1", "2", "3"], "nobody to train on")],
)  # fmt: skip
def test_people_who_cannot_be_held_out(pattern, who, text, data, tmp_path):
    with pytest.raises(InputError, match=text):
        people.hold_out(open_store(data), tmp_path / "out", pattern, who)
    assert not (tmp_path / "out").exists()


def test_an_interrupted_run_goes_on_from_its_checkpoint(planned, data, tmp_path, monkeypatch):
    store, about = open_store(data), plan.load_plan(str(planned))
    about.changes.append("checkpoint_every=1")
    (job, *_) = plan.jobs_of(about, [store], tmp_path, 1, {"recipe": []})
    whole = one.run_one(job)
    (job, *_) = plan.jobs_of(about, [store], tmp_path / "again", 1, {"recipe": []})
    steps, step = [], Pretraining.step

    def stopped(self, number):
        if number == 1 and not steps.count(1):
            steps.append(1)
            raise KeyboardInterrupt
        steps.append(number)
        step(self, number)

    monkeypatch.setattr(Pretraining, "step", stopped)
    with pytest.raises(KeyboardInterrupt):
        one.run_one(job)
    assert one.run_one(job)["figures"] == whole["figures"]
    assert steps == [0, 1, 1]  # the second time it began after the first step


def test_figures_are_those_of_the_commands(planned, data, tmp_path):
    about = plan.load_plan(str(planned))
    job = plan.jobs_of(about, [open_store(data)], tmp_path, 1, {"recipe": []})[0]
    figures, run = one.run_one(job)["figures"], open_run(job.recipe.out)
    for way in ("derive", "attach"):
        assert figures[f"linear {OTHER} {way}"] == evaluate_linear(run, OTHER, route=way)["top1"]
    assert figures[f"{ONE} to {OTHER}"] == evaluate_transfer(run, ONE, OTHER)["top1"]
    assert figures["ensemble"] == evaluate_ensemble([run])["top1"]
    by = {"solver": "lbfgs"}
    assert figures[f"lbfgs {ONE}"] == evaluate_linear(run, ONE, **by)["top1"]
    assert figures[f"lbfgs {ONE} to {OTHER}"] == evaluate_transfer(run, ONE, OTHER, **by)["top1"]
    assert figures["lbfgs ensemble"] == evaluate_ensemble([run], **by)["top1"]
    mirrored = evaluate_linear(run, OTHER, mirror=True, route="derive", **by)["top1"]
    assert figures[f"mirrored lbfgs {OTHER} derive"] == mirrored
    assert figures["mirrored lbfgs ensemble"] == evaluate_ensemble([run], mirror=True, **by)["top1"]
    plain = one.run_one(replace(job, mirrored=False))["figures"]
    assert plain == {key: top1 for key, top1 in figures.items() if "mirrored" not in key}


def test_an_encoder_per_stream_has_the_figures_of_their_ensemble(planned, data, tmp_path):
    values = yaml.safe_load(planned.read_text())
    values["runs"]["both"] = {"streams": ["joint", "bone"]}
    planned.write_text(yaml.safe_dump(values, sort_keys=False))
    about = plan.load_plan(str(planned))
    job = plan.jobs_of(about, [open_store(data)], tmp_path, 1, {"recipe": []})[1]
    assert plan.Job.from_dict(json.loads(json.dumps(job.to_dict()))) == job
    figures = one.run_one(job)["figures"]
    runs = [open_run(f"{job.recipe.out}/{stream}") for stream in job.streams]
    assert [run.recipe.stream for run in runs] == ["joint", "bone"]
    assert figures == {
        "ensemble": evaluate_ensemble(runs)["top1"],
        "lbfgs ensemble": evaluate_ensemble(runs, solver="lbfgs")["top1"],
        "mirrored lbfgs ensemble": evaluate_ensemble(runs, solver="lbfgs", mirror=True)["top1"],
    }


def test_the_ceiling_has_figures_of_each_layout(planned, data, tmp_path):
    about = plan.load_plan(str(planned))
    job = plan.jobs_of(about, [open_store(data)], tmp_path, 1, {"recipe": []})[2]
    figures = one.run_one(job)["figures"]
    assert set(figures) == {f"linear {ONE}", f"linear {OTHER}", "ensemble"}
    assert all(0 <= top1 <= 100 for top1 in figures.values())


def test_a_failed_run_is_named_and_the_others_go_on(planned, data, tmp_path, monkeypatch, capsys):
    class Failed(Done):
        returncode = 1

    monkeypatch.setattr(workers, "start", lambda job, out: Failed())
    monkeypatch.setattr(workers, "_WAIT", 0)
    assert call(planned, data, tmp_path / "out", "--select", "--seeds", "1") == 1
    printed, errors = capsys.readouterr()
    assert printed.count("failed after") == 4 and errors.count("logs/one-") == 2


def test_a_job_in_another_process(planned, data, tmp_path):
    about = plan.load_plan(str(planned))
    jobs = plan.jobs_of(about, [open_store(data)], tmp_path, 1, {"recipe": []})[:1]
    lines = []
    assert workers.run_all(jobs, tmp_path, 2, lines.append) == []
    result = json.loads(workers.result_file(tmp_path, jobs[0]).read_text())
    assert result["steps"] == 2 and f"linear {ONE}" in result["figures"]
    assert lines[0] == "1 runs, 0 of them done before" and "done after" in lines[1]


def test_the_interval_of_known_cases():
    assert collect.bootstrap([2.0] * 5) == [2.0, 2.0]
    assert collect.bootstrap([0.0, 1.0]) == [0.0, 1.0]  # both ends have a chance of 1/4
    assert collect.bootstrap([0.0, 0.0, 3.0]) == [0.0, 3.0]  # all three the last: 3.7 %
    # Of 10 numbers, one of them 10 and the others 0, the mean is the count of tens: binomial
    # (10, 0.1), of which 0 has 35 % and more than 3 has 1.3 %.
    assert collect.bootstrap([10.0] + [0.0] * 9) == [0.0, 3.0]
    assert collect.bootstrap([1.0, 2.0, 4.0]) == collect.bootstrap([1.0, 2.0, 4.0])


def test_means_spreads_and_pairs_by_seed():
    results = [
        {"run": run, "seed": seed, "figures": {"linear a": top1}, "random": {}}
        for run, values in (("x", {0: 60.0, 1: 70.0, 2: 65.0}), ("y", {1: 66.0, 0: 58.0}))
        for seed, top1 in values.items()
    ]
    found = collect.gather(results)
    assert collect.summary(found["x"]["linear a"]) == {
        "mean": 65.0, "std": 5.0, "values": [60.0, 70.0, 65.0]
    }  # fmt: skip
    about = plan.Plan("p", "r", {}, "s", [], compare=[["x: linear a", "y: linear a"]])
    (row,) = collect.differences(about, found)
    assert (row["seeds"], row["values"], row["mean"]) == ([0, 1], [2.0, 4.0], 3.0)
    with pytest.raises(InputError, match="has no figure 'linear b'; it has linear a"):
        collect.differences(plan.Plan("p", "r", {}, "s", [], compare=[["x: linear b"] * 2]), found)


@pytest.mark.parametrize(
    ("change", "text"),
    [({"run": {}}, "keys are"), ({"runs": {"a": {"change": []}}}, "run a has"),
     ({"frame": "body"}, "wants body; prepare it again with --frame body")],
)  # fmt: skip
def test_bad_plans(change, text, planned, data, tmp_path, capsys):
    planned.write_text(yaml.safe_dump(yaml.safe_load(planned.read_text()) | change))
    assert call(planned, data, tmp_path / "out", "--final") == 2
    assert text in capsys.readouterr().err


def test_shipped_plans_and_commands_in_pages_are_understood():
    pages = "\n".join(page.read_text() for page in tables.PAGES)
    lines = re.findall(r"^ {4}python -m benchmarks accuracy (.*)", pages, re.MULTILINE)
    assert lines
    for line in lines:
        args = command.parser_of().parse_args(shlex.split(line, comments=True))
        assert plan.load_plan(args.plan).runs


@pytest.fixture
def two_sets(planned, data, tmp_path):
    """A plan of two data sets, and their folders."""
    other = prepare_other(tmp_path / "other", names=[f"s0{1 + i % 2}_c{i}" for i in range(14)])
    values = yaml.safe_load(planned.read_text()) | {
        "data": ["first", "second"],
        "subject": {"first": r"s(\d+)_", "second": r"s(\d+)_"},
        "runs": {"second": {"data": ["second"]}, "together": {"changes": ["draw=even"]}},
        "compare": [[f"together: second linear {OTHER}", f"second: second linear {OTHER}"]],
        "candidates": {},
    }
    planned.write_text(yaml.safe_dump(values, sort_keys=False))
    return planned, [str(data), str(other)]


def test_a_plan_of_two_data_sets_asks_each_of_them(two_sets, tmp_path):
    planned, folders = two_sets
    about, stores = plan.load_plan(str(planned)), [open_store(folder) for folder in folders]
    alone, together = plan.jobs_of(about, stores, tmp_path, 1, {"recipe": []})
    assert (alone.recipe.data, together.recipe.data) == (folders[1], folders)
    assert alone.key.rpartition("-")[2] != together.key.rpartition("-")[2]
    figures = one.run_one(together)["figures"]
    run = open_run(together.recipe.out)
    for name, folder in zip(("first", "second"), folders, strict=True):
        top1 = evaluate_linear(run, OTHER, folder)["top1"]
        assert figures[f"{name} linear {OTHER}"] == top1
    assert figures["first ensemble"] == evaluate_ensemble([run], data=folders[0])["top1"]
    assert {f"first {ONE} to {OTHER}", "second linear smpl_24"} <= set(figures)
    assert not {"second linear h36m_17", "first linear smpl_24"} & set(figures)


def test_a_plan_of_two_data_sets_in_its_result(two_sets, tmp_path, started, capsys):
    planned, folders = two_sets
    given = ["accuracy", str(planned), "--out", str(tmp_path / "out"), "--seeds", "1"]
    assert benchmarks.main([*given, "--data", *folders, "--final"]) == 2  # made-up figures
    assert "has no figure 'second linear kinectv1_20'" in capsys.readouterr().err
    assert [job.data for job in started] == [
        {"second": folders[1]}, dict(zip(("first", "second"), folders, strict=True))
    ]  # fmt: skip
    assert benchmarks.main([*given, "--data", folders[0], "--final"]) == 2
    assert "takes the data ['first', 'second'], here are 1" in capsys.readouterr().err
    assert benchmarks.main([*given, "--data", *folders, "--select"]) == 2
    assert "--select takes one" in capsys.readouterr().err
    values = yaml.safe_load(planned.read_text())
    planned.write_text(yaml.safe_dump(values | {"runs": {"a": {"data": ["third"]}}}))
    with pytest.raises(InputError, match="run a has data .'third'.; it is of"):
        plan.load_plan(str(planned))
    planned.write_text(yaml.safe_dump(values | {"runs": {"a": {"supervised": True}}}))
    with pytest.raises(InputError, match="supervised run a takes one data set"):
        plan.load_plan(str(planned))


def test_what_is_set_for_all_runs_replaces_what_a_run_says(planned, data, tmp_path, started):
    given = ("--final", "--seeds", "1", "--set", f"layouts={OTHER}", "steps=3")
    assert call(planned, data, tmp_path / "out", *given) == 0
    assert {tuple(job.recipe.layouts) for job in started} == {(OTHER,)}
    assert {job.recipe.steps for job in started} == {3}


@pytest.mark.parametrize("path", sorted(plan.FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_run_of_a_shipped_plan_is_a_recipe_and_compared_by_name(path, tmp_path):
    about = plan.load_plan(str(path))
    stores = [open_store_of(name, tmp_path) for name in about.data]
    jobs = plan.jobs_of(about, stores, tmp_path, 1, {"recipe": []} | about.candidates)
    assert {job.run for job in jobs} == set(about.runs)
    compared = {name.partition(": ")[0] for pair in about.compare for name in pair}
    assert compared <= set(about.runs)
    known = set(layouts.names())
    for job in jobs:
        assert {*(job.recipe.layouts or []), *(job.recipe.derive or [])} <= known


def open_store_of(name: str, tmp_path):
    """What jobs_of needs of a data set."""
    return SimpleNamespace(path=tmp_path / name, meta={"checksums": {}})
