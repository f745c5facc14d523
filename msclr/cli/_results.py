"""Lines that say what an evaluation found."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from msclr.evaluation.summary import figures_of

_FILES = {"npz": "scores", "csv": "confusion matrix", "png": "its picture"}


def line_of(result: dict[str, Any], show: Collection[str] = ()) -> str:
    """The line of a result; ``show`` names keys that tell it from others, such as "run"."""
    about = [result["stream"], result["encoder"]]
    about += [f"seed {result[key]}" if key == "seed" else str(result[key]) for key in show]
    if result["protocol"] == "semi":
        about.append(f"{result['labelled_clips']} labelled clips")
    if result.get("solver", "sgd") != "sgd":
        about.append(result["solver"])
    about += ["mirror"] if result.get("mirror") else []
    head = f"{result['protocol']} {result['layout']} ({', '.join(about)})"
    if result["encoder"] == "pretrained" and not result["seen_in_pretraining"]:
        head += ", unseen"
    figures = {name: f"{value:.1f} %" for name, value in figures_of(result).items()}
    if "by_k" in result or "recall_at" in result:
        between = ": " if "by_k" in result else " "
        return f"{head}: " + ", ".join(f"{k}{between}{value}" for k, value in figures.items())
    worst = sorted((v, k) for k, v in result["per_class"].items() if v is not None)[:3]
    best = ""
    if "best epoch" in figures:
        best = f" (best epoch {result['best_epoch']}: {figures['best epoch']})"
    return (
        f"{head}: top-1 {figures['top-1']}, top-5 {figures['top-5']}{best}; weakest classes "
        + ", ".join(f"'{name}' {value:.0f} %" for value, name in worst)
    )


def line_of_summary(summary: dict[str, Any]) -> str:
    """The line of mean and standard deviation."""
    about = f"{summary['stream']}, {summary['encoder']}"
    if summary["protocol"] == "semi":
        about += f", labels {summary['labels']:g}"
    figures = (
        f"{name} {mean:.1f} ± {summary['deviation'][name]:.1f} %"
        for name, mean in summary["mean"].items()
    )
    of = ", ".join(
        f"{count} {what}{'s' if count > 1 else ''}"
        for count, what in ((summary["runs"], "run"), (summary["seeds"], "seed"))
    )
    head = f"mean of {summary['count']} ({of})"
    return f"{head}: {summary['protocol']} {summary['layout']} ({about}): {', '.join(figures)}"


def lines_of_files(result: dict[str, Any]) -> list[str]:
    """Where what was asked for next to the result is kept."""
    return [f"{_FILES[kind]}: {path}" for kind, path in result["files"].items() if kind in _FILES]
