"""A block of ST-GCN over packed rows: the public function."""

from __future__ import annotations

import torch
from torch import Tensor

from msclr.kernels._segments import PackedRows, strided
from msclr.kernels.block import operator
from msclr.kernels.block.check import check_arguments
from msclr.kernels.block.operator import Arguments

__all__ = ["PackedRows", "block_backend", "stgcn_block"]


def block_backend(device: torch.device, dtype: torch.dtype) -> str:
    """The backend that :func:`stgcn_block` runs on, where none is named, for rows of a dtype."""
    return operator.stgcn_block.runs_on(device, dtype)


def stgcn_block(
    x: PackedRows,
    adjacency: Tensor,
    support: Tensor,
    graph_weight: Tensor,
    graph_bias: Tensor | None,
    time_weight: Tensor,
    time_bias: Tensor,
    norms: Tensor,
    running: Tensor,
    *,
    partitions: int,
    stride: int = 1,
    residual: bool = True,
    residual_weight: Tensor | None = None,
    residual_bias: Tensor | None = None,
    training: bool = False,
    dropout: float = 0.0,
    seed: Tensor | None = None,
    block: int = 0,
    eps: float = 1e-5,
    group: str = "",
    backend: str | None = None,
) -> tuple[PackedRows, Tensor]:
    """``y = relu(dropout(BN(tconv9(relu(BN(gconv(x)))))) + residual(x))``, forward and backward.

    Args:
        x: rows of one or several joint layouts, C_in channels. Surplus rows, where it has
            ``counts``, are never read, not even in a statistic; results and gradients are 0 there.
        adjacency: (sum of K V V,), the (K, V, V) of each layout in turn, flattened.
        support: bool, of the adjacency's shape: it is 0 outside, and no gradient is wanted there.
        graph_weight: (K*C_out, C_in), and graph_bias (K*C_out,) or None, as in
            :func:`msclr.kernels.masked_graph_conv`.
        time_weight: (C_out, C_out, 9) with time_bias (C_out,): the taps of the frames t-4 .. t+4.
        norms: (4, C_out), weight and bias of the first batch norm, then of the second; (6, C_out)
            with those of the residual's where it has a weight.
        running: their running means and variances in the same order: used in place of the batch's
            unless ``training``, and not changed.
        partitions: K.
        stride: 1 or 2, of the temporal convolution over frames, and of the residual.
        residual: whether there is one; x itself, or with ``residual_weight`` (C_out, C_in) and
            ``residual_bias`` (C_out,) a 1x1 convolution with batch norm.
        training: statistics are those of all rows of the batch.
        dropout: probability; drawn from ``seed``, an int64 scalar on the CPU (None: no dropout),
            and ``block``, a number that sets blocks of one seed apart. "triton" takes a seed on
            x's device as well, which a captured CUDA graph reads when it is replayed.
        eps: of all batch norms.
        group: name of the process group whose ranks' rows statistics are over, or "".
        backend: "cpu", "triton" or "reference" (see :func:`msclr.kernels.backends`), or None for
            the fastest that can run here. The first two keep h1, h2 and y for the backward pass.

    Returns:
        y, and moments (4 or 6, C_out): mean and unbiased variance of each norm, for its running
        statistics to move to; those given where there are no rows. Gradients flow to all but
        support, running and seed.

    Raises:
        ValueError: an argument of the wrong shape, dtype or range; it is named. One row in
            training, as PyTorch's batch norm raises.

    Source: Yan et al., "Spatial Temporal Graph Convolutional Networks" (AAAI 2018).

    Code: ``kernels/block/operator.py``; ``kernels/block/fused.py``, C++ ``csrc/block/cpu.cpp`` and
    ``csrc/temporal_conv/cpu.cpp``, Triton ``kernels/block/triton_launch.py``.
    """
    arguments = Arguments(
        x.rows,
        adjacency,
        support,
        graph_weight,
        graph_bias,
        time_weight,
        time_bias,
        residual_weight,
        residual_bias,
        norms,
        running,
        seed,
        x.segments,
        partitions,
        stride,
        residual,
        training,
        dropout,
        eps,
        block,
        group,
        x.counts,
    )
    check_arguments(arguments)
    y, moments, *_ = operator.stgcn_block(backend, arguments)
    return PackedRows(y, strided(x.segments, stride), x.counts), moments
