"""The ratios of result files as short lines: ``python -m benchmarks.summary FILE.json …``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PARTS = ("forward", "forward_backward")


def lines(result: dict[str, Any]) -> Iterator[str]:
    """One a row: its sizes, and for each part our milliseconds and the ratio to the best other."""
    for row in result.get("rows", []):
        sizes = [f"{k} {v}" for k, v in row.items() if isinstance(v, (int, str))]
        ratio = row.get("ratio", {})
        named = ratio.items() if isinstance(ratio, dict) else [("ratio", ratio)]
        ratios = [f"{name} {value:.2f}x" for name, value in named]
        yield "; ".join([" ".join(sizes), *ratios, *filter(None, map(_part, PARTS, [row] * 2))])


def _part(name: str, row: dict[str, Any]) -> str:
    if name not in row:
        return ""
    part = row[name]
    ours = f"{1e3 * part['seconds']['ours']['median']:.3f} ms {part['ratio']:.2f}x"
    return f"{name} {ours}" + (f" {part['gb_s']:.0f} GB/s" if "gb_s" in part else "")


def main() -> None:
    for path in map(Path, sys.argv[1:]):
        result = json.loads(path.read_text())
        print(path.name, result.get("device"), result.get("ceilings"))
        print(*lines(result), sep="\n")


if __name__ == "__main__":
    main()
