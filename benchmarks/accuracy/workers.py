"""Jobs side by side, each in a process with one thread."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import origin
from benchmarks.accuracy.plan import Job

_WAIT = 0.2  # seconds between looks at the processes


def result_file(out: Path, job: Job) -> Path:
    return out / "results" / f"{job.key}.json"


def run_all(jobs: Sequence[Job], out: Path, workers: int, say: Callable[[str], None]) -> list[Job]:
    """Run what has no result yet; returns the jobs that failed, whose logs are in OUT/logs.

    A signal that ends this process ends the others as well, each with a checkpoint.
    """
    for name in ("jobs", "logs", "results", "runs"):
        (out / name).mkdir(parents=True, exist_ok=True)
    waiting = [job for job in jobs if not result_file(out, job).exists()]
    say(f"{len(jobs)} runs, {len(jobs) - len(waiting)} of them done before")
    running: list[tuple[Job, subprocess.Popen, float]] = []
    failed: list[Job] = []
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                job = waiting.pop(0)
                running.append((job, start(job, out), time.monotonic()))
            time.sleep(_WAIT)
            for job, process, began in [each for each in running if each[1].poll() is not None]:
                running.remove((job, process, began))
                done = process.returncode == 0 and result_file(out, job).exists()
                failed += [] if done else [job]
                took = time.monotonic() - began
                say(f"{job.key}: {'done' if done else 'failed'} after {took:.0f} s")
    finally:
        signal.signal(signal.SIGTERM, before)
        for _, process, _ in running:
            process.terminate()
        for _, process, _ in running:
            process.wait()
    return failed


def start(job: Job, out: Path) -> subprocess.Popen:
    """A process that runs a job and writes its result."""
    about = out / "jobs" / f"{job.key}.json"
    about.write_text(json.dumps(job.to_dict(), indent=1) + "\n", encoding="utf-8")
    command = [sys.executable, "-m", "benchmarks.accuracy.one", about, result_file(out, job)]
    one_thread = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with (out / "logs" / f"{job.key}.txt").open("ab") as log:
        return subprocess.Popen(
            command, cwd=origin.ROOT, env=os.environ | one_thread, stdout=log, stderr=log
        )


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
