"""What the commands say on stderr while they work, which never ends them."""

from __future__ import annotations

import io
import sys

import pytest

from msclr import cli, demo
from msclr.cli import _output
from msclr.cli._output import ClipBar, TrainingBar, never_fail_to_print, say
from msclr.training.log import StepRecord


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test moves on."""
    now = [1000.0]
    monkeypatch.setattr(_output.time, "monotonic", lambda: now[0])
    return now


def record(step):
    return StepRecord(step, 1, 3.25, 0.5, 0.1, 812.4)


def test_off_a_terminal_progress_is_a_line_now_and_then(clock, capsys):
    with TrainingBar() as bar:
        for step in range(1, 201):
            bar.on_step(step, 200, [record(step)] if step % 50 == 0 else [])
            clock[0] += 0.75
    out, err = capsys.readouterr()
    assert out == "" and "\r" not in err
    assert err.splitlines() == [
        "step 1/200",
        "step 41/200, 2 min left",
        "step 81/200, loss 3.250, contrast 50 %, 812 clips/s, 89 s left",
        "step 121/200, loss 3.250, contrast 50 %, 812 clips/s, 59 s left",
        "step 161/200, loss 3.250, contrast 50 %, 812 clips/s, 29 s left",
        "step 200/200, loss 3.250, contrast 50 %, 812 clips/s",
    ]


def test_a_long_run_writes_seldom_but_at_least_every_ten_minutes(clock, capsys):
    times = []
    with TrainingBar() as bar:
        for step in range(1, 20_001):
            bar.on_step(step, 100_000, [])
            if capsys.readouterr().err:
                times.append(clock[0])
            clock[0] += 10.0
    gaps = [b - a for a, b in zip(times, times[1:], strict=False)]
    assert gaps[0] == 30 and max(gaps) == gaps[-1] == 600 and len(times) < 450


def test_a_resumed_run_counts_the_time_left_from_its_own_steps(clock, capsys):
    with TrainingBar() as bar:
        for step in range(901, 905):
            bar.on_step(step, 1000, [])
            clock[0] += 30.0
    assert capsys.readouterr().err.splitlines()[1] == "step 902/1000, 49 min left"


def test_prepare_writes_lines_too(clock, capsys):
    with ClipBar() as on_clip:
        for done in (64, 128, 192):
            on_clip(done, 192)
            clock[0] += 10.0
    assert capsys.readouterr().err.splitlines() == ["clip 64/192", "clip 192/192"]


def test_on_a_terminal_it_is_a_bar(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    with TrainingBar() as bar:
        bar.on_step(1, 2, [])
        bar.say("a line")
        bar.on_step(2, 2, [record(2)])
    text = terminal.getvalue()
    assert "\r" in text and "2/2" in text and "loss 3.250" in text
    assert "a line" in [line.strip() for line in text.replace("\r", "\n").splitlines()]


def test_only_the_first_rank_speaks(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    with TrainingBar() as bar:
        bar.on_step(1, 1, [record(1)])
    assert capsys.readouterr().err == ""


# Output never ends a command


class Narrow(io.TextIOWrapper):
    """A stream in a code page that knows few characters."""

    def __init__(self, encoding="cp1252"):
        super().__init__(io.BytesIO(), encoding=encoding, write_through=True)

    @property
    def text(self):
        return self.buffer.getvalue().decode(self.encoding)


def test_characters_that_the_system_lacks_come_out_as_escapes(monkeypatch):
    out, err = Narrow(), Narrow("ascii")
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    assert cli.main(["pretrain", "走る.yaml"]) == 2
    print("走る, für")
    assert out.text == "\\u8d70\\u308b, für\n"
    assert err.text.startswith("msclr: error: no recipe '\\u8d70\\u308b.yaml'")


def test_streams_of_other_kinds_stay_as_they_are(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)  # as under pythonw
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    never_fail_to_print()


def test_work_goes_on_where_nobody_reads_its_messages(monkeypatch):
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Closed())
    say("gone")
    with TrainingBar() as bar:
        bar.on_step(1, 1, [record(1)])


# The demo's forecast


@pytest.mark.parametrize(
    ("a_step", "words"), [(0.75, "about 7 minutes"), (4.5, "about 40 minutes")]
)
def test_the_demo_says_how_long_it_takes_here_from_its_first_steps(a_step, words, monkeypatch):
    now, said, heard = [50.0], [], []
    monkeypatch.setattr(demo.time, "perf_counter", lambda: now[0])
    forecast = demo._Forecast(40.0, said.append, lambda *news: heard.append(news))
    for step in range(1, 21):
        now[0] += 30.0 if step == 1 else a_step  # the first step is slow everywhere
        forecast(step, 500, [])
    assert len(said) == 1 and f"{words} in all here, at {a_step:.2f} s a step" in said[0]
    assert heard == [(step, 500, []) for step in range(1, 21)]
