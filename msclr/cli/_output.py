"""What the commands print, and where: results on stdout, all else on stderr."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable
from statistics import fmean
from typing import Any

_SELDOM, _AT_LEAST = 30.0, 600.0  # seconds between lines of progress off a terminal
_SHARE = 0.05  # of the time so far, if that lies between


def never_fail_to_print() -> None:
    """Let characters that the system's encoding lacks come out as escapes, on both outputs."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def first_rank() -> bool:
    """Whether this is the one process of those that torchrun started which prints."""
    return os.environ.get("RANK", "0") == "0"


def print_json(value: Any) -> None:
    print(json.dumps(value))


def say(text: str) -> None:
    """Print a line on stderr; carry on if nobody reads it any more."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


class Progress:
    """How far a command is, on stderr: a bar on a terminal, else occasional lines.

    Lines come with the first news and the last, and between them every half minute, later every
    ten minutes.
    """

    def __init__(self, unit: str):
        self._unit, self._note, self._bar = unit, "", None
        self._first: tuple[int, float] | None = None  # the first news: how far, and when
        self._next_line = 0.0

    def update(self, done: int, total: int, note: str = "") -> None:
        """Show that ``done`` of ``total`` are done; a note stays until the next."""
        self._note = note or self._note
        if sys.stderr is not None and sys.stderr.isatty():
            self._draw(done, total)
        else:
            self._write(done, total, time.monotonic())

    def say(self, text: str) -> None:
        """Print a separate line, above the bar if there is one."""
        if self._bar is not None:
            self._bar.clear()
        say(text)
        if self._bar is not None:
            self._bar.refresh()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()  # so that a message after it begins a new line

    def _draw(self, done: int, total: int) -> None:
        from tqdm import tqdm

        if self._bar is None:
            self._bar = tqdm(total=total, initial=done - 1, unit=self._unit, dynamic_ncols=True)
        self._bar.set_postfix_str(self._note, refresh=False)
        self._bar.update(done - self._bar.n)

    def _write(self, done: int, total: int, now: float) -> None:
        self._first = self._first or (done, now)
        if now < self._next_line and done < total:
            return
        at_first, began = self._first
        self._next_line = now + min(max(_SELDOM, _SHARE * (now - began)), _AT_LEAST)
        parts = [f"{self._unit} {done}/{total}", self._note]
        if at_first < done < total:
            left = (total - done) * (now - began) / (done - at_first)
            parts.append(f"{_duration(left)} left")
        say(", ".join(filter(None, parts)))


class TrainingBar:
    """Progress of pretrain: loss, contrast accuracy, clips/s, 1-NN accuracy, time left."""

    def __init__(self) -> None:
        self._progress = Progress("step")
        self._knn = ""

    def __enter__(self) -> TrainingBar:
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.close()

    def say(self, text: str) -> None:
        self._progress.say(text)

    def on_step(self, done: int, steps: int, records) -> None:
        if not first_rank():
            return
        note = ""
        if records:
            last = records[-1]
            note = (
                f"loss {last.loss:.3f}, contrast {100 * last.contrast_accuracy:.0f} %, "
                f"{last.clips_per_second:.0f} clips/s{self._knn}"
            )
        self._progress.update(done, steps, note)

    def on_knn(self, records) -> None:
        """Show the mean nearest-neighbour accuracy, per data set, from the next records on."""
        found: dict[str, list[float]] = {}
        for record in records:
            found.setdefault(record.data, []).append(record.accuracy)
        means = (f"{fmean(x):.0f} % {name}".rstrip() for name, x in found.items())
        self._knn = f", 1-NN {', '.join(means)}"


class ClipBar:
    """Progress of prepare: clips done, clips/s, time left."""

    def __init__(self) -> None:
        self._progress = Progress("clip")

    def __enter__(self) -> Callable[[int, int], None]:
        return self._progress.update

    def __exit__(self, *_: object) -> None:
        self._progress.close()


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
