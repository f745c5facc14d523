"""One run in a process of its own: `python -m benchmarks.accuracy.one JOB.json RESULT.json`."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks import origin
from benchmarks.accuracy.figures import figures_of_all
from benchmarks.accuracy.plan import Job
from benchmarks.accuracy.supervised import supervised
from benchmarks.output import save
from msclr.config import Recipe
from msclr.evaluation import open_run
from msclr.training import pretrain
from msclr.training.pretrain import CHECKPOINT, LOG, RECIPE


def run_one(job: Job) -> dict[str, Any]:
    """Train and evaluate; goes on from the last checkpoint of a run that was interrupted."""
    began = time.perf_counter()
    if job.supervised:
        figures, random, step = supervised(job.recipe), {}, job.recipe.steps
    else:
        recipes = [replace(job.recipe, out=f"{job.recipe.out}/{x}", stream=x) for x in job.streams]
        folders = [_trained(recipe) for recipe in recipes or [job.recipe]]
        runs, random = ([open_run(x, random=kind) for x in folders] for kind in (False, True))
        step = runs[0].step
        figures, random = (figures_of_all(each, job.data, job.mirrored) for each in (runs, random))
    return {
        "key": job.key,
        "run": job.run,
        "candidate": job.candidate,
        "seed": job.recipe.seed,
        "steps": step,
        "seconds": time.perf_counter() - began,  # of the last start
        "figures": figures,
        "random": random,
        "commit": origin.commit(),
    }


def _trained(recipe: Recipe) -> Path:
    begun = any((Path(recipe.out) / name).exists() for name in (CHECKPOINT, LOG, RECIPE))
    return pretrain(recipe, resume=begun)


def main() -> None:
    job, result = map(Path, sys.argv[1:])
    torch.set_num_threads(1)
    save(run_one(Job.from_dict(json.loads(job.read_text(encoding="utf-8")))), result)


if __name__ == "__main__":
    main()
