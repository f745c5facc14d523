"""``msclr::multi_view_info_nce``: its declaration, and where the code of each backend is."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from msclr.kernels._arguments import like
from msclr.kernels._operator import Operator, define
from msclr.kernels.multi_view import reference


class Arguments(NamedTuple):
    """See :func:`msclr.kernels.multi_view_info_nce`.

    ``candidates`` (P, N, D) are the views of all clips, of which those of ``views`` begin at
    ``first``; None means ``views``.
    """

    views: Tensor
    temperature: Tensor
    pairs: list[int]  # anchor view, key view, anchor view, ..
    candidates: Tensor | None
    first: int
    bank: Tensor | None
    all_views: bool  # the other clips' views are all negatives, not the key's view alone


MOST_COLUMNS = 512  # in Triton, of which all sums of a tile of rows still fit the registers


def misfit_of_triton(arguments: tuple) -> str:
    """Why Triton's kernels do not take these arguments; "" where they do."""
    columns = arguments[0].shape[2]
    if not 0 < columns <= MOST_COLUMNS:
        return f"views must have 1..{MOST_COLUMNS} columns for triton, got {columns}"
    return ""


def _fake(views, temperature, pairs, candidates, first, bank, all_views):
    count, batch, _ = views.shape
    dtype = torch.float64 if views.dtype == torch.float64 else torch.float32
    shapes = (), *[(count, count, batch)] * 3
    return tuple(views.new_empty(shape, dtype=dtype) for shape in shapes)


# Kept for the backward pass, (P, P, B) each, of anchor view, key view and clip: the negatives'
# log-sum-exp less the positive's logit; a similarity near the largest, the shift; and log sum
# exp((s - shift) / T) over all candidates. Apart, the last two hold what the log-sum-exp of logits
# of 1e4 would lose in float32. Without candidates the gradient of views has both its parts, as
# anchors and as candidates.
define(
    "multi_view_info_nce",
    "(Tensor views, Tensor temperature, int[] pairs, Tensor? candidates, int first, Tensor? bank, "
    "bool all_views) -> (Tensor loss, Tensor excesses, Tensor shifts, Tensor log_sums)",
    fake=_fake,
    gradients=dict.fromkeys(("views", "temperature", "candidates", "bank"), like),
    keeps=("excesses", "shifts", "log_sums"),
    triton="msclr.kernels.multi_view.triton_launch",
)

multi_view_info_nce = Operator(
    "multi_view_info_nce",
    reference=reference.multi_view_info_nce,
    cpu=torch.ops.msclr.multi_view_info_nce,  # csrc/multi_view/cpu.cpp
    triton=torch.ops.msclr.multi_view_info_nce_triton,  # triton_launch.py
    supports={"triton": misfit_of_triton},
)
