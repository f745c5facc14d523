"""A run that a signal ends is kept whole, says so, and goes on to the last bit."""

from __future__ import annotations

import importlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest

from msclr import cli
from msclr.data import dataset
from msclr.errors import DivergedError, StoppedError
from msclr.training import pretrain, stop
from msclr.training.checkpoint import load_checkpoint
from tests.ranks import be_a_rank, run_ranks
from tests.tiny import column, prepare_tiny, tiny_recipe, write_recipe
from tests.training.runs import assert_same_run

loop = importlib.import_module("msclr.training.pretrain")  # the package's name for the function
SIGNALS = [signal.SIGINT, signal.SIGTERM]


@pytest.fixture(autouse=True)
def nothing_is_ignored():
    """A shell starts what runs in its background with SIGINT ignored, and so might these tests."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def signal_in(monkeypatch):
    """Has a signal come in the middle of a step, counted from 1."""

    def arrange(step, number):
        usual = loop.learning_rate

        def rate(recipe, at, *rest):
            if at == step - 1:
                os.kill(os.getpid(), number)
            return usual(recipe, at, *rest)

        monkeypatch.setattr(loop, "learning_rate", rate)

    return arrange


# One process


@pytest.mark.parametrize(  # before the first checkpoint, between two, on one
    ("step", "number"), [(1, signal.SIGINT), (6, signal.SIGTERM), (8, signal.SIGINT)]
)
def test_a_run_stopped_in_any_step_resumes_bit_for_bit(
    step, number, data, whole, tmp_path, signal_in, monkeypatch
):
    recipe = tiny_recipe(data, tmp_path / "run", log_every=5)
    signal_in(step, number)
    with pytest.raises(StoppedError) as caught:
        pretrain(recipe)
    assert caught.value.signal == number
    assert load_checkpoint(tmp_path / "run" / "checkpoint.pt")["step"] == step
    assert column(tmp_path / "run") == column(whole)[:step]
    monkeypatch.undo()
    assert_same_run(pretrain(replace(recipe, log_every=1), resume=True), whole)


def test_a_stopped_run_in_fp16_keeps_the_scale_of_its_gradients(
    data, tmp_path, signal_in, monkeypatch
):
    monkeypatch.setattr(loop, "emulation_warning", lambda *_: None)
    whole = pretrain(tiny_recipe(data, tmp_path / "whole", precision="fp16", steps=4))
    recipe = tiny_recipe(data, tmp_path / "run", precision="fp16", steps=4)
    signal_in(2, signal.SIGTERM)
    with pytest.raises(StoppedError):
        pretrain(recipe)
    assert_same_run(pretrain(recipe, resume=True), whole)


def test_the_message_names_checkpoint_and_the_command_that_goes_on(
    data, whole, tmp_path, signal_in, capsys, monkeypatch
):
    run = tmp_path / "my run"
    recipe = write_recipe(tmp_path / "recipe.yaml", data, run)
    signal_in(6, signal.SIGTERM)
    assert cli.main(["pretrain", str(recipe)]) == 128 + signal.SIGTERM
    out, err = capsys.readouterr()
    last = err.splitlines()[-1]
    assert out == "" and "run written" not in err
    assert last == (
        f"msclr: stopped: SIGTERM came after step 6 of 12, kept in {run / 'checkpoint.pt'}; "
        f"to go on: msclr pretrain '{run / 'recipe.yaml'}' --resume"
    )
    monkeypatch.undo()
    assert cli.main(shlex.split(last.split("to go on: msclr ")[1])) == 0
    assert_same_run(run, whole)


def test_a_signal_in_the_last_step_leaves_a_finished_run(data, whole, tmp_path, signal_in):
    signal_in(12, signal.SIGINT)
    with pytest.raises(StoppedError, match=r"of 12; the run in .* is finished"):
        pretrain(tiny_recipe(data, tmp_path / "run"))
    assert_same_run(tmp_path / "run", whole)


def test_a_signal_while_the_last_checkpoint_is_written_is_not_lost(data, tmp_path, monkeypatch):
    save = loop.save_checkpoint
    monkeypatch.setattr(
        loop, "save_checkpoint", lambda *a: (save(*a), os.kill(os.getpid(), signal.SIGINT))
    )
    with pytest.raises(StoppedError, match="is finished"):
        pretrain(tiny_recipe(data, tmp_path / "run", steps=2))


def test_a_run_that_diverges_as_it_is_stopped_keeps_no_bad_checkpoint(data, tmp_path, signal_in):
    signal_in(6, signal.SIGTERM)
    with pytest.raises(DivergedError):
        pretrain(tiny_recipe(data, tmp_path / "run", lr=1e30, checkpoint_every=100))
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


def test_no_thread_stays_behind_a_stopped_run(data, tmp_path, signal_in, monkeypatch):
    monkeypatch.setattr(dataset, "_SHARE", 0)  # clips are streamed
    signal_in(2, signal.SIGTERM)
    alive = []
    recipe = tiny_recipe(data, tmp_path / "run")
    with pytest.raises(StoppedError) as caught:  # which keeps the run and its data set alive
        pretrain(recipe, on_step=lambda *_: alive.append(clip_threads()))
    assert alive == [1, 1] and clip_threads() == 0
    assert caught.value.signal == signal.SIGTERM


def clip_threads() -> int:
    return sum(thread.name.startswith("msclr-clips") for thread in threading.enumerate())


def test_as_a_process_a_run_ends_soon_and_with_the_signals_status(data, tmp_path):
    recipe = write_recipe(tmp_path / "r.yaml", data, tmp_path / "run", steps=100_000)
    process = subprocess.Popen(
        [sys.executable, "-m", "msclr", "pretrain", str(recipe)], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not column_of(tmp_path / "run"):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    step = load_checkpoint(tmp_path / "run" / "checkpoint.pt")["step"]
    assert f"SIGTERM came after step {step} of 100000" in err.splitlines()[-1]
    assert len(column(tmp_path / "run")) == step and "\r" not in err


def column_of(run):
    return column(run) if (run / "log.csv").is_file() else []


# Signals


def handlers():
    return [signal.getsignal(number) for number in SIGNALS]


def test_the_handlers_are_as_before_after_a_run(data, tmp_path, signal_in):
    before, within = handlers(), []
    recipe = tiny_recipe(data, tmp_path / "run", steps=4)
    signal_in(2, signal.SIGTERM)
    with pytest.raises(StoppedError):
        pretrain(recipe, on_step=lambda *_: within.append(handlers()))
    assert handlers() == before and all(x != before for x in within)
    pretrain(recipe, resume=True)
    assert handlers() == before
    with pytest.raises(RuntimeError, match="mine"), stop.noted_signals():
        raise RuntimeError("mine")
    assert handlers() == before


def test_another_thread_trains_without_handlers(data, whole, tmp_path):
    before, within = handlers(), []
    recipe = tiny_recipe(data, tmp_path / "run")
    thread = threading.Thread(
        target=pretrain, args=[recipe], kwargs={"on_step": lambda *_: within.append(handlers())}
    )
    thread.start()
    thread.join()
    assert within == [before] * 12
    assert_same_run(tmp_path / "run", whole)


def test_a_signal_that_the_process_was_to_ignore_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stop.noted_signals() as noted:
            signal.raise_signal(signal.SIGINT)
        assert noted.number == 0 and signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


TWICE = """
import hashlib, importlib.util, os, signal, sys, threading, time
spec = importlib.util.spec_from_file_location("stop", sys.argv[1])
stop = importlib.util.module_from_spec(spec)
spec.loader.exec_module(stop)
first, second = map(int, sys.argv[2:])

