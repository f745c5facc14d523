"""``msclr::drop_pool``: its declaration, and where the code of each backend is."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from msclr.kernels._arguments import like
from msclr.kernels._operator import Operator, define
from msclr.kernels._segments import triples
from msclr.kernels.drop_pool import reference


class Arguments(NamedTuple):
    """See :func:`msclr.kernels.drop_pool`."""

    x: Tensor  # (R, C) packed rows
    segments: list[int]  # N, T, V of each layout
    drop: bool


def _fake(x, segments, drop):
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    sizes = list(triples(segments))
    tracks, channels = sum(n for n, _, _ in sizes), x.shape[1]
    dropped = tracks if drop else 0
    return (
        x.new_empty(tracks, channels, dtype=dtype),
        x.new_empty(dropped, channels, dtype=dtype),
        x.new_empty(4, dtype=torch.float64),
        x.new_empty(dropped, 2, channels, dtype=dtype),
        x.new_empty(sum(n * v for n, _, v in sizes) if drop else 0, dtype=dtype),
    )


# Kept for the backward pass: of each track and channel its mean and 1 / (4 (var + 1e-4)), and of
# each joint whether it stays, 0 or 1.
define(
    "drop_pool",
    "(Tensor x, int[] segments, bool drop) "
    "-> (Tensor mean, Tensor dropped, Tensor counts, Tensor statistics, Tensor joints)",
    fake=_fake,
    gradients={"x": like},
    differentiable=2,
    keeps=("statistics", "joints"),
)

drop_pool = Operator(
    "drop_pool",
    reference=reference.drop_pool,
    cpu=torch.ops.msclr.drop_pool,  # csrc/drop_pool/cpu.cpp
)
