"""The demo: the library's main job on a generated data set, end to end."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msclr.config import load_recipe
from msclr.data import prepare_arrays
from msclr.data.prepare.steps import fill_gaps, seen_joints
from msclr.data.store import open_store, require_free
from msclr.data.toy import generate
from msclr.evaluation import evaluate_ensemble, open_run, report
from msclr.evaluation.page import Picture
from msclr.evaluation.run_report import curve, embeddings
from msclr.paths import as_path
from msclr.training import pretrain

CLIPS, FRAMES = 1200, 32
_WARM_UP, _TIMED = 2, 5  # steps of pretraining that the forecast leaves out, and goes by
_EVALUATION = 30  # as many steps take about as long as evaluation and pictures
PRETRAINED_ON = ("kinectv2_25", "smplx_42")


def run_demo(
    out: str | Path, seed: int, say: Callable[[str], None], on_step: Callable | None = None
) -> dict[str, Any]:
    """Generate, prepare, pretrain on two layouts, evaluate; leaves a report page in ``out``.

    Args:
        out: a folder to make.
        seed: of the data, the initialisation and the run.
        say: takes a line for the user, now and then.
        on_step: see :func:`msclr.training.pretrain`.

    Returns:
        accuracies by encoder and layout, the seconds taken, and a ``summary`` to read.

    Raises:
        InputError: ``out`` exists and is not empty.
    """
    out, began = as_path(out), time.perf_counter()
    require_free(out)
    out.mkdir(parents=True, exist_ok=True)
    say(f"1/4  {CLIPS} generated clips, seen under {' and '.join(PRETRAINED_ON)}")
    prepare_arrays(
        out / "data", **generate(CLIPS, seed, PRETRAINED_ON), frames=FRAMES, source="generated"
    )
    say("2/4  pretraining MS-AimCLR (recipe toy)")
    overrides = [f"data={out / 'data'}", f"out={out / 'run'}", f"seed={seed}"]
    forecast = _Forecast(began, say, on_step)
    run_folder = pretrain(load_recipe("toy", overrides), on_step=forecast, say=say)
    say("3/4  linear evaluation, next to a randomly initialised encoder")
    results = {
        kind: evaluate_ensemble([open_run(run_folder, random=kind == "random")], PRETRAINED_ON)
        for kind in ("pretrained", "random")
    }
    say("4/4  pictures and report")
    rows = _table(results)
    seconds = time.perf_counter() - began
    page = _report(out, run_folder, rows, seed, seconds)
    figures = {"seed": seed, "seconds": round(seconds, 1), "page": str(page), **_figures(results)}
    (out / "figures.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return figures | {"summary": _summary(rows, page, run_folder)}


class _Forecast:
    """Times the first steps, and says how long everything will take on this machine."""

    def __init__(self, began: float, say: Callable[[str], None], on_step: Callable | None):
        self._began, self._say, self._on_step = began, say, on_step

    def __call__(self, done: int, steps: int, records: list) -> None:
        now = time.perf_counter()
        if done == _WARM_UP:
            self._since = now
        elif done == _WARM_UP + _TIMED:
            a_step = (now - self._since) / _TIMED
            left = a_step * (steps - done + _EVALUATION)
            minutes = (now - self._began + left) / 60
            self._say(f"     about {minutes:.0f} minutes in all here, at {a_step:.2f} s a step")
        if self._on_step:
            self._on_step(done, steps, records)


def _figures(results: dict[str, dict]) -> dict[str, dict[str, float]]:
    """Top-1 in percent: {encoder: {layout or "ensemble": value}}."""
    return {
        kind: {m["layout"]: m["top1"] for m in result["members"]} | {"ensemble": result["top1"]}
        for kind, result in results.items()
    }


def _table(results: dict[str, dict]) -> list[list[str]]:
    figures = _figures(results)
    rows = [["linear evaluation, top-1 %", "pretrained", "random encoder", "gain"]]
    for name, value in figures["pretrained"].items():
        random = figures["random"][name]
        rows.append([name, f"{value:.1f}", f"{random:.1f}", f"{value - random:+.1f}"])
    return rows


def _report(out: Path, run_folder: Path, rows: list, seed: int, seconds: float) -> Path:
    run = open_run(run_folder)
    layouts = open_store(out / "data", verify=False).layouts
    pictures = [
        ("Loss", curve(run_folder / "log.csv", out)),
        *embeddings(run, PRETRAINED_ON, out, seed),
        ("One clip under each convention", _draw(generate(1, seed), out / "clip.png")),
    ]
    text = (
        f"MS-AimCLR pretrained for {run.step} steps on {CLIPS} generated clips seen under "
        f"{' and '.join(layouts)}; no labels were used. The linear classifiers were trained on "
        f"frozen features of the training subjects and tested on other subjects. "
        f"Seed {seed}; {seconds:.0f} s in all."
    )
    sections = [("What this is", text), ("Accuracy", rows), *pictures]
    return report.write_page(out, "msclr demo", sections)


def _draw(clip: dict, path: Path) -> Picture:
    from msclr import layouts

    views = {name: fill_gaps(x, seen_joints(x)) for name, (x,) in clip["views"].items()}
    report.draw_clip(views, {name: layouts.get(name) for name in views}, path)
    alt = (
        "A generated clip as stick figures, evenly spaced frames from left to right, a row for "
        f"each of {', '.join(views)}"
    )
    return Picture(path, alt)


def _summary(rows: list[list[str]], page: Path, run_folder: Path) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    table = "\n".join(
        "  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(pairs))
        for pairs in (list(zip(row, widths, strict=True)) for row in rows)
    )
    return f"{table}\n\nreport: {page}\npictures: {page.parent}\nlog and checkpoint: {run_folder}"
