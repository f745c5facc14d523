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

    def forward(self, rows: Tensor, there: Tensor | None = None) -> Tensor:
        """rows (R, C) -> the same shape; 0 where they are not ``there``, bool (R, 1)."""
        return _normalise(self, rows, there)


class InputNorm(nn.BatchNorm1d):
    """Batch norm of one layout's input over (V x C) features, as ST-GCN's ``data_bn``.

    Feature v*C + c is channel c of joint v; statistics are over samples and frames.
    """

    process_group = None

    def forward(self, x: Tensor, there: Tensor | None = None) -> Tensor:
        """x (N, C, T, V) -> the same shape, in channels_last memory; samples that are not
        ``there``, bool (N,), are never read, and 0."""
        n, c, t, v = x.shape
        rows = x.permute(0, 2, 3, 1).reshape(n * t, v * c)
        if there is not None:
            there = there[:, None].expand(n, t).reshape(n * t, 1)
        rows = _normalise(self, rows, there)
        return rows.view(n, t, v, c).permute(0, 3, 1, 2)


def synchronise(model: nn.Module, process_group: object | None) -> None:
    """Compute every batch statistic of ``model`` over all ranks of ``process_group``."""
    for module in model.modules():
        if isinstance(module, (BatchNorm, InputNorm)):
            module.process_group = process_group


def _normalise(norm: nn.modules.batchnorm._BatchNorm, rows: Tensor, there: Tensor | None) -> Tensor:
    """Batch norm of rows (R, C) by the module's parameters, over processes where it says so."""
    if norm.training and (norm.process_group is not None or there is not None):
        return _normalise_by_sums(norm, rows, there)
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
    y = y.permute(0, 2, 3, 1).reshape(rows.shape)
    return y if there is None else torch.where(there, y, 0)


def _normalise_by_sums(
    norm: nn.modules.batchnorm._BatchNorm, rows: Tensor, there: Tensor | None
) -> Tensor:
    """Two passes (mean, then centred squares), each summed over the ranks with its gradient.

    Rows that are not ``there`` (R, 1) are left out, and how many are is never asked for.
    """
    wide = rows.float() if rows.dtype in (torch.float16, torch.bfloat16) else rows
    if there is None:
        count = wide.new_tensor([len(rows)])
    else:
        wide, count = torch.where(there, wide, 0), there.sum(0).to(wide)
    count = _sum_over_ranks(count, norm.process_group)
    divisor = count.clamp(min=1)
    mean = _sum_over_ranks(wide.sum(0), norm.process_group) / divisor
    centred = wide - mean if there is None else torch.where(there, wide - mean, 0)
    variance = _sum_over_ranks(centred.square().sum(0), norm.process_group) / divisor
    with torch.no_grad():
        counts = norm.process_group is not None or (count > 0).view(())
        norm.num_batches_tracked.add_(counts)
        momentum = norm.momentum
        if momentum is None:
            momentum = 1.0 / norm.num_batches_tracked.clamp(min=1)
        weight = momentum * (count > 0).to(norm.running_mean)  # no rank may have a row
        unbiased = variance * count / (count - 1).clamp(min=1)
        norm.running_mean.lerp_(mean.to(norm.running_mean), weight)
        norm.running_var.lerp_(unbiased.to(norm.running_var), weight)
    y = centred * (variance + norm.eps).rsqrt() * norm.weight + norm.bias
    y = y.to(rows.dtype)
    return y if there is None else torch.where(there, y, 0)


def _sum_over_ranks(x: Tensor, process_group: object | None) -> Tensor:
    return x if process_group is None else _SumOverRanks.apply(x, process_group)


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
