"""The command line of `python -m benchmarks accuracy`."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import accuracy, origin
from benchmarks.accuracy.collect import best_candidate, differences, gather, summary
from benchmarks.accuracy.people import hold_out, people_of
from benchmarks.accuracy.plan import Job, Plan, jobs_of, load_plan
from benchmarks.accuracy.workers import result_file, run_all
from benchmarks.options import Parser, positive
from benchmarks.output import save
from msclr.data import prepare_arrays
from msclr.data.store import Store, open_store
from msclr.data.toy import generate
from msclr.demo import CLIPS, FRAMES
from msclr.errors import InputError
from msclr.paths import as_path

AS_IT_COMES = {"recipe": []}  # the one candidate where none is given


def parser_of() -> Parser:
    parser = Parser(
        prog="python -m benchmarks accuracy",
        description=accuracy.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("plan", help="a file, or the name of one in benchmarks/accuracy/")
    data = parser.add_mutually_exclusive_group(required=True)
    text = "a prepared data set; as many as the plan names"
    data.add_argument("--data", type=Path, nargs="+", metavar="FOLDER", help=text)
    text = "ui_prmd.npz; prepared to OUT/data by examples/ui_prmd.py, in the body frame"
    data.add_argument("--data-ui-prmd", type=Path, metavar="FILE", help=text)
    text = f"{CLIPS} generated clips of four conventions, prepared to OUT/data, in the body frame"
    data.add_argument("--data-toy", action="store_true", help=text)
    add("--out", type=Path, required=True, metavar="FOLDER", help="for runs and results")
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--select", action="store_true", help="on people held out of training")
    mode.add_argument("--final", action="store_true", help="on the test people")
    add("--seeds", type=positive, default=5)
    text = "a recipe's key for all runs of the plan, such as steps=300"
    add("--set", nargs="+", default=[], metavar="KEY=VALUE", help=text)
    add("--workers", type=positive, default=2, help="processes of one thread each (default: 2)")
    text = "of --final: where the result goes (default: OUT/accuracy-PLAN.json)"
    add("--result", type=Path, metavar="FILE", help=text)
    return parser


def main(argv: Sequence[str]) -> int:
    """Returns how many runs failed, at most 1; raises InputError for bad input."""
    args = parser_of().parse_args(argv)
    plan, out = load_plan(args.plan), as_path(args.out).absolute()
    out.mkdir(parents=True, exist_ok=True)
    stores = _open_data(args, out)
    if len(stores) != len(plan.data):
        raise InputError(f"plan {plan.name} takes the data {plan.data}, here are {len(stores)}")
    for store in stores:
        if store.frame != plan.frame:
            raise InputError(
                f"{store.path} is in the frame {store.frame}, plan {plan.name} wants {plan.frame}; "
                f"prepare it again with --frame {plan.frame}"
            )
    for run, about in plan.runs.items():  # after the run's own, which they replace
        about = about or {}
        plan.runs[run] = about | {"changes": [*about.get("changes", []), *args.set]}
    return _select(plan, stores, out, args) if args.select else _final(plan, stores, out, args)


def _open_data(args: argparse.Namespace, out: Path) -> list[Store]:
    if args.data is not None:
        return [open_store(folder, verify=False) for folder in args.data]
    if args.data_toy and not (out / "data" / "dataset.json").exists():
        given = {"frames": FRAMES, "frame": "body", "source": "generated"}
        prepare_arrays(out / "data", **generate(CLIPS), **given)
    elif not (out / "data" / "dataset.json").exists():
        script = origin.ROOT / "examples" / "ui_prmd.py"
        archive = as_path(args.data_ui_prmd).absolute()
        command = [sys.executable, script, archive, "--out", out / "data", "--frame", "body"]
        if subprocess.run(command, cwd=origin.ROOT).returncode:
            raise InputError(f"{archive} could not be prepared; see above")
    return [open_store(out / "data", verify=False)]


def _select(plan: Plan, stores: list[Store], out: Path, args: argparse.Namespace) -> int:
    if len(stores) > 1:
        raise InputError(f"plan {plan.name} is of several data sets; --select takes one")
    held_out = hold_out(stores[0], out / "held_out", plan.subject, plan.hold_out)
    candidates = AS_IT_COMES | plan.candidates
    every = jobs_of(plan, [held_out], out, args.seeds, candidates)
    jobs = [job for job in every if not job.supervised and job.run in (plan.select or plan.runs)]
    failed = _run(jobs, out, args.workers)
    if failed:
        return 1
    chosen = best_candidate(plan, _results(jobs, out))
    about = {"plan": plan.name, "held_out": plan.hold_out, "seeds": args.seeds}
    about |= {"changes": candidates[chosen["candidate"]]}
    save(chosen | about, out / "selected.json")
    print(json.dumps(chosen), flush=True)
    return 0


def _final(plan: Plan, stores: list[Store], out: Path, args: argparse.Namespace) -> int:
    selected = out / "selected.json"
    candidates = AS_IT_COMES
    if selected.exists():
        chosen = json.loads(selected.read_text(encoding="utf-8"))
        candidates = {chosen["candidate"]: chosen["changes"]}
    jobs = jobs_of(plan, stores, out, args.seeds, candidates)
    _ask_once(jobs, out)
    failed = _run(jobs, out, args.workers)
    result = _collected(plan, stores, jobs, out)
    path = as_path(args.result or out / f"accuracy-{plan.name}.json")
    save(result, path)
    print(f"written to {path}", flush=True)
    return int(failed)


def _ask_once(jobs: list[Job], out: Path) -> None:
    """Refuse to ask the test people by another plan than before; more seeds of it are welcome."""
    path = out / "final.json"
    asked = [job.key for job in jobs]
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    fewer, more = sorted([before, asked], key=len)
    if not set(fewer) <= set(more):
        raise InputError(
            f"{path}: the test people were asked by another plan already; choose settings by "
            "--select, or give another --out"
        )
    save(more, path)


def _run(jobs: list[Job], out: Path, workers: int) -> bool:
    failed = run_all(jobs, out, workers, lambda line: print(line, flush=True))
    for job in failed:
        print(f"{job.key} failed: {out / 'logs' / job.key}.txt", file=sys.stderr)
    return bool(failed)


def _results(jobs: list[Job], out: Path) -> list[dict[str, Any]]:
    files = [result_file(out, job) for job in jobs]
    return [json.loads(file.read_text(encoding="utf-8")) for file in files if file.exists()]


def _collected(plan: Plan, stores: list[Store], jobs: list[Job], out: Path) -> dict[str, Any]:
    results = _results(jobs, out)
    if not results:
        raise InputError(f"no run has finished; {out / 'logs'} says why")
    found, runs = gather(results), {}
    for name, figures in found.items():
        of = [each for each in results if each["run"] == name]
        runs[name] = {
            "changes": (plan.runs[name] or {}).get("changes", []),
            "seeds": [each["seed"] for each in of],
            "steps": of[0]["steps"],
            "seconds": float(np.median([each["seconds"] for each in of])),
            "figures": {figure: summary(values) for figure, values in figures.items()},
        }
    patterns = plan.subject if len(stores) > 1 else {name: plan.subject for name in plan.data}
    clips, people = {}, {}
    for name, store in zip(plan.data, stores, strict=True):
        for split in ("train", "val"):
            key, names = f"{name} {split}" if len(stores) > 1 else split, store.split(split).names
            clips[key] = len(names)
            people[key] = sorted(set(people_of(names, patterns[name])))
    return {
        "benchmark": "accuracy",
        "plan": plan.name,
        "candidate": jobs[0].candidate,
        "recipe": plan.recipe,
        "changes": plan.changes,
        "data": ", ".join(store.meta["source"] for store in stores),
        "frame": plan.frame,
        "clips": clips,
        "people": people,
        "commits": sorted({each["commit"] for each in results}),
        **origin.describe(torch.device("cpu")),
        "threads": 1,
        "runs": runs,
        "differences": differences(plan, found),
    }
