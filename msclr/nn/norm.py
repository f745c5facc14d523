"""Batch normalisation over packed rows, and over processes.

Statistics are over each row (n, t, v) of each layout, so no joint is padded and none counts twice.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn


class BatchNorm(nn.BatchNorm2d):
    """BatchNorm2d over packed rows (R, C), whatever layouts they are of.

    Parameters and buffers are unchanged. ``process_group``: where set, the batch is that of all
    ranks of the group.
    """

    process_group = None

    def forward(self, rows: Tensor) -> Tensor:
        """rows (R, C) -> the same shape."""
        return _normalise(self, rows)


class InputNorm(nn.BatchNorm1d):
    """Batch norm of one layout's input over (V x C) features, as ST-GCN's ``data_bn``.

    Feature v*C + c is channel c of joint v; statistics are over samples and frames.
    """

    process_group = None

    def forward(self, x: Tensor) -> Tensor:
        """x (N, C, T, V) -> the same shape, in channels_last memory."""
        n, c, t, v = x.shape
        rows = x.permute(0, 2, 3, 1).reshape(n * t, v * c)
        rows = _normalise(self, rows)
        return rows.view(n, t, v, c).permute(0, 3, 1, 2)


def synchronise(model: nn.Module, process_group: object | None) -> None:
    """Compute every batch statistic of ``model`` over all ranks of ``process_group``."""
    for module in model.modules():
        if isinstance(module, (BatchNorm, InputNorm)):
            module.process_group = process_group


def _normalise(norm: nn.modules.batchnorm._BatchNorm, rows: Tensor) -> Tensor:
    """Batch norm of rows (R, C) by the module's parameters, over processes where it says so."""
    if norm.training and norm.process_group is not None:
        return _normalise_across(norm, rows)
    if norm.training and len(rows) == 0:
        return rows
    if norm.training and norm.track_running_stats:
        norm.num_batches_tracked.add_(1)
    momentum = norm.momentum
    if momentum is None:  # a cumulative average
        momentum = 1.0 / max(int(norm.num_batches_tracked), 1)
    y = F.batch_norm(
        # (1, C, R, 1) in channels_last memory is fastest. By these very strides: of rows.t(), whose
        # unit dimensions have others, PyTorch 2.13 computes wrong gradients.
        rows.reshape(1, len(rows), 1, rows.shape[1]).permute(0, 3, 1, 2),
        norm.running_mean,
        norm.running_var,
        norm.weight,
        norm.bias,
        training=norm.training,
        momentum=momentum,
        eps=norm.eps,
    )
    return y.permute(0, 2, 3, 1).reshape(rows.shape)


def _normalise_across(norm: nn.modules.batchnorm._BatchNorm, rows: Tensor) -> Tensor:
    """Two passes (mean, then centred squares), each summed over the ranks with its gradient."""
    wide = rows.float() if rows.dtype in (torch.float16, torch.bfloat16) else rows
    count = _sum_over_ranks(wide.new_tensor([len(rows)]), norm.process_group)
    divisor = count.clamp(min=1)
    mean = _sum_over_ranks(wide.sum(0), norm.process_group) / divisor
    centred = wide - mean
    variance = _sum_over_ranks(centred.square().sum(0), norm.process_group) / divisor
    with torch.no_grad():
        norm.num_batches_tracked.add_(1)
        momentum = norm.momentum
        if momentum is None:
            momentum = 1.0 / int(norm.num_batches_tracked)
        weight = momentum * (count > 0).to(norm.running_mean)  # no rank may have a row
        unbiased = variance * count / (count - 1).clamp(min=1)
        norm.running_mean.lerp_(mean.to(norm.running_mean), weight)
        norm.running_var.lerp_(unbiased.to(norm.running_var), weight)
    y = centred * (variance + norm.eps).rsqrt() * norm.weight + norm.bias
    return y.to(rows.dtype)


def _sum_over_ranks(x: Tensor, process_group: object) -> Tensor:
    return _SumOverRanks.apply(x, process_group)


class _SumOverRanks(torch.autograd.Function):
    """Each rank's x enters every rank's sum, so its gradient is the sum of all ranks' gradients."""

    @staticmethod
    def forward(ctx, x: Tensor, process_group: object) -> Tensor:
        ctx.process_group = process_group
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=process_group)
        return total

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=ctx.process_group)
        return total, None
