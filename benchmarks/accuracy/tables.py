"""Rows of docs/results.md from the result of `python -m benchmarks accuracy`."""

from __future__ import annotations

from typing import Any

Rows = list[list[str]]


def accuracies(result: dict[str, Any]) -> Rows:
    """A row per figure, a column per run: mean and standard deviation over the seeds."""
    runs = result["runs"]
    rows = [["figure", *(f"{name} ({_seeds(run)})" for name, run in runs.items())]]
    for figure in dict.fromkeys(key for run in runs.values() for key in run["figures"]):
        cells = [run["figures"].get(figure) for run in runs.values()]
        rows.append([figure, *("" if c is None else _spread(c) for c in cells)])
    steps = [f"{run['steps']:,}" for run in runs.values()]
    seconds = [f"{run['seconds']:.0f}" for run in runs.values()]
    return [*rows, ["steps", *steps], ["seconds per run", *seconds]]


def headline(result: dict[str, Any]) -> Rows:
    """A row per run: linear accuracy under each layout of the data, unseen ones derived."""
    runs = result["runs"]
    figures = dict.fromkeys(key for run in runs.values() for key in run["figures"])
    layouts = [name.split()[1] for name in figures if name.startswith("linear ")]
    layouts = [name for name in dict.fromkeys(layouts) if f"linear {name} derive" in figures]
    rows = [["trained on", *layouts, "ensemble"]]
    for name, run in runs.items():
        cells = []
        for layout in layouts:
            seen = run["figures"].get(f"linear {layout}")
            unseen = run["figures"].get(f"linear {layout} derive")
            cells.append(_spread(seen) if seen else f"{_spread(unseen)} *unseen*" if unseen else "")
        together = run["figures"].get("ensemble")
        rows.append([name, *cells, _spread(together) if together else ""])
    return rows


def differences(result: dict[str, Any]) -> Rows:
    """A row per comparison: the mean of the differences seed by seed, and its interval."""
    rows = [["of", "over", "seeds", "difference", "95 % interval"]]
    for each in result["differences"]:
        interval = f"{each['low']:+.1f} to {each['high']:+.1f}"
        seeds = str(len(each["seeds"]))
        rows.append([each["of"], each["over"], seeds, f"{each['mean']:+.1f}", interval])
    return rows


def _seeds(run: dict[str, Any]) -> str:
    count = len(run["seeds"])
    return f"{count} seed" + "s" * (count != 1)


def _spread(cell: dict[str, Any]) -> str:
    return (
        f"{cell['mean']:.1f} ± {cell['std']:.1f}"
        if len(cell["values"]) > 1
        else (f"{cell['mean']:.1f}")
    )
