"""Preparing NTU RGB+D against a plain pipeline, and how much memory it takes.

A generated tree of 2,000 files of 100 frames. `ours` is `prepare_ntu` of all of it, from the files
to the finished folder, checksums and all; `first` the same in a process that starts with it. The
plain pipeline, benchmarks/data/plain_ntu.py, gives the same clips (a test holds them together) but
leaves them in memory; it runs over a sample, one process, and its time is taken by the file:
`usual` converts every number of a file, `lean` only those that it needs. `ratio` is the usual one's
time a file over ours, in the same run. Memory is the peak of all processes together, at 500 files
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
from itertools import count
from pathlib import Path
from typing import Any

import torch

from benchmarks.data import plain_ntu
from benchmarks.machine import describe, side_by_side
from benchmarks.output import save
from msclr.data.prepare.ntu import prepare_ntu
from tests.data.skeleton_files import clip_names, write_tree

CPU = torch.device("cpu")
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


def measure(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Seconds for the tree in `folder` / "all", and peak memory for it and that in "few"."""
    files = sorted((folder / "all").iterdir())
    sample = files[:: max(len(files) // args.sample, 1)][: args.sample]
    number = count()

    def ours() -> None:
        out = folder / f"out{next(number)}"
        prepare_ntu("ntu60", folder / "all", out, protocol="xsub", workers=args.workers)
        shutil.rmtree(out)

    def plain(lean: bool) -> None:
        for file in sample:
            plain_ntu.prepare_clip(file, lean=lean)

    runs = {"ours": ours, "usual": lambda: plain(False), "lean": lambda: plain(True)}
    whole = side_by_side(runs, CPU, args.rounds)
    clips = {"ours": len(files), "usual": len(sample), "lean": len(sample)}
    seconds = {n: {k: v / clips[n] for k, v in t.items()} for n, t in whole.items()}
    per_file = seconds["ours"]["median"]
    size = sum(file.stat().st_size for file in files)
    alone = {name: _alone(folder, name, args.workers) for name in ("few", "all")}
    return {
        "seconds_per_file": seconds,
        "ratio": seconds["usual"]["median"] / per_file,
        "ratio_lean": seconds["lean"]["median"] / per_file,
        "mb_s": 1e-6 * size / whole["ours"]["median"],
        "first_seconds": alone["all"]["seconds"],
        "ratio_first": seconds["usual"]["median"] * len(files) / alone["all"]["seconds"],
        "peak_bytes": {name: result["peak"] for name, result in alone.items()},
    }


def _alone(folder: Path, tree: str, workers: int) -> dict[str, float]:
    """`prepare_ntu` in a process of its own: its seconds, and the peak memory of all together."""
    out = folder / f"alone-{tree}"
    command = [sys.executable, "-c", ALONE, folder / tree, out, str(workers)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    shutil.rmtree(out)
    result = json.loads(done.stdout)
    result["peak"] = result["own_peak"] + (workers - 1) * result["worker_peak"]
    return result


def main(argv: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks data prepare", description=__doc__)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--frames", type=int, default=100, help="of each file")
    parser.add_argument("--sample", type=int, default=40, help="files for the plain pipeline")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--out", type=Path, help="file to write (default: one in results/)")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as top:
        names = clip_names(args.files, setups=(1, 2, 3))
        files = write_tree(Path(top) / "all", names, frames=args.frames, ghosts=0.05, lost=0.05)
        (Path(top) / "few").mkdir()
        for file in files[::FEWER]:
            os.link(file, Path(top) / "few" / file.name)
        sizes = {"files": len(files), "T": args.frames, "workers": args.workers}
        row = {"op": "prepare_ntu", **sizes, **measure(Path(top), args)}
    result = {"benchmark": "data_prepare", **describe(CPU), "rows": [row]}
    if not args.json:
        print(_line(row))
    return save(result, "data_prepare", args)


def _line(row: dict[str, Any]) -> str:
    per_file, peak = row["seconds_per_file"], row["peak_bytes"]
    return (
        f"{row['files']} files of {row['T']} frames, {row['workers']} processes: "
        f"{1e3 * per_file['ours']['median']:.3f} ms a file ({row['mb_s']:.0f} MB/s), "
        f"{row['ratio']:.1f}x of the usual pipeline, {row['ratio_lean']:.1f}x of the lean one; "
        f"{row['ratio_first']:.1f}x with the imports; memory {1e-6 * peak['few']:.0f} MB at "
        f"{row['files'] // FEWER} files, {1e-6 * peak['all']:.0f} MB at {row['files']}"
    )


if __name__ == "__main__":
    main()
