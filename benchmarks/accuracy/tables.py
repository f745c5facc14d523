"""Rows of docs/results.md from the result of `python -m benchmarks accuracy`."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

Rows = list[list[str]]


MIRRORED = "mirrored "  # what figures with mirror images begin with


def accuracies(result: dict[str, Any]) -> Rows:
    """A row per figure, a column per run: mean and standard deviation over the seeds, and in
    brackets the mean of the random encoder. Those with mirror images have their own table."""
    runs = result["runs"]
    rows = [["figure", *(f"{name} ({_seeds(run)})" for name, run in runs.items())]]
    figures = dict.fromkeys(key for run in runs.values() for key in run["figures"])
    for figure in sorted(figures, key=_rank):
        if not figure.startswith(("random ", MIRRORED)):
            rows.append([figure, *(_cell(run["figures"], figure) for run in runs.values())])
    steps = [f"{run['steps']:,}" for run in runs.values()]
    seconds = [f"{run['seconds']:.0f}" for run in runs.values()]
    return [*rows, ["steps", *steps], ["seconds per run", *seconds]]


def mirrored(result: dict[str, Any]) -> Rows:
    """The same of the figures with mirror images, and of the runs that have some."""
    runs = {}
    for name, run in result["runs"].items():
        figures = {
            k.replace(MIRRORED, "", 1): v for k, v in run["figures"].items() if MIRRORED in k
        }
        if figures:
            runs[name] = run | {"figures": figures}
    return accuracies({"runs": runs})[:-2]


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
    """A row per run: top-1 under each layout of the data, unseen ones derived, the ensemble's, and
    the ensemble's with mirror images where some run has it.

    By L-BFGS; of a run with labels, by its own classifier.
    """
    runs = result["runs"]
    figures = dict.fromkeys(key for run in runs.values() for key in run["figures"])
    pairs = [key.split()[1::2] for key in figures if key.startswith("lbfgs ") and " to " in key]
    layouts = [*dict.fromkeys(name for pair in pairs for name in pair)]  # derived ones have none
    ensembles = {"ensemble": "lbfgs ensemble"}
    if f"{MIRRORED}lbfgs ensemble" in figures:
        ensembles["with mirror images"] = f"{MIRRORED}lbfgs ensemble"
    rows = [["trained on", *layouts, *ensembles]]
    for name, run in runs.items():
        of = run["figures"]
        cells = []
        for layout in layouts:
            seen = of.get(f"lbfgs {layout}") or of.get(f"linear {layout}")
            unseen = of.get(f"lbfgs {layout} derive")
            cells.append(_spread(seen) if seen else f"{_spread(unseen)} *unseen*" if unseen else "")
        for title, figure in ensembles.items():
            each = of.get(figure) or of.get(title)
            cells.append(_spread(each) if each else "")
        rows.append([name, *cells])
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


def left_out(result: dict[str, Any]) -> Rows:
    """A row per person: mean top-1 over the encoders, plain / mirrored, and the mean of all."""
    encoders = [
        list(kinds.values()) for kinds in result["encoders"].values()
    ]  # [[plain, mirrored]]
    people = encoders[0][0]
    columns = next(iter(people.values()))
    of = {
        person: [
            [statistics.fmean(kinds[i][person][key] for kinds in encoders) for i in range(2)]
            for key in columns
        ]
        for person in people
    }
    of["mean"] = [
        [statistics.fmean(c) for c in zip(*each, strict=True)]
        for each in zip(*of.values(), strict=True)
    ]
    rows = [["person left out", *(f"{key}: plain / mirrored" for key in columns)]]
    return rows + [
        [person, *(f"{a:.1f} / {b:.1f}" for a, b in cells)] for person, cells in of.items()
    ]


def left_out_of(what: str, folder: Path) -> Rows:
    """A row per file of a folder, which is of one of `what`: the mean of each figure, plain /
    mirrored."""
    rows: Rows = []
    for path in sorted(folder.glob("*.json")):
        result = json.loads(path.read_text())
        head, *_, mean = left_out(result)
        rows = rows or [[what, "encoders", *head[1:]]]
        rows.append([path.stem, str(len(result["encoders"])), *mean[1:]])
    return rows


def mirrored_views(result: dict[str, Any]) -> Rows:
    """A row per way of training: the ensemble's mean over the seeds, plain / mirrored."""
    rows = [["trained", "seeds", "plain / mirrored"]]
    for name, run in result["runs"].items():
        means = [statistics.fmean(run[kind]["ensemble"]) for kind in ("plain", "mirrored")]
        rows.append([name, str(len(run["seeds"])), " / ".join(f"{mean:.1f}" for mean in means)])
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
