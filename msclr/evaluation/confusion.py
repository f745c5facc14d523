"""The picture of a confusion matrix."""

from __future__ import annotations

import io
from collections.abc import Sequence

from torch import Tensor

_NUMBERED = 12  # classes whose cells have room for numbers
_LABELLED = 60  # classes whose names can still be read


def confusion_picture(matrix: Tensor, classes: Sequence[str], title: str = "") -> bytes:
    """A PNG of a confusion matrix: rows are true classes, each coloured by its shares.

    matrix (C, C), numbers of clips; classes are C names. A row without clips stays white.
    """
    from matplotlib.figure import Figure

    count = len(classes)
    share = 100.0 * matrix.double() / matrix.sum(dim=1, keepdim=True).clamp(min=1)  # (C, C)
    side = min(max(4.5, 0.22 * count + 3.0), 18.0)
    figure = Figure((side + 1.0, side), layout="constrained", dpi=130, facecolor="white")
    axes = figure.subplots()
    image = axes.imshow(share.cpu().numpy(), cmap="Blues", vmin=0, vmax=100)
    bar = figure.colorbar(image, ax=axes, shrink=0.8, label="share of the true class (%)")
    bar.outline.set_visible(False)
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.set_title(title, fontsize=10)
    if count <= _LABELLED:
        axes.set_xticks(range(count), classes, rotation=90, fontsize=8)
        axes.set_yticks(range(count), classes, fontsize=8)
    if count <= _NUMBERED:
        for row, column in matrix.nonzero().tolist():
            dark = share[row, column] > 50
            axes.text(column, row, int(matrix[row, column]), ha="center", va="center",
                      color="white" if dark else "black", fontsize=8)  # fmt: skip
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    out = io.BytesIO()
    figure.savefig(out, format="png")
    return out.getvalue()
