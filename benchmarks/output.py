"""Where a benchmark's result goes."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"


def setting(device: torch.device, backend: str | None) -> str:
    """The part of a file's name that says how: malloc's tuning on a CPU, the backend on a GPU."""
    if device.type == "cpu":
        return "tuned" if "GLIBC_TUNABLES" in os.environ else "plain"
    return backend or "default"


def save(result: dict[str, Any], name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Write a result to the file asked for, or else to results/NAME.json; print it if asked to."""
    out = args.out or RESULTS / f"{name}.json"
    out.write_text(json.dumps(result, indent=1) + "\n")
    if args.json:
        print(json.dumps(result))
    return result
