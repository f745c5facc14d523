"""Runs that are killed and taken up again end as if nothing had happened, to the last bit."""

from __future__ import annotations

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from msclr import cli
from msclr.data import dataset
from msclr.errors import InputError
from msclr.training import checkpoint, pretrain
from msclr.training.sampler import Sampler
from tests.tiny import STEPS_PER_EPOCH, column, prepare_tiny, tiny_recipe, tree, write_recipe
from tests.training.runs import assert_same_run, flat


class Killed(BaseException):
    """Like SIGKILL, no handler of errors sees it coming."""


def kill_after(step):
    def on_step(done, steps, records):
        if done == step:
            raise Killed

    return on_step


def test_the_whole_run_exercises_what_a_resume_could_lose(whole):
    state = checkpoint.load_checkpoint(whole / "checkpoint.pt")
    assert state["recipe"]["dropout"] == 0.5 and state["recipe"]["mining_epoch"] == 1
    assert state["step"] == 12 > 2 * STEPS_PER_EPOCH
    assert len(set(column(whole))) == 12
    assert any("momentum_buffer" in key for key in flat(state["optimizer"]))
    assert state["method"]["queue._extra_state"]["pointer"] == 12 * 8 % 13


@pytest.mark.parametrize("step", [1, 4, 6, 11, 12])  # before, on and after a checkpoint; the end
def test_a_run_stopped_after_any_step_resumes_bit_for_bit(step, data, whole, tmp_path):
    recipe = tiny_recipe(data, tmp_path / "run")
    with pytest.raises(Killed):
        pretrain(recipe, on_step=kill_after(step))
    assert_same_run(pretrain(recipe, resume=True), whole)


@pytest.mark.parametrize(
    "kind",
    [
        {"method": "crossclr", "cross_epoch": 1},
        {"method": "multiview", "queue_size": 13, "nesterov": True},
    ],
    ids=lambda kind: kind["method"],
)
def test_runs_of_other_methods_resume_bit_for_bit(kind, data, tmp_path):
    whole = pretrain(tiny_recipe(data, tmp_path / "whole", steps=8, **kind))
    recipe = tiny_recipe(data, tmp_path / "run", steps=8, **kind)
    with pytest.raises(Killed):
        pretrain(recipe, on_step=kill_after(6))
    assert_same_run(pretrain(recipe, resume=True), whole)
    queues = {
        k: v
        for k, v in flat(checkpoint.load_checkpoint(whole / "checkpoint.pt")["method"]).items()
        if k.endswith("/pointer")
    }
    assert len(queues) == (3 if kind["method"] == "crossclr" else 1)
    assert set(queues.values()) == {8 * 8 * (1 if len(queues) == 3 else 2) % 13}


def test_a_kill_while_a_checkpoint_is_renamed_loses_nothing(data, whole, tmp_path, monkeypatch):
    recipe = tiny_recipe(data, tmp_path / "run")
    replace, calls = os.replace, []

    def kill_at_the_second(source, target):
        calls.append(Path(target).name)
        if calls.count("checkpoint.pt") == 2:
            raise Killed
        replace(source, target)

    monkeypatch.setattr(checkpoint.os, "replace", kill_at_the_second)
    with pytest.raises(Killed):
        pretrain(recipe)
    monkeypatch.undo()
    saved = checkpoint.load_checkpoint(tmp_path / "run" / "checkpoint.pt")
    assert saved["step"] == 4  # that of step 8 has no name yet
    assert_same_run(pretrain(recipe, resume=True), whole)
    assert not list((tmp_path / "run").glob(".*"))


def test_a_line_of_the_log_cut_short_is_written_again(data, whole, tmp_path):
    recipe = tiny_recipe(data, tmp_path / "run")
    with pytest.raises(Killed):
        pretrain(recipe, on_step=kill_after(6))
    log = tmp_path / "run" / "log.csv"
    log.write_bytes(log.read_bytes()[:-9])
    assert_same_run(pretrain(recipe, resume=True), whole)


def start(recipe, *options):
    command = [sys.executable, "-m", "msclr", "pretrain", str(recipe), *options]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def kill_when(process, run, rows):
    """SIGKILL as soon as log.csv holds that many steps."""
    deadline = time.monotonic() + 120
    while not (run / "log.csv").is_file() or len(column(run)) < rows:
        assert process.poll() is None, process.stderr.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.stderr.close()


def test_a_run_killed_three_times_ends_as_if_never_killed(data, whole, tmp_path):
    """By SIGKILL: before the first checkpoint, then twice in the middle of an epoch."""
    run, recipe = tmp_path / "run", tmp_path / "recipe.yaml"
    write_recipe(recipe, data, run)
    for rows in (1, 6, 9):
        kill_when(start(recipe, *(["--resume"] if rows > 1 else [])), run, rows)
    assert column(run) == column(whole)[: len(column(run))]
    assert len(column(run)) < 12
    assert cli.main(["pretrain", str(recipe), "--resume"]) == 0
    assert_same_run(run, whole)
    assert scalars(run) == column(whole)


