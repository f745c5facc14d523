"""Multi-view InfoNCE in plain PyTorch: the formula, pair by pair."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from msclr.kernels.info_nce.reference import at_least_float32


def multi_view_info_nce(
    views: Tensor,
    temperature: float | Tensor,
    bank: Tensor | None,
    pairs: Sequence[tuple[int, int]] | None,
    negatives: str,
    group: object | None,
) -> Tensor:
    """See :func:`msclr.kernels.multi_view_info_nce`."""
    with torch.autocast(views.device.type, enabled=False):
        views = at_least_float32(views)
        count, batch, _ = views.shape
        clips, first = _all_clips(views, group)  # (P, W * B, D)
        own = torch.arange(first, first + batch, device=views.device)
        losses = []
        for i, j in pairs if pairs is not None else _ordered_pairs(count):
            anchors = views[i] / temperature
            logits = anchors @ clips[j].T  # (B, W * B), the positive at (b, own[b])
            blocks = [logits]
            if negatives == "batch":
                others = [v for v in range(count) if v != j]
                same_clip = torch.arange(clips.shape[1], device=views.device) == own[:, None]
                blocks += [
                    (anchors @ clips[v].T).masked_fill(same_clip, -torch.inf) for v in others
                ]
            if bank is not None:
                blocks.append(anchors @ at_least_float32(bank).T)
            log_sum_exp = torch.cat(blocks, dim=1).logsumexp(dim=1)
            positive = logits.gather(1, own[:, None]).squeeze(1)
            losses.append((log_sum_exp - positive).mean())
        return torch.stack(losses).mean()


def _ordered_pairs(count: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(count) for j in range(count) if i != j]


def _all_clips(views: Tensor, group: object | None) -> tuple[Tensor, int]:
    """The views of every rank's clips in rank order, and where this rank's begin."""
    if group is None:
        return views, 0
    from torch.distributed.nn.functional import all_gather  # differentiable

    sizes = [torch.zeros(1, dtype=torch.int64, device=views.device) for _ in range(group.size())]
    dist.all_gather(sizes, sizes[0].new_tensor([views.shape[1]]), group=group)
    if len({int(size) for size in sizes}) > 1:
        got = [int(size) for size in sizes]
        raise ValueError(f"views must hold equally many clips on every rank, got {got}")
    return torch.cat(all_gather(views.contiguous(), group=group), dim=1), (
        group.rank() * views.shape[1]
    )
