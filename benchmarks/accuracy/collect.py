"""Means, spreads and paired differences of finished runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.accuracy.plan import Plan
from msclr.errors import InputError

DRAWS, LEVEL = 10_000, 0.95
Values = dict[int, float]  # seed -> top-1


def bootstrap(differences: Sequence[float], draws: int = DRAWS, seed: int = 0) -> list[float]:
    """The interval in which the middle 95 % of the means of resampled differences lie.

    The percentile bootstrap over seeds. Of five seeds it is somewhat too narrow, and it says
    nothing of how other people than those who were asked would have done.
    """
    values = np.asarray(differences, np.float64)
    picked = np.random.default_rng(seed).integers(0, len(values), (draws, len(values)))
    means = values[picked].mean(axis=1)  # (draws,)
    tail = (1 - LEVEL) / 2
    return [float(x) for x in np.quantile(means, [tail, 1 - tail], method="inverted_cdf")]


def summary(values: Values) -> dict[str, Any]:
    """Mean and standard deviation (n - 1) over the seeds, 0 of a single one."""
    numbers = np.array([values[seed] for seed in sorted(values)])
    std = float(numbers.std(ddof=1)) if len(numbers) > 1 else 0.0
    return {"mean": float(numbers.mean()), "std": std, "values": numbers.tolist()}


def gather(results: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Values]]:
    """{run: {figure: {seed: top-1}}}; figures of the random encoder begin with "random "."""
    found: dict[str, dict[str, Values]] = {}
    for each in results:
        run = found.setdefault(each["run"], {})
        figures = each["figures"] | {f"random {k}": v for k, v in each["random"].items()}
        for figure, top1 in figures.items():
            run.setdefault(figure, {})[each["seed"]] = top1
    return found


def differences(plan: Plan, found: Mapping[str, Mapping[str, Values]]) -> list[dict[str, Any]]:
    """A row for each pair of the plan's `compare`, by the seeds that both have."""
    rows = []
    for of, over in plan.compare:
        first, second = _values(found, of), _values(found, over)
        seeds = sorted(first.keys() & second.keys())
        if not seeds:
            continue
        gaps = {seed: first[seed] - second[seed] for seed in seeds}
        rows.append({"of": of, "over": over, "seeds": seeds, **summary(gaps)})
        rows[-1]["low"], rows[-1]["high"] = bootstrap(list(gaps.values()))
    return rows


def _values(found: Mapping[str, Mapping[str, Values]], name: str) -> Values:
    run, _, figure = name.partition(": ")
    if run not in found:
        return {}
    if figure not in found[run]:
        raise InputError(
            f"compare: run {run!r} has no figure {figure!r}; it has {', '.join(found[run])}"
        )
    return found[run][figure]


def best_candidate(plan: Plan, results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The candidate whose figures, averaged over runs and seeds, are highest, and all means."""
    values: dict[str, list[float]] = {}
    for each in results:
        chosen = plan.choose or [name for name in each["figures"] if name.startswith("linear ")]
        known = [each["figures"][name] for name in chosen if name in each["figures"]]
        values.setdefault(each["candidate"], []).extend(known)
    means = {name: float(np.mean(found)) for name, found in values.items() if found}
    if not means:
        raise InputError(f"no run has a figure of {', '.join(plan.choose)}, by which to choose")
    return {"candidate": max(means, key=means.__getitem__), "means": means}