def scalars(run):
    """The losses in TensorBoard's files, as log.csv would write them; every step must be there."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard")).Reload().Scalars("pretrain/loss")
    assert [event.step for event in events] == list(range(1, 13))
    return [f"{event.value:.9g}" for event in events]


def test_a_run_whose_clips_are_streamed_is_the_same(data, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "_SHARE", 0)
    asked = []
    prefetch = dataset.SkeletonDataset.prefetch
    monkeypatch.setattr(
        dataset.SkeletonDataset, "prefetch", lambda *a: (asked.append(1), prefetch(*a))
    )
    recipe = tiny_recipe(data, tmp_path / "run")
    with pytest.raises(Killed):
        pretrain(recipe, on_step=kill_after(7))
    assert_same_run(pretrain(recipe, resume=True), whole)
    assert len(asked) > recipe.steps


def test_a_step_is_drawn_once_where_the_clips_are_resident(data, tmp_path, monkeypatch):
    drawn, draw = [], Sampler.draw
    monkeypatch.setattr(Sampler, "draw", lambda *a: (drawn.append(a[1]), draw(*a))[1])
    pretrain(tiny_recipe(data, tmp_path / "run", steps=3))
    assert drawn == [0, 1, 2]


def test_fp16_resumes_with_the_scale_of_its_gradients(data, tmp_path):
    whole = pretrain(tiny_recipe(data, tmp_path / "whole", precision="fp16", steps=6))
    recipe = tiny_recipe(data, tmp_path / "run", precision="fp16", steps=6)
    with pytest.raises(Killed):
        pretrain(recipe, on_step=kill_after(5))
    assert_same_run(pretrain(recipe, resume=True), whole)


def test_resuming_a_finished_run_changes_nothing(data, whole, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    before = {k: v for k, v in tree(run).items() if "tensorboard" not in k}
    before["recipe.yaml"] = before["recipe.yaml"].replace(str(whole).encode(), str(run).encode())
    pretrain(tiny_recipe(data, run), resume=True)
    assert {k: v for k, v in tree(run).items() if "tensorboard" not in k} == before


@pytest.mark.parametrize("folder", ["runs/tine", "elsewhere", "empty"])
def test_a_resume_where_no_run_is_says_so_and_begins_none(folder, data, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "runs" / "tiny")
    (tmp_path / "empty").mkdir()
    before = tree(tmp_path)
    wanted = tmp_path / folder
    with pytest.raises(InputError, match=re.escape(f"nothing to resume in {wanted}: ")) as caught:
        pretrain(tiny_recipe(data, wanted), resume=True)
    assert tree(tmp_path) == before
    close = f"did you mean out={tmp_path / 'runs' / 'tiny'}?"
    assert (close in str(caught.value)) == (folder == "runs/tine")


def test_a_run_without_a_checkpoint_yet_is_resumed_from_its_start(data, whole, tmp_path):
    recipe = tiny_recipe(data, tmp_path / "run")
    with pytest.raises(Killed):
        pretrain(recipe, on_step=kill_after(2))
    assert not (tmp_path / "run" / "checkpoint.pt").exists()
    (tmp_path / "run" / "log.csv").unlink()  # as if killed before its first line
    assert_same_run(pretrain(recipe, resume=True), whole)


def test_a_resume_may_log_and_save_at_other_steps_and_find_the_data_elsewhere(
    data, whole, tmp_path
):
    with pytest.raises(Killed):
        pretrain(tiny_recipe(data, tmp_path / "run"), on_step=kill_after(6))
    shutil.copytree(data, tmp_path / "moved")
    changed = tiny_recipe(tmp_path / "moved", tmp_path / "run", log_every=3, checkpoint_every=5)
    run = pretrain(changed, resume=True)
    assert column(run) == column(whole)


def test_a_checkpoint_older_than_a_key_had_its_default(data, tmp_path):
    recipe = tiny_recipe(data, tmp_path / "run")
    with pytest.raises(Killed):
        pretrain(recipe, on_step=kill_after(6))
    saved = tmp_path / "run" / "checkpoint.pt"
    state = torch.load(saved, weights_only=True)
    del state["recipe"]["queue_precision"]
    torch.save(state, saved)
    with pytest.raises(InputError, match="queue_precision='fp32' there, 'bf16' here"):
        pretrain(replace(recipe, queue_precision="bf16"), resume=True)
    assert len(column(pretrain(recipe, resume=True))) == recipe.steps


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hidden_dim": 16}, ["hidden_dim=8 there, 16 here"]),
        ({"lr": 0.5, "seed": 3}, ["lr=1e-05 there, 0.5 here", "seed=0 there, 3 here"]),
        ({"layouts": ["kinectv1_20"]}, ["layouts="]),
    ],
)
def test_a_checkpoint_of_another_recipe_is_refused(change, words, data, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    before = tree(tmp_path)
    with pytest.raises(InputError, match="of another recipe") as caught:
        pretrain(tiny_recipe(data, tmp_path / "run", **change), resume=True)
    assert all(word in str(caught.value) for word in words)
    assert tree(tmp_path) == before


def test_a_checkpoint_of_other_data_is_refused(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    other = prepare_tiny(tmp_path / "data", ("h36m_17", "kinectv1_20", "openpose_18"))
    before = tree(tmp_path)
    with pytest.raises(InputError, match="other data"):
        pretrain(tiny_recipe(other, tmp_path / "run"), resume=True)
    assert tree(tmp_path) == before


def test_the_log_is_read_back_as_text_without_loss(whole):
    with (whole / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [f"{float(row['loss']):.9g}" for row in rows] == [row["loss"] for row in rows]
