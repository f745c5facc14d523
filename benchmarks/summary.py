"""The ratios of result files as short lines: ``python -m benchmarks.summary FILE.json …``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.output import in_words


def lines(result: dict[str, Any]) -> Iterator[str]:
    """One a row."""
    yield from map(line, result.get("rows", []))


def line(row: dict[str, Any]) -> str:
    """Sizes; then of the row and each of its parts milliseconds, ratios, rates and memory."""
    parts = {"": row} | {name: row[name] for name in ("forward", "forward_backward") if name in row}
    figures = {name: _figures(part) for name, part in parts.items()}
    texts = [f"{name} {text}".strip() for name, text in figures.items() if text]
    return "; ".join([in_words(row), *texts])


def _figures(part: dict[str, Any]) -> str:
    key = next((key for key in part if key.startswith("seconds")), "")
    each = key.removeprefix("seconds").replace("_", " ")
    seconds = {name: of["median"] for name, of in part.get(key, {}).items()}
    ours = part.get("best_ours", "ours")
    names = [ours] if ours in seconds else list(seconds)
    found = [f"{name} {1e3 * seconds[name]:.3f} ms{each}" for name in names]
    found += [f"{ratio:.2f}x {name}".strip() for name, ratio in _ratios(part, seconds).items()]
    found += [f"{part['gb_s']:.0f} GB/s"] if "gb_s" in part else []
    found += [f"{100 * part['gemm_share']:.0f} % of GEMM"] if "gemm_share" in part else []
    memory = part.get("peak_extra_bytes", {})
    named = [name for name in (ours, part.get("best_other")) if name in memory]
    return ", ".join(found + [f"{name} {1e-6 * memory[name]:.1f} MB" for name in named])


def _ratios(part: dict[str, Any], seconds: dict[str, float]) -> dict[str, float]:
    """What ours is compared with -> how many times as long that takes; or else a pair's ratio."""
    ours = part.get("best_ours", "ours")
    if seconds and ours not in seconds:
        pairs = zip(list(seconds)[::2], list(seconds)[1::2], strict=True)
        return {f"{one} over {other}": seconds[one] / seconds[other] for one, other in pairs}
    if "best_other" in part:
        names = dict.fromkeys(n for n in (part["best_other"], "usual") if n in seconds)
        return {f"of {name}": seconds[name] / seconds[ours] for name in names}
    ratio = part.get("ratio", {})
    return ratio if isinstance(ratio, dict) else {"": ratio}


def main() -> None:
    for path in map(Path, sys.argv[1:]):
        result = json.loads(path.read_text())
        print(path.name, result.get("device"), result.get("ceilings"))
        print(*lines(result), sep="\n")


if __name__ == "__main__":
    main()
