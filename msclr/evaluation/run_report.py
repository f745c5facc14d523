"""`msclr report`: a page about a run, made from what lies in its folder and from its data."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from msclr.data.store import open_store
from msclr.errors import InputError
from msclr.evaluation import report
from msclr.evaluation.confusion import confusion_picture
from msclr.evaluation.knn import knn
from msclr.evaluation.page import Content, Picture, Table
from msclr.evaluation.run import Run, open_run
from msclr.evaluation.splits import SplitFeatures, data_layouts, distinct, features_of

PICTURES = "report"  # the folder of a run that they lie in
# What a result says of itself, and what the table has columns for; other numbers are figures.
_TOLD = {"seed", "epochs", "lr", "batch_size", "step", "seen_in_pretraining", "best_epoch", "top1"}
_TOLD |= {"top5", "best_top1", "best_top5"}
_MAX_CLIPS = 1500  # whose neighbours are looked for among clips of several layouts


def write_report(
    folder: str | Path, device: str | None = None, say: Callable[[str], None] = lambda text: None
) -> Path:
    """Write RUN/report.html, with pictures in RUN/report/, and return its path.

    folder: of a run. device: "cpu", "cuda" or "auto", for the features; None for the recipe's.
    say: takes a line for the user.

    Curves are those of log.csv, accuracies those of the results in RUN/evaluation/. The t-SNE maps
    and the clip are of the run's data; where these are gone, the page says so.

    Raises InputError for a folder without a run, and what `loss_curve` refuses.
    """
    run = open_run(folder, device=device)
    pictures = run.folder / PICTURES
    results = read_results(run.folder)
    sections: list[tuple[str, Content]] = [("What this is", _about(run))]
    sections += [("Accuracies", part) for part in accuracies(results, run)]
    sections += [("Confusion matrix", part) for part in confusion(results, pictures)]
    sections.append(("Curves", curve(run.folder / "log.csv", pictures)))
    sections.append(("Speed", _speed(run)))
    say("features and t-SNE of the validation clips")
    sets = run.recipe.data if isinstance(run.recipe.data, list) else [run.recipe.data]
    for number, data in enumerate(sets):
        of = f" of {data}" if len(sets) > 1 else ""
        sections += [(f"{heading}{of}", x) for heading, x in _of_data(run, data, pictures, number)]
    sections.append(("Settings", _settings(run)))
    return report.write_page(run.folder, f"Run {run.folder.resolve().name}", sections)


def _of_data(run: Run, data: str, pictures: Path, number: int) -> list[tuple[str, Content]]:
    """What is to be seen of the clips of a data set; of the first, pictures have no number."""
    folder = pictures / str(number) if number else pictures
    try:
        return [
            *embeddings(run, data_layouts(run, data), folder, data=data),
            ("One clip under each convention", draw_first_clip(data, folder / "clip.png")),
        ]
    except InputError as error:
        return [("Embeddings", f"The data cannot be shown: {error}.")]


def read_results(folder: Path) -> list[dict[str, Any]]:
    """The results in a run's folder, each with ``name``, that of its file; those that are no
    results are left out."""
    found = []
    for path in sorted((folder / "evaluation").glob("*.json")):
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(result, dict) and "protocol" in result:
            found.append({**result, "name": path.stem})
    return found


def accuracies(results: Sequence[dict[str, Any]], run: Run) -> list[Content]:
    """A table of the figures of results, one of the commands behind them, and their notes."""
    if not results:
        return [f"Nothing has been evaluated yet: msclr evaluate linear {run.folder}"]
    rows: list[list[Any]] = [
        ["evaluation", "top-1 %", "top-5 %", "best top-1 %", "further figures"]
    ]
    rows += [
        [x["name"], *map(_figure, (x.get("top1"), x.get("top5"), x.get("best_top1"))), _further(x)]
        for x in results
    ]
    content: list[Content] = [rows]
    stale = [x["name"] for x in results if x.get("step", run.step) not in (run.step, 0)]
    if stale:
        content.append(
            f"Of an earlier step than the run's {run.step}: {', '.join(stale)}; evaluate again."
        )
    commands = [[x["name"], x["command"]] for x in results if "command" in x]
    if commands:
        content.append([["evaluation", "command"], *commands])
    notes = [f"{x['name']}: {note}." for x in results for note in x.get("notes", ())]
    return [*content, *(["\n\n".join(notes)] if notes else [])]


def _figure(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _further(result: dict[str, Any]) -> str:
    """Numbers of a result that the table has no column for."""
    parts = []
    for key, value in result.items():
        if key in _TOLD or "per_class" in key:
            continue
        of = value if isinstance(value, dict) else {"": value}
        parts += [
            f"{key} {name}: {x:.4g}" if name else f"{key} {x:.4g}"
            for name, x in of.items()
            if isinstance(x, float)
        ]
    return ", ".join(parts)


def confusion(results: Sequence[dict[str, Any]], pictures: Path) -> list[Content]:
    """The confusion matrix of the best result of the pretrained encoder that has one."""
    having = [x for x in results if x.get("confusion") and x.get("per_class")]
    having = [x for x in having if x.get("encoder") == "pretrained"]
    if not having:
        return []
    best = max(having, key=lambda x: x["top1"])
    matrix, classes = torch.tensor(best["confusion"]), list(best["per_class"])
    path = pictures / "confusion.png"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(confusion_picture(matrix, classes, f"{best['name']}: {best['top1']:.1f} %"))
    apart = matrix - torch.diag(matrix.diag())
    often = f"A matrix of true and predicted classes of {best['name']}, top-1 {best['top1']:.1f} %"
    if apart.any():
        true, taken = divmod(int(apart.argmax()), len(classes))
        often += f"; most often, {classes[true]} is taken for {classes[taken]}"
    return [Picture(path, often)]


def curve(log: Path, pictures: Path) -> Picture:
    """The picture of loss and contrast accuracy."""
    picture = report.loss_curve(log, pictures / "loss.png")
    rows = _log(log)
    first, last = rows[min(1, len(rows) - 1)], rows[-1]
    alt = (
        f"Loss and contrast accuracy over the steps: the loss goes from {float(first['loss']):.2f} "
        f"at step {first['step']} to {float(last['loss']):.2f} at step {last['step']}; the "
        f"contrast accuracy ends at {100 * float(last['contrast_accuracy']):.0f} %"
    )
    return Picture(picture, alt)


def embeddings(
    run: Run, layouts: Sequence[str], pictures: Path, seed: int = 0, data: str | None = None
) -> list[tuple[str, Picture]]:
    """t-SNE maps of validation clips, of the run's data unless others are given: under the first
    layout by class, under all that the encoder knows by layout."""
    known = [name for name in layouts if name in run.layouts] or list(layouts[:1])
    features = {name: features_of(run, name, data) for name in known}
    first = features[known[0]]
    (right,) = knn(*first.split, [1]).values()
    title = f"{known[0]}: the nearest training clip is of the same class for {right:.1f} %"
    by_class = report.embedding_plot(
        first.val, first.val_labels, distinct(first.classes), pictures / "classes.png", seed, title
    )
    alt = f"t-SNE map of validation clips, coloured by class. {title}"
    made = [("Embeddings by class", Picture(by_class, alt))]
    return made + ([_by_layout(features, pictures, seed)] if len(known) > 1 else [])


def _by_layout(
    features: dict[str, SplitFeatures], pictures: Path, seed: int
) -> tuple[str, Picture]:
    together = torch.cat([of.val for of in features.values()])
    number = torch.cat([torch.full((len(of.val),), i) for i, of in enumerate(features.values())])
    share = same_layout(together, number)
    title = f"The nearest other clip is under the same layout for {share:.1f} %"
    path = report.embedding_plot(
        together, number, list(features), pictures / "layouts.png", seed, title, "layouts"
    )
    alt = f"t-SNE map of validation clips, coloured by layout. {title}"
    return "Embeddings by layout", Picture(path, alt)


def same_layout(features: Tensor, layouts: Tensor) -> float:
    """How many of the clips (N, D) have a nearest other one of their own layout (N,), in percent;
    of more than 1,500 clips, that many are looked at, evenly spread."""
    rows = torch.linspace(0, len(features) - 1, min(len(features), _MAX_CLIPS)).round().long()
    x = torch.nn.functional.normalize(features.cpu()[rows].double(), dim=1)
    nearest = (x @ x.T).fill_diagonal_(-2.0).argmax(dim=1)
    own = layouts.cpu()[rows]
    return 100.0 * (own[nearest] == own).double().mean().item()


def draw_first_clip(data: str | Path, path: Path) -> Picture:
    """The first validation clip of prepared data, else the first clip, under each layout."""
    store = open_store(data, verify=False)
    part = store.split("val") if len(store.split("val")) else store.split("train")
    if not len(part):
        raise InputError(f"{store.path} holds no clip")
    bodies, planar = np.asarray(part.bodies[0]), store.coordinates == "xy_score"
    views = {name: np.array(part.views[name][0][bodies]) for name in store.layouts}
    for view in views.values() if planar else ():
        view[..., 2] = 0  # a score is no place
    up = "-y" if planar else "y"
    picture = report.draw_clip(views, store.layouts, path, up=up)
    what = store.classes[int(part.labels[0])]
    alt = (
        f"The clip {part.names[0]!r} of class {what!r} as stick figures, evenly spaced frames from "
        f"left to right, a row for each of {', '.join(views)}"
    )
    return Picture(picture, alt)


def _about(run: Run) -> str:
    recipe, seen = run.recipe, ", ".join(run.layouts)
    count = sum(p.numel() for p in run.encoder.parameters())
    return (
        f"{recipe.method} pretrained for {run.step:,} steps on clips of {_text(recipe.data)} seen "
        f"under {seen}; no labels were used. The encoder is an ST-GCN of {count:,} parameters and "
        f"{run.encoder.hidden_dim} features."
    )


def _speed(run: Run) -> Content:
    rates = [float(row["clips_per_second"]) for row in _log(run.folder / "log.csv")]
    rate = median(rates)
    if not rate > 0:
        return "The log says nothing of the speed."
    step = run.recipe.batch_size / rate
    return [
        ["clips per second (median)", "seconds per step", "steps", "hours in all", "device"],
        [rate, step, run.step, step * run.step / 3600, run.recipe.device],
    ]


def _settings(run: Run) -> Table:
    return [["key", "value"], *([key, _text(value)] for key, value in asdict(run.recipe).items())]


def _text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(part)}" for key, part in value.items())
    if isinstance(value, float):
        return f"{value:.6g}"
    return ", ".join(map(_text, value)) if isinstance(value, list | tuple) else str(value)


def _log(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
