"""Pictures and a page to look at after a run: loss curve, embedding, clips, `report.html`.

matplotlib and scikit-learn are imported when a picture is drawn, not before. Pictures are drawn on
a figure of their own, so neither the backend nor the style of the caller's matplotlib is touched.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from msclr.errors import InputError
from msclr.evaluation.metrics import check_features, check_labels
from msclr.evaluation.page import write_page
from msclr.paths import as_path

if TYPE_CHECKING:
    from msclr.layouts import Layout

__all__ = ["draw_clip", "embedding_plot", "loss_curve", "write_page"]

_LOSS, _ACCURACY, _GRID = "#2b6cb0", "#c05621", "#e2e8f0"
# Left side, middle and right side of a body; a further body starts over.
_BODIES = (("#63b3ed", "#4a5568", "#1a4f8b"), ("#f6ad55", "#7b6a58", "#b7410e"))
_MAX_POINTS = 1500  # of an embedding; t-SNE of more takes minutes and shows little more
_MAX_LEGEND = 20  # classes that colours can tell apart


def loss_curve(csv_path: str | Path, out_png: str | Path) -> Path:
    """Draws the loss (left axis, raw and smoothed) and the accuracy of the contrast over the steps.

    `csv_path` is the log of a pretraining run: a header naming at least step, loss and
    contrast_accuracy (0 to 1; drawn in percent), then a row per logged step. Smoothed means a
    centred moving average over a fiftieth of the rows. The first step is left out where others
    follow: it is measured against a queue of noise, and would squeeze the rest. Returns `out_png`.

    Raises InputError for a file that is absent or empty, a missing column, or a cell that is no
    number.
    """
    columns = _read_columns(as_path(csv_path), ("step", "loss", "contrast_accuracy"))
    if len(columns[0]) > 2 and columns[0][0] <= 1:
        columns = [column[1:] for column in columns]
    step, loss, accuracy = columns
    accuracy = 100 * accuracy
    figure = _figure(8.0, 4.2)
    left = figure.subplots()
    left.plot(step, loss, color=_LOSS, alpha=0.25, linewidth=0.8)
    (loss_line,) = left.plot(step, _smooth(loss), color=_LOSS, linewidth=1.8, label="loss")
    left.set(xlabel="step", title="Pretraining")
    left.set_ylabel("loss", color=_LOSS)

    right = left.twinx()
    right.plot(step, accuracy, color=_ACCURACY, alpha=0.2, linewidth=0.8)
    (accuracy_line,) = right.plot(
        step, _smooth(accuracy), color=_ACCURACY, linewidth=1.8, label="contrast accuracy"
    )
    right.set_ylabel("contrast accuracy (%)", color=_ACCURACY)
    right.set_ylim(bottom=0)

    left.grid(color=_GRID)
    for axes in (left, right):
        axes.spines[["top", "left", "right"]].set_visible(False)
        axes.tick_params(length=0)
    figure.legend(handles=[loss_line, accuracy_line], loc="outside lower center", ncols=2,
                  frameon=False)  # fmt: skip
    return _save(figure, out_png)


def embedding_plot(
    features: Tensor,
    labels: Tensor,
    classes: Sequence[str],
    out_png: str | Path,
    seed: int = 0,
    title: str = "Embedding",
    what: str = "classes",
) -> Path:
    """Draws a t-SNE map of features, a colour per class, or per what else the labels are of.
    Returns `out_png`.

    features (N, D) float with N >= 3 and D >= 2, labels (N,) integers below len(classes). Features
    are normalised first, so that distance means angle, as in the contrast. Of more than 1,500 clips
    that many are drawn, chosen with `seed`. More than 20 classes get no legend.

    Raises InputError for features or labels that do not fit together or are too few.
    """
    features = check_features(features)
    labels = check_labels(labels, len(features), len(classes))
    if len(features) < 3 or features.shape[1] < 2:
        raise InputError(
            f"an embedding plot of shape {tuple(features.shape)}; wanted 3 clips or more of 2 or "
            "more features"
        )
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(seed))
    chosen = order[:_MAX_POINTS].sort().values
    points = _tsne(features.cpu()[chosen], seed)  # (n, 2)
    labels = labels.cpu().numpy()[chosen.numpy()]

    figure = _figure(8.0, 6.4)
    axes = figure.subplots()
    present = np.unique(labels)
    colours = _class_colours(len(classes))
    for label in present:
        own = points[labels == label]
        axes.scatter(own[:, 0], own[:, 1], s=16, color=colours[label], linewidths=0, alpha=0.8,
                     label=classes[label])  # fmt: skip
    axes.set(title=title, xticks=[], yticks=[])
    axes.margins(0.03)
    axes.spines[:].set_color(_GRID)
    axes.set_xlabel(f"t-SNE of {len(points):,} clips, {len(present)} {what}", color="#718096")
    if len(present) <= _MAX_LEGEND:
        figure.legend(loc="outside right center", frameon=False, markerscale=1.8, fontsize=9)
    return _save(figure, out_png)


def draw_clip(
    views: Mapping[str, Tensor | np.ndarray],
    layouts: Mapping[str, "Layout"],
    out_png: str | Path,
    frames: int = 5,
    up: str | Mapping[str, str] = "y",
) -> Path:
    """Draws one clip as a strip: a row per convention, evenly spaced frames from left to right.

    views: {layout name: (M, T, V, 3)} in metres, one T for all; layouts: {layout name: Layout}.
    Seen along a horizontal axis, the one that shows bodies widest, in parallel projection; each row
    keeps its scale over time. `up` is the axis that points up, "x", "y" or "z", or "-y" and so on
    for one that points down; one for all conventions, or {layout name: axis} with "y" for those it
    does not name. A frame in which all joints of a body are 0 lacks that body. At most T frames are
    drawn. Returns `out_png`.

    Raises InputError for shapes that do not fit the layouts or each other, or an unknown axis.
    """
    views = {name: np.asarray(view) for name, view in views.items()}
    length = _check_clip(views, layouts, frames)
    shown = np.linspace(0, length - 1, min(frames, length)).round().astype(int)
    flat = {
        name: _project(view[:, shown], up if isinstance(up, str) else up.get(name, "y"))
        for name, view in views.items()
    }

    windows = {name: _window(clip) for name, clip in flat.items()}
    tallest = max(size[1] / size[0] for _, size in windows.values())
    shape = min(max(tallest, 0.6), 1.5)  # height to width of every box
    figure = _figure(2.0 * len(shown) + 0.6, 2.0 * shape * len(flat) + 0.7)
    grid = figure.subplots(len(flat), len(shown), squeeze=False)
    for row, (name, clip) in zip(grid, flat.items(), strict=True):
        for column, axes in enumerate(row):
            for body, joints in enumerate(clip[:, column]):
                if np.any(joints):
                    _draw_body(axes, joints, layouts[name], _BODIES[body % len(_BODIES)])
            _frame(axes, *windows[name], shape)
        row[0].set_ylabel(name, fontsize=11)
    for axes, frame in zip(grid[0], shown, strict=True):
        axes.set_title(f"frame {frame}", fontsize=10, color="#4a5568")
    bodies = max(len(clip) for clip in flat.values())
    figure.legend(handles=_body_legend(bodies), loc="outside lower center", frameon=False,
                  ncols=2 * min(bodies, len(_BODIES)), fontsize=9)  # fmt: skip
    return _save(figure, out_png)


# Figures


def _figure(width: float, height: float):
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", dpi=130, facecolor="white")


def _save(figure, out_png: str | Path) -> Path:
    picture = io.BytesIO()  # drawn whole before the file is touched
    figure.savefig(picture, format="png")
    out_png = as_path(out_png)
    out_png.parent.mkdir(parents=True, exist_ok=True)
    out_png.write_bytes(picture.getvalue())
    return out_png


# Loss curve


def _read_columns(path: Path, names: Sequence[str]) -> list[np.ndarray]:
    if not path.is_file():
        raise InputError(f"{path}: no such log; it is written by pretraining")
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = [name for name in names if name not in (reader.fieldnames or ())]
        rows = list(reader)
    if missing or not rows:
        lack = f"lacks the column {missing[0]}" if missing else "has no row yet"
        wanted = f"a header with {', '.join(names)} and a row per step"
        raise InputError(f"{path}: the log {lack}; wanted {wanted}")
    columns: list[list[float]] = [[] for _ in names]
    for line, row in enumerate(rows, start=2):
        for name, column in zip(names, columns, strict=True):
            try:
                column.append(float(row[name]))
            except (TypeError, ValueError):  # a cell that is absent is None
                raise InputError(
                    f"{path}:{line}: {name} is {row[name]!r}; wanted a number"
                ) from None
    return [np.array(column) for column in columns]


def _smooth(values: np.ndarray) -> np.ndarray:
    """Centred moving average over a fiftieth of the values; the window is cut off at the ends."""
    window = np.ones(2 * (len(values) // 100) + 1)
    counts = np.convolve(np.ones(len(values)), window, mode="same")
    return np.convolve(values, window, mode="same") / counts


# Embedding


def _tsne(features: Tensor, seed: int) -> np.ndarray:
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    features = torch.nn.functional.normalize(features, dim=1)
    # The usual start, by principal components, divides by their spread: a collapsed encoder has
    # none.
    spread = features.std(dim=0).max().item()
    mapping = TSNE(
        perplexity=min(30.0, (len(features) - 1) / 3),
        init="pca" if spread > 1e-6 else "random",
        random_state=seed,
    )
    # Three threads and more add up in any order, and t-SNE makes another picture of the last bits.
    with threadpool_limits(1):
        return mapping.fit_transform(features.numpy())


def _class_colours(count: int) -> np.ndarray:
    """(count, 4) colours; neighbours differ in lightness as well as in hue."""
    import matplotlib

    if count <= _MAX_LEGEND:
        twenty = matplotlib.colormaps["tab20"].colors
        strong_first = [*twenty[0::2], *twenty[1::2]]
        return np.array(strong_first[:count])
    return matplotlib.colormaps["turbo"](np.linspace(0.03, 0.97, count))


# Clips


def _check_clip(
    views: Mapping[str, np.ndarray], layouts: Mapping[str, "Layout"], frames: int
) -> int:
    """The number of frames of the clip, or an InputError."""
    if not views or frames < 1:
        raise InputError(f"draw_clip: {len(views)} views, {frames} frames; wanted one or more each")
    for name, view in views.items():
        if name not in layouts:
            raise InputError(f"draw_clip: no layout for the view {name!r}; got {list(layouts)}")
        joints = layouts[name].num_joints
        if view.shape[2:] != (joints, 3) or 0 in view.shape:
            raise InputError(
                f"draw_clip: the view {name} has shape {view.shape}; wanted (M, T, {joints}, 3)"
            )
    lengths = {name: view.shape[1] for name, view in views.items()}
    if len(set(lengths.values())) > 1:
        raise InputError(f"draw_clip: views have {lengths} frames; wanted the same number in all")
    return next(iter(lengths.values()))


def _project(clip: np.ndarray, up: str) -> np.ndarray:
    """(M, T, V, 3) to (M, T, V, 2): across and up."""
    axis = up.removeprefix("-")
    if axis not in ("x", "y", "z"):
        raise InputError(f"draw_clip: up is {up!r}; wanted x, y or z, or one of them after a minus")
    vertical = "xyz".index(axis)
    spread = np.ma.masked_invalid(clip).std(axis=2)  # (M, T, 3) of the joints of a body
    breadth = spread.mean(axis=(0, 1))  # (3,)
    breadth[vertical] = -1.0
    flat = clip[..., [int(breadth.argmax()), vertical]].astype(float)
    if up != axis:
        flat[..., 1] *= -1
    return flat


def _sides(layout: "Layout") -> list[int]:
    """0 for a left joint, 1 for the middle, 2 for a right one."""
    side = {name: 2 * place for pair in layout.mirror_pairs for place, name in enumerate(pair)}
    return [side.get(name, 1) for name in layout.joints]


def _draw_body(axes, joints: np.ndarray, layout: "Layout", colours: Sequence[str]) -> None:
    sides = _sides(layout)
    for child, parent in layout.bone_indices:
        ends = joints[[child, parent]]  # (2, 2)
        axes.plot(ends[:, 0], ends[:, 1], color=colours[sides[child]], linewidth=1.8,
                  solid_capstyle="round", zorder=1)  # fmt: skip
    axes.scatter(joints[:, 0], joints[:, 1], s=7, c=[colours[side] for side in sides], zorder=2,
                 linewidths=0)  # fmt: skip


def _window(clip: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centre (2,) and size (2,) of what a clip (M, T, V, 2) fills over all its frames."""
    drawn = clip[np.any(clip, axis=(2, 3))].reshape(-1, 2)
    drawn = drawn[np.isfinite(drawn).all(axis=1)]
    if len(drawn) == 0:
        drawn = np.zeros((1, 2))
    low, high = drawn.min(axis=0), drawn.max(axis=0)
    margin = 0.12 * (high - low).max() + 1e-3
    return (low + high) / 2, high - low + margin


def _frame(axes, centre: np.ndarray, size: np.ndarray, shape: float) -> None:
    """Shows the window, grown on one side to the shape of the box."""
    width = max(size[0], size[1] / shape)
    half = np.array([width, width * shape]) / 2
    (left, bottom), (right, top) = centre - half, centre + half
    axes.set(xlim=(left, right), ylim=(bottom, top), xticks=[], yticks=[], aspect="equal")
    axes.spines[:].set_color(_GRID)


def _body_legend(bodies: int) -> list:
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], color=colours[index], linewidth=2.5, label=f"body {body}, {side}")
        for body, colours in enumerate(_BODIES[:bodies], start=1)
        for index, side in ((0, "left"), (2, "right"))
    ]
