"""Multi-view InfoNCE across processes: the clips of all ranks brought together."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from msclr.kernels._arguments import at_least_float32


def with_all_clips(views: Tensor, group: dist.ProcessGroup) -> tuple[Tensor, Tensor, int]:
    """The views, those of all ranks (P, W * B, D), and where the former begin in the latter."""
    dtype, views = views.dtype, at_least_float32(views)  # both of its gradients meet in float32
    return views, _AllClips.apply(views, dtype, group), group.rank() * views.shape[1]


def check_ranks(views: Tensor, group: dist.ProcessGroup | None) -> None:
    """Raise ValueError on every rank unless all hold views of one shape.

    To be called before a rank looks at its arguments alone: if one left, the others would wait.
    """
    if group is None:
        return
    own = torch.tensor([views.dim(), *views.shape[:3], 0, 0, 0][:4], device=views.device)
    shapes = [torch.empty_like(own) for _ in range(group.size())]
    dist.all_gather(shapes, own, group=group)
    if any(not torch.equal(shape, own) for shape in shapes):
        clips = [int(shape[2]) for shape in shapes]
        if any(not torch.equal(shape[[0, 1, 3]], own[[0, 1, 3]]) for shape in shapes):
            raise ValueError(f"views must be of one shape on every rank, here {tuple(views.shape)}")
        raise ValueError(f"views must hold equally many clips on every rank, got {clips}")


class _AllClips(torch.autograd.Function):
    """(P, B, D) of each rank -> (P, W * B, D) of all in rank order, sent in the dtype given.

    The gradient of a rank's clips is the sum of what they get on every rank.
    """

    @staticmethod
    def forward(ctx, views: Tensor, dtype: torch.dtype, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        parts = views.new_empty(group.size(), *views.shape, dtype=dtype)  # (W, P, B, D)
        dist.all_gather(list(parts), views.to(dtype).contiguous(), group=group)
        return parts.transpose(0, 1).flatten(1, 2).to(views.dtype)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:
        parts = grad.unflatten(1, (ctx.group.size(), -1)).transpose(0, 1).contiguous()
        if dist.get_backend(ctx.group) == "nccl":
            own = torch.empty_like(parts[0])
            dist.reduce_scatter(own, list(parts), group=ctx.group)
        else:  # which gloo does not have
            dist.all_reduce(parts, group=ctx.group)
            own = parts[ctx.group.rank()]
        return own, None, None
