"""What share of a training step its batch takes: MS-AimCLR as the NTU recipes have it, in float32.

`batch` is the making of a step's views from clip numbers, `step` the whole step with it, in turn.
`share` is the one's time over the other's.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import describe, side_by_side
from benchmarks.output import save
from msclr.config import load_recipe
from msclr.data import prepare_arrays, toy
from msclr.training.distributed import ranks_of
from msclr.training.pretrain import Pretraining

LAYOUTS = ["kinectv2_25", "smplx_42"]


def measure(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    data = folder / "data"
    prepare_arrays(data, **toy.generate(args.clips, layouts=LAYOUTS), frames=50, bodies=2)
    values = {
        "data": data,
        "out": folder / "run",
        "precision": args.precision,
        "device": args.device,
        "batch_size": args.batch,
        "queue_size": 32768,
    }
    recipe = load_recipe("ntu60_xsub", [f"{key}={value}" for key, value in values.items()])
    device = torch.device(args.device)
    with ranks_of(device) as ranks:
        run = Pretraining(recipe, ranks, device)
        steps = iter(range(10**6))

        def batch() -> None:
            step = next(steps)
            run.views(run.sampler.draw(step), step)

        runs = {"batch": batch, "step": lambda: run.step(next(steps))}
        times = side_by_side(runs, device, args.rounds)
    return {
        "seconds": times,
        "share": times["batch"]["median"] / times["step"]["median"],
        "ratio": times["step"]["median"] / times["batch"]["median"],
    }


def main(argv: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks data step", description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16", "fp16"))
    parser.add_argument("--batch", type=int, default=128, help="clips")
    parser.add_argument("--clips", type=int, default=256, help="of the data set")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--out", type=Path, help="file to write (default: one in results/)")
    args = parser.parse_args(argv)
    device = torch.device(args.device)
    with tempfile.TemporaryDirectory() as folder:
        measured = measure(Path(folder), args)
    row = {"op": "batch", "B": args.batch, "precision": args.precision, **measured}
    result = {"benchmark": "data_step", **describe(device), "rows": [row]}
    if not args.json:
        batch, step = (measured["seconds"][n]["median"] for n in ("batch", "step"))
        print(
            f"{args.batch} clips in {args.precision}: batch {1e3 * batch:.1f} ms, "
            f"step {1e3 * step:.0f} ms: {100 * measured['share']:.2f} %"
        )
    return save(result, f"data_step-{device.type}-{args.precision}", args)


if __name__ == "__main__":
    main()
