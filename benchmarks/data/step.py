"""What share of a training step its batch takes: MS-AimCLR as the NTU recipes have it, in float32.

`batch` is the making of a step's views from clip numbers, `step` the whole step with it, in turn.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.options import positive
from benchmarks.runner import Case, Part, Setup
from msclr.config import load_recipe
from msclr.data import prepare_arrays, toy
from msclr.training.distributed import ranks_of
from msclr.training.pretrain import Pretraining

LAYOUTS = ["kinectv2_25", "smplx_42"]
CHANGES = {"queue_size": 32768}  # of the recipe


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16", "fp16"))
    parser.add_argument("--batch", type=positive, default=128, help="clips")
    parser.add_argument("--clips", type=positive, default=256, help="of the data set")


def cases(args: argparse.Namespace) -> list[Case]:
    sizes = {"op": "batch", "B": args.batch, "precision": args.precision, "clips": args.clips}
    return [Case(sizes, ("step", "batch"))]


def parts(case: Case, args: argparse.Namespace) -> Iterator[Part]:
    with tempfile.TemporaryDirectory() as folder, ranks_of(args.device) as ranks:
        data = Path(folder) / "data"
        prepare_arrays(data, **toy.generate(args.clips, layouts=LAYOUTS), frames=50, bodies=2)
        values = {
            "data": data,
            "out": Path(folder) / "run",
            "precision": args.precision,
            "device": args.device,
            "batch_size": args.batch,
            **CHANGES,
        }
        recipe = load_recipe("ntu60_xsub", [f"{key}={value}" for key, value in values.items()])
        run = Pretraining(recipe, ranks, args.device)
        steps = iter(range(10**6))

        def batch() -> None:
            step = next(steps)
            run.views(run.sampler.draw(step), step)

        yield Part({"step": lambda: run.step(next(steps)), "batch": batch})


SETUP = Setup("2 minutes", file="{device}-{precision}", rounds=5)
