"""Preparing NTU RGB+D against a plain pipeline, and how much memory it takes.

A generated tree of 2,000 files of 100 frames. `ours` is `prepare_ntu` of all of it, from the files
to the finished folder, checksums and all; `first` the same in a process that starts with it. The
plain pipeline, benchmarks/data/plain_ntu.py, gives the same clips (a test holds them together) but
leaves them in memory; it runs over a sample, one process, and its time is taken by the file:
`usual` converts every number of a file, `lean` only those that it needs. `ratio` is the usual one's
time per file over ours, in the same run. Memory is the peak of all processes together, at 500 files
and at all of them: it must not grow with their number.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from benchmarks.data import plain_ntu
from benchmarks.options import positive
from benchmarks.runner import Case, Part, Setup
from msclr.data.prepare.ntu import prepare_ntu
from tests.data.skeleton_files import clip_names, write_tree

FEWER = 4  # times fewer files where memory is taken a second time

# Prints the seconds of prepare_ntu and its imports, and the peaks of this process and of the
# largest worker. VmHWM: ru_maxrss would start with what the process had before it was this one.
ALONE = """
import json, resource, sys, time
began = time.perf_counter()
from msclr.data.prepare.ntu import prepare_ntu
prepare_ntu("ntu60", sys.argv[1], sys.argv[2], protocol="xsub", workers=int(sys.argv[3]))
seconds = time.perf_counter() - began
status = dict(line.split(":") for line in open("/proc/self/status"))
print(json.dumps({
    "seconds": seconds,
    "own_peak": 1024 * int(status["VmHWM"].split()[0]),
    "worker_peak": 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss,
}))
"""


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--files", type=positive, default=2000)
    parser.add_argument("--frames", type=positive, default=100, help="of each file")
    parser.add_argument("--sample", type=positive, default=40, help="files for the plain pipeline")
    parser.add_argument("--workers", type=positive, default=len(os.sched_getaffinity(0)))


def cases(args: argparse.Namespace) -> list[Case]:
    sizes = {"op": "prepare_ntu", "files": args.files, "T": args.frames, "sample": args.sample}
    return [Case(sizes, ("ours", "usual", "lean"))]


def parts(case: Case, args: argparse.Namespace) -> Iterator[Part]:
    """The tree in a folder's "all"; that in its "few" is for the peak of memory."""
    with tempfile.TemporaryDirectory() as top:
        folder, number = Path(top), count()
        names = clip_names(args.files, setups=(1, 2, 3))
        files = write_tree(folder / "all", names, frames=args.frames, ghosts=0.05, lost=0.05)
        (folder / "few").mkdir()
        for file in files[::FEWER]:
            os.link(file, folder / "few" / file.name)
        sample = files[:: max(len(files) // args.sample, 1)][: args.sample]

        def ours() -> None:
            out = folder / f"out{next(number)}"
            prepare_ntu("ntu60", folder / "all", out, protocol="xsub", workers=args.workers)
            shutil.rmtree(out)

        def plain(lean: bool) -> None:
            for file in sample:
                plain_ntu.prepare_clip(file, lean=lean)

        alone = {name: _alone(folder, name, args.workers) for name in ("few", "all")}
        yield Part(
            {"ours": ours, "usual": lambda: plain(False), "lean": lambda: plain(True)},
            amounts={"ours": len(files), "usual": len(sample), "lean": len(sample)},
            key="seconds_per_file",
            memory=False,  # that of the workers is not this process's
            more={
                "workers": args.workers,
                "megabytes": 1e-6 * sum(file.stat().st_size for file in files),
                "first_seconds": alone["all"]["seconds"],
                "peak_bytes": {name: result["peak"] for name, result in alone.items()},
            },
        )


def _alone(folder: Path, tree: str, workers: int) -> dict[str, float]:
    """`prepare_ntu` in another process: its seconds, and the peak memory of all together."""
    out = folder / f"alone-{tree}"
    command = [sys.executable, "-c", ALONE, folder / tree, out, str(workers)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    shutil.rmtree(out)
    result = json.loads(done.stdout)
    result["peak"] = result["own_peak"] + (workers - 1) * result["worker_peak"]
    return result


SETUP = Setup("1 minute", file="", rounds=7, devices=("cpu",))
