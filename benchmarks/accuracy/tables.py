"""Rows of docs/results.md from the result of `python -m benchmarks accuracy`."""

from __future__ import annotations

from typing import Any

Rows = list[list[str]]


def accuracies(result: dict[str, Any]) -> Rows:
    """A row per figure, a column per run: mean and standard deviation over the seeds, and in
    brackets the mean of the random encoder."""
    runs = result["runs"]
    rows = [["figure", *(f"{name} ({_seeds(run)})" for name, run in runs.items())]]
    figures = dict.fromkeys(key for run in runs.values() for key in run["figures"])
    for figure in sorted(figures, key=_rank):
        if not figure.startswith("random "):
            rows.append([figure, *(_cell(run["figures"], figure) for run in runs.values())])
    steps = [f"{run['steps']:,}" for run in runs.values()]
    seconds = [f"{run['seconds']:.0f}" for run in runs.values()]
    return [*rows, ["steps", *steps], ["seconds per run", *seconds]]


def _rank(figure: str) -> tuple[bool, bool, int, str]:
    """Layouts before transfers before ensembles; of each SGD, L-BFGS, neighbours."""
    kind = {"lbfgs": 1, "1nn": 2}.get(figure.split()[0], 0)
    return "ensemble" in figure, " to " in figure, kind, figure


def _cell(figures: dict[str, Any], figure: str) -> str:
    if figure not in figures:
        return ""
    random = figures.get(f"random {figure}")
    return _spread(figures[figure]) + (f" ({random['mean']:.1f})" if random else "")


def headline(result: dict[str, Any]) -> Rows:
    """A row per run: top-1 under each layout of the data, unseen ones derived, and the ensemble's.

    By L-BFGS; of a run with labels, by its own classifier.
    """
    runs = result["runs"]
    figures = dict.fromkeys(key for run in runs.values() for key in run["figures"])
    layouts = [name.split()[1] for name in figures if name.startswith("lbfgs ")]
    layouts = [name for name in dict.fromkeys(layouts) if f"lbfgs {name} derive" in figures]
    rows = [["trained on", *layouts, "ensemble"]]
    for name, run in runs.items():
        of = run["figures"]
        cells = []
        for layout in layouts:
            seen = of.get(f"lbfgs {layout}") or of.get(f"linear {layout}")
            unseen = of.get(f"lbfgs {layout} derive")
            cells.append(_spread(seen) if seen else f"{_spread(unseen)} *unseen*" if unseen else "")
        together = of.get("lbfgs ensemble") or of.get("ensemble")
        rows.append([name, *cells, _spread(together) if together else ""])
    return rows


def differences(result: dict[str, Any]) -> Rows:
    """A row per comparison: the mean of the differences seed by seed, and its interval, which a
    single seed has not."""
    rows = [["of", "over", "seeds", "difference", "95 % interval"]]
    for each in result["differences"]:
        seeds = len(each["seeds"])
        interval = f"{each['low']:+.1f} to {each['high']:+.1f}" if seeds > 1 else ""
        rows.append([each["of"], each["over"], str(seeds), f"{each['mean']:+.1f}", interval])
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
