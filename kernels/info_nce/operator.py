"""``msclr::info_nce``: its declaration, and where the code of each backend is."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from msclr.kernels._arguments import like
from msclr.kernels._operator import Operator, define
from msclr.kernels.info_nce import reference


class Arguments(NamedTuple):
    """See :func:`msclr.kernels.info_nce`; ``mined`` adds each view's top_k to the positives."""

    queries: Tensor
    keys: Tensor
    bank: Tensor | None
    temperature: Tensor
    teacher: int | None = None
    top_k: int = 0
    positives: Tensor | None = None
    mined: bool = False


MOST_COLUMNS = 1024  # in Triton, of which all sums of a tile of queries still fit the registers
MOST_NEAREST = 16  # in Triton


def misfit_of_triton(arguments: tuple) -> str:
    """Why Triton's kernels do not take these arguments; "" where they do."""
    a = Arguments(*arguments)
    if not 0 < a.queries.shape[2] <= MOST_COLUMNS:
        return f"queries must have 1..{MOST_COLUMNS} columns for triton, got {a.queries.shape[2]}"
    if not 0 <= a.top_k <= MOST_NEAREST:
        return f"top_k must lie in 0..{MOST_NEAREST} for triton, got {a.top_k}"
    return ""


def _fake(queries, keys, bank, temperature, teacher=None, top_k=0, positives=None, mined=False):
    views, batch, dim = queries.shape
    dtype = torch.float64 if queries.dtype == torch.float64 else torch.float32

    def empty(*shape):
        return queries.new_empty(shape, dtype=dtype)

    return (
        empty(views, batch),
        empty(views, batch) if teacher is not None else empty(0),
        empty(views, batch),
        queries.new_empty((views, batch, top_k), dtype=torch.int64),
        empty(views, batch, dim),
        empty(batch, dim),
        empty(views, batch),
        empty(views, batch),
    )


# What the gradient of the queries is made of is kept from the forward pass: mean (P, B, D) =
# sum_j softmax(s)_j k_j over key and bank, and positive (B, D), the mean of the positive rows. The
# bank may so change before the backward pass, as queues do, unless a gradient reads it.
# Gradients of keys and bank compute the softmax again, from largest (P, B), each query's largest
# similarity, and log_sum (P, B), log_sum_exp less the largest logit. Where T is small, log_sum_exp
# is large, and its rounding would be an error of every weight.
define(
    "info_nce",
    "(Tensor queries, Tensor keys, Tensor? bank, Tensor temperature, int? teacher=None, "
    "int top_k=0, Tensor? positives=None, bool mined=False) -> (Tensor loss, Tensor distribution, "
    "Tensor log_sum_exp, Tensor nearest, Tensor mean, Tensor positive, Tensor largest, "
    "Tensor log_sum)",
    fake=_fake,
    gradients=dict.fromkeys(("queries", "keys", "bank", "temperature"), like),
    differentiable=3,
    keeps=("nearest", "mean", "positive", "largest", "log_sum"),
    forgets=lambda wanted: () if wanted["keys"] or wanted["bank"] else ("bank",),
    triton="msclr.kernels.info_nce.triton_launch",
)

info_nce = Operator(
    "info_nce",
    reference=reference.info_nce,
    cpu=torch.ops.msclr.info_nce,  # csrc/info_nce/cpu.cpp
    triton=torch.ops.msclr.info_nce_triton,  # triton_launch.py
    supports={"triton": misfit_of_triton},
)
