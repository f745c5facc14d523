"""``msclr::stgcn_block``: its declaration, and where the code of each backend is.

Activations are packed rows: those of one or several joint layouts, one segment after the other, in
the order (N, T, V) within a segment. ``segments`` lists N, T and V of each.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from msclr.kernels._arguments import like
from msclr.kernels._operator import Operator, define
from msclr.kernels._segments import rows_in
from msclr.kernels.block import reference
from msclr.kernels.temporal_conv import operator as _temporal_conv  # noqa: F401 (declares its part)


class Arguments(NamedTuple):
    """See :func:`msclr.kernels.stgcn_block`."""

    x: Tensor  # (R, C_in)
    adjacency: Tensor  # (sum of K V V,), that of each segment in turn
    support: Tensor  # bool, where it may be other than 0
    graph_weight: Tensor  # (K*C_out, C_in)
    graph_bias: Tensor | None  # (K*C_out,)
    time_weight: Tensor  # (C_out, C_out, 9)
    time_bias: Tensor  # (C_out,)
    residual_weight: Tensor | None  # (C_out, C_in); None: the residual is x, or there is none
    residual_bias: Tensor | None  # (C_out,)
    norms: Tensor  # (4 or 6, C_out): weight and bias of each batch norm, the residual's last
    running: Tensor  # (4 or 6, C_out): running mean and variance of each
    seed: Tensor | None  # int64 scalar, on the CPU or for Triton with x; None: no dropout
    segments: list[int]
    partitions: int  # K
    stride: int
    residual: bool
    training: bool
    dropout: float
    eps: float
    block: int  # a number that sets the dropout of blocks of one seed apart
    group: str  # name of the process group that statistics are over, or ""
    counts: Tensor | None = None  # (L,) int64, samples of each segment that are there; None: all


GRADIENTS = (
    "x",
    "adjacency",
    "graph_weight",
    "graph_bias",
    "time_weight",
    "time_bias",
    "residual_weight",
    "residual_bias",
    "norms",
)


def _fake(*given):
    a = Arguments(*given)
    rows_out = rows_in(a.segments, a.stride)
    channels = a.time_weight.shape[0]
    statistics = torch.float64
    return (
        a.x.new_empty(rows_out, channels),
        a.norms.new_empty(a.norms.shape),
        a.x.new_empty(a.x.shape[0], channels),
        a.x.new_empty(rows_out, channels),
        a.x.new_empty((a.norms.shape[0] // 2, 5, channels), dtype=statistics),
    )


# Kept for the backward pass: the activations before the norms, h1 and h2, the result y, and of each
# norm what became of its statistics.
define(
    "stgcn_block",
    "(Tensor x, Tensor adjacency, Tensor support, Tensor graph_weight, Tensor? graph_bias, "
    "Tensor time_weight, Tensor time_bias, Tensor? residual_weight, Tensor? residual_bias, "
    "Tensor norms, Tensor running, Tensor? seed, int[] segments, int partitions, int stride, "
    "bool residual, bool training, float dropout, float eps, int block, str group, "
    "Tensor? counts) -> (Tensor y, Tensor moments, Tensor h1, Tensor h2, Tensor folded)",
    fake=_fake,
    gradients=dict.fromkeys(GRADIENTS, like),
    keeps=("y", "h1", "h2", "folded"),
    composed="msclr.kernels.block.fused",
    triton="msclr.kernels.block.triton_launch",
)

define(
    "block_graph_conv",
    "(Tensor x, Tensor weight, Tensor? bias, Tensor adjacency, Tensor support, int[] segments, "
    "int partitions, int stride) -> (Tensor, Tensor)",
    fake=lambda x, weight, bias, adjacency, support, segments, partitions, stride: (
        x.new_empty(rows_in(segments, stride), weight.shape[0] // partitions),
        x.new_empty((2, weight.shape[0] // partitions), dtype=torch.float64),
    ),
)
define(
    "block_graph_conv_backward",
    "(Tensor d, Tensor y, Tensor coefficients, Tensor x, Tensor weight, Tensor? bias, "
    "Tensor adjacency, Tensor support, int[] segments, int partitions, int stride, "
    "Tensor? addend, Tensor? gate, bool want_x, bool want_weight, bool want_adjacency) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    fake=lambda d, y, coefficients, x, weight, bias, adjacency, *_: (
        like(x),
        like(weight),
        x.new_empty(0) if bias is None else like(bias),
        like(adjacency),
    ),
)
# The norm number `place`: of its sums, its mean, reciprocal deviation, scale, shift and number of
# rows, folded (P, 5, C), and its mean and unbiased variance, two rows of moments (2 P, C).
define(
    "block_fold",
    "(Tensor sums, Tensor norms, Tensor running, int place, int rows, float eps, "
    "Tensor(a!) folded, Tensor(b!) moments) -> ()",
    fake=lambda *_: None,
)
# Of the sums (2, C) of d and d h, those of this process and those of all: alpha, beta and gamma
# (3, C) of the gradient, and the gradients of weight and bias, two rows of of_norms (2 P, C).
define(
    "block_norm_backward",
    "(Tensor folded, Tensor sums, Tensor total, int place, Tensor(a!) of_norms) -> Tensor",
    fake=lambda folded, *_: folded.new_empty(3, folded.shape[2]),
)
define(
    "block_output",
    "(Tensor h, Tensor scale, Tensor shift, Tensor? residual, Tensor? r_scale, Tensor? r_shift, "
    "float dropout, Tensor? seed, int block) -> Tensor",
    fake=lambda h, *_: like(h),
)
define(
    "block_output_backward",
    "(Tensor dy, Tensor y, Tensor h, Tensor? residual, float dropout, Tensor? seed, int block) "
    "-> (Tensor, Tensor, Tensor)",
    fake=lambda dy, y, h, residual, *_: (
        like(h),
        h.new_empty(h.shape[0] if residual is not None else 0, h.shape[1]),
        h.new_empty((4, h.shape[1]), dtype=torch.float64),
    ),
)

stgcn_block = Operator(
    "stgcn_block",
    reference=reference.stgcn_block,
    cpu=torch.ops.msclr.stgcn_block,  # fused.py
    triton=torch.ops.msclr.stgcn_block_triton,  # triton_launch.py
)
