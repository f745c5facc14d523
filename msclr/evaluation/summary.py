"""Mean and standard deviation of an evaluation over runs and seeds."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import Any

# What results of one group have in common.
_ALIKE = ("protocol", "layout", "stream", "encoder", "labels", "route", "mirror")


def figures_of(result: dict[str, Any]) -> dict[str, float]:
    """The figures of a result in percent, by the names they are printed with."""
    if "by_k" in result:
        return {f"k={k}": value for k, value in result["by_k"].items()}
    if "recall_at" in result:
        recall = {f"R@{k}": value for k, value in result["recall_at"].items()}
        return {"mAP": result["map"], **recall}
    names = {"top-1": "top1", "top-5": "top5", "best epoch": "best_top1"}
    return {name: result[key] for name, key in names.items() if result[key] is not None}


def summarise(results: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Over results of one protocol, layout, stream, encoder, share of labels, route and mirror.

    Returns:
        A dictionary for each such group of two or more, in the order of the results: what they
        share, ``count``, how many results they are, ``runs`` and ``seeds``, of how many, and
        ``mean`` and ``deviation``, {figure: percent}; the deviation is that of a sample (n - 1).
    """
    groups: dict[tuple, list[dict[str, Any]]] = {}
    for result in results:
        groups.setdefault(tuple(result.get(key) for key in _ALIKE), []).append(result)
    return [_summary(group) for group in groups.values() if len(group) > 1]


def _summary(group: list[dict[str, Any]]) -> dict[str, Any]:
    figures = [figures_of(result) for result in group]
    columns = {
        name: [each[name] for each in figures]
        for name in figures[0]
        if all(name in each for each in figures)  # few training clips allow fewer k
    }
    return {key: group[0].get(key) for key in _ALIKE} | {
        "count": len(group),
        "runs": len({result["run"] for result in group}),
        "seeds": len({result.get("seed") for result in group}),
        "mean": {name: statistics.fmean(values) for name, values in columns.items()},
        "deviation": {name: statistics.stdev(values) for name, values in columns.items()},
    }