def send():
    os.kill(os.getpid(), first)
    print("sent", flush=True)
    time.sleep(stop._ECHO + 0.2)
    print("still there", flush=True)
    os.kill(os.getpid(), second)

signal.signal(signal.SIGINT, signal.default_int_handler)
with stop.noted_signals() as noted:
    threading.Thread(target=send).start()
    hashlib.pbkdf2_hmac("sha256", b"long", b"work", 2_000_000_000)  # no handler can run meanwhile
"""


@pytest.mark.parametrize("first", SIGNALS, ids=lambda x: x.name)
@pytest.mark.parametrize("second", SIGNALS, ids=lambda x: x.name)
def test_a_second_signal_ends_the_process_at_once(first, second):
    command = [sys.executable, "-c", TWICE, stop.__file__, str(int(first)), str(int(second))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout) == (128 + second, "sent\nstill there\n"), done.stderr


def test_a_signal_that_a_launcher_hands_on_is_no_second_one(monkeypatch):
    times, ended = iter([100.0, 100.4, 100.6]), []
    monkeypatch.setattr(stop.time, "monotonic", lambda: next(times))
    monkeypatch.setattr(stop.os, "_exit", lambda status: ended.append((status, next(times, None))))
    received, sent = socket.socketpair()
    with received, sent:
        sent.send(bytes([signal.SIGTERM, signal.SIGCHLD, signal.SIGTERM, signal.SIGTERM]))
        sent.shutdown(socket.SHUT_WR)
        stop._watch(received, SIGNALS)
    assert ended == [(143, None)]  # at the third, when no time was left to be asked for


def test_nothing_of_the_watch_stays_behind():
    before = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(before)
    threads = threading.active_count()
    with stop.noted_signals() as noted:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert noted.number == signal.SIGTERM
    assert threading.active_count() == threads
    assert signal.set_wakeup_fd(before) == before


# Two processes


def find(rank):
    """What a rank leaves of a run that a signal to the second rank alone ends, and of its rest."""
    from contextlib import contextmanager
    from pathlib import Path

    import torch.distributed as dist

    from msclr.training.distributed import Ranks

    @contextmanager
    def these(device):
        yield Ranks(rank, 2, dist.group.WORLD)

    def on_step(done, steps, records):
        if rank == 1 and done == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    loop.ranks_of = these
    folder = Path(sys.argv[3])
    whole = tiny_recipe(folder / "data", folder / "whole", steps=5)
    recipe = tiny_recipe(folder / "data", folder / "run", steps=5)
    pretrain(whole)
    try:
        pretrain(recipe, on_step=on_step)
        found = {"stopped": False}
    except StoppedError as error:
        step = load_checkpoint(folder / "run" / "checkpoint.pt")["step"]
        found = {"stopped": True, "signal": error.signal, "text": str(error), "step": step}
    dist.barrier()
    pretrain(recipe, resume=True)
    return found


def test_a_signal_to_one_rank_ends_all_after_the_same_step(tmp_path):
    prepare_tiny(tmp_path / "data")
    ranks = run_ranks(__file__, 2, tmp_path)
    assert ranks[0] == ranks[1]
    assert (ranks[0]["stopped"], ranks[0]["signal"], ranks[0]["step"]) == (True, 15, 3)
    assert "after step 3 of 5" in ranks[0]["text"]
    assert "to go on: torchrun ... -m msclr pretrain " in ranks[0]["text"]
    assert_same_run(tmp_path / "run", tmp_path / "whole")


if __name__ == "__main__":
    be_a_rank(find)
