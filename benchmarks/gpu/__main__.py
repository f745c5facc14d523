"""``python -m benchmarks.gpu STEP --out ROWS [--dry-run]``, a step of gpu_check.sh."""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module
from pathlib import Path

STEPS = ("machine", "operators", "training", "small", "sweep")


def main(argv: list[str]) -> int:
    """Exit status 1 where a row is an error."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("--out", type=Path, required=True, help="a line of JSON a row goes there")
    parser.add_argument("--dry-run", action="store_true", help="on the CPU, in tiny sizes")
    args = parser.parse_args(argv)
    if args.dry_run and args.step == "sweep":
        os.environ["TRITON_INTERPRET"] = "1"  # before anything of Triton's is imported
    from benchmarks.gpu.lab import Lab

    lab = Lab(args.step, args.out, args.dry_run)
    import_module(f"benchmarks.gpu.{args.step}").measure(lab)
    return int(lab.errors > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
