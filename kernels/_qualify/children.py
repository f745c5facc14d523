"""Processes that try backends: they are watched, and ended where they hang or time runs out."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from msclr.kernels._qualify.store import Verdict

MARK = "msclr-qualify "
_PROGRAM = "msclr.kernels._qualify.child"
_LOOK = 0.2  # seconds between looks at whether everything is to stop
_MOST_PROCESSES = 8
_LAST_SECONDS = 5.0  # for a process to end once it has said everything


@dataclass(frozen=True)
class Job:
    """A backend of an operator, to be tried in some families of dtypes, one after the other."""

    subject: str  # "module:name", see subjects.find
    backend: str
    families: tuple[str, ...]


@dataclass(frozen=True)
class Limits:
    """In seconds: of everything, and of one step of a trial, after which it counts as hung."""

    total: float
    stall: float


def try_all(jobs: Sequence[Job], device: str, limits: Limits) -> dict[tuple[Job, str], Verdict]:
    """A verdict of each job and family, by processes, which run in parallel on a GPU."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    count = min(len(jobs), max(1, cores // 2), _MOST_PROCESSES) if device != "cpu" else 1
    threads = max(1, cores // count)
    stop, deadline = threading.Event(), time.monotonic() + limits.total
    with tempfile.TemporaryDirectory(prefix="msclr") as folder, ThreadPoolExecutor(count) as pool:
        lock = str(Path(folder) / "lock") if count > 1 else None
        trials = [_Trial(job, device, lock, threads, deadline, limits, stop) for job in jobs]
        try:
            found = list(pool.map(_Trial.run, trials))
        except BaseException:  # such as Ctrl-C: leave no process behind
            stop.set()
            raise
    return {(j, family): v for j, of in zip(jobs, found, strict=True) for family, v in of.items()}


class _Trial:
    """A job under way: a process, and after one that died another for what is left."""

    def __init__(
        self,
        job: Job,
        device: str,
        lock: str | None,
        threads: int,
        deadline: float,
        limits: Limits,
        stop: threading.Event,
    ):
        self.job, self.deadline, self.limits, self.stop = job, deadline, limits, stop
        self.spec: dict[str, Any] = {
            "subject": job.subject, "backend": job.backend, "device": device, "lock": lock,
            "seconds": limits.total,
        }  # fmt: skip
        self.threads = threads
        self.found: dict[str, Verdict] = {}
        self.at: tuple[str, str] | None = None  # the family and step that is being tried

    def run(self) -> dict[str, Verdict]:
        """A verdict of each family."""
        while left := [f for f in self.job.families if f not in self.found]:
            if time.monotonic() >= self.deadline or self.stop.is_set():
                self.found |= dict.fromkeys(left, _undecided("there was no time left to try it"))
                break
            self._run_process(left)
        return self.found

    def _run_process(self, families: list[str]) -> None:
        self.at = None
        command = [sys.executable, "-m", _PROGRAM]
        command.append(json.dumps({**self.spec, "families": families}))
        with tempfile.TemporaryFile() as errors:
            try:
                process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
                    env=_environment(self.threads), start_new_session=True,
                )  # fmt: skip
            except OSError as error:
                problem = _undecided(f"no process could be started to try it: {error}")
                self.found |= dict.fromkeys(families, problem)
                return
            try:
                why = self._listen(process.stdout)
                if not why:
                    _wait(process)
            finally:
                _end(process)
            self._blame(families, why, process.returncode, _last_line(errors))

    def _listen(self, stream: IO[bytes]) -> str:
        """Read what the process reports. Returns "" where it ended, else what cut it short."""
        lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        threading.Thread(target=_read, args=(stream, lines), daemon=True).start()
        heard = time.monotonic()
        while True:
            with suppress(queue.Empty):
                line = lines.get(timeout=_LOOK)
                if not line:
                    return ""
                heard = time.monotonic()
                self._take(line.decode(errors="replace"))
            now = time.monotonic()
            if self.stop.is_set() or now >= self.deadline:
                return "time"
            if now - heard >= self.limits.stall:
                return "hung"

    def _take(self, line: str) -> None:
        start = line.find(MARK)  # a kernel may have printed something before it
        if start < 0:
            return
        try:
            message = json.loads(line[start + len(MARK) :])
        except ValueError:
            return
        if "verdict" in message:
            self.found[message["family"]] = Verdict(**message["verdict"])
            self.at = None
        else:
            self.at = message["family"], message["at"]

    def _blame(self, families: list[str], why: str, status: int, error: str) -> None:
        """What an end without a verdict says of the family that was being tried."""
        left = [family for family in families if family not in self.found]
        if why == "time":
            self.found |= dict.fromkeys(left, _undecided("there was not enough time to try it"))
        elif self.at is not None:
            family, at = self.at
            reason = f"its process died ({_status(status)}) at {at}"
            if why == "hung":
                reason = f"it hung: {self.limits.stall:.0f} s without an end at {at}"
            self.found[family] = Verdict(False, reason)
        elif len(left) == len(families):  # nothing was tried: that is no backend's fault
            problem = f"its process did not get to try it ({_status(status)}): {error}"
            self.found |= dict.fromkeys(left, _undecided(problem))


def _environment(threads: int) -> dict[str, str]:
    given = {k: v for k, v in os.environ.items() if k != "MSCLR_BACKEND"}
    return given | {
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "MSCLR_QUALIFY": "off",
        "OMP_NUM_THREADS": given.get("OMP_NUM_THREADS", str(threads)),
    }


def _read(stream: IO[bytes], lines: queue.SimpleQueue[bytes]) -> None:
    with stream:
        for line in stream:
            lines.put(line)
    lines.put(b"")


def _wait(process: subprocess.Popen) -> None:
    with suppress(subprocess.TimeoutExpired):  # it closed its output and went on
        process.wait(_LAST_SECONDS)


def _end(process: subprocess.Popen) -> None:
    """Kill a process with all that it started, where it still runs."""
    with suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    process.wait()


def _last_line(errors: IO[bytes]) -> str:
    errors.seek(0)
    lines = errors.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def _status(status: int) -> str:
    if status >= 0:
        return f"status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


def _undecided(reason: str) -> Verdict:
    return Verdict(False, reason, decided=False)
