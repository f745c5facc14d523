"""Multi-view InfoNCE in plain PyTorch: the formula, pair by pair, the oracle of every backend."""

from __future__ import annotations

import torch
from torch import Tensor

from msclr.kernels._arguments import at_least_float32


def multi_view_info_nce(
    views: Tensor,
    temperature: Tensor,
    pairs: list[int],
    candidates: Tensor | None,
    first: int,
    bank: Tensor | None,
    all_views: bool,
) -> tuple[Tensor]:
    """See ``Arguments`` in operator.py and :func:`msclr.kernels.multi_view_info_nce`."""
    with torch.autocast(views.device.type, enabled=False):
        views = at_least_float32(views)
        clips = views if candidates is None else at_least_float32(candidates)
        bank = None if bank is None else at_least_float32(bank)
        count, batch, _ = views.shape
        own = torch.arange(first, first + batch, device=views.device)
        same_clip = torch.arange(clips.shape[1], device=views.device) == own[:, None]  # (B, N)
        losses = []
        for i, j in zip(pairs[::2], pairs[1::2], strict=True):
            blocks = [views[i] @ clips[j].T]  # (B, N), the positive at (b, own[b])
            if all_views:
                others = [v for v in range(count) if v != j]
                blocks += [
                    (views[i] @ clips[v].T).masked_fill(same_clip, -torch.inf) for v in others
                ]
            if bank is not None:
                blocks.append(views[i] @ bank.T)
            # Large similarities cancel before they are divided by the temperature.
            similarity = torch.cat(blocks, dim=1)
            below = similarity - similarity.detach().amax(dim=1, keepdim=True)
            none = below == -torch.inf  # divided as well, they would make a gradient NaN
            logits = (below.masked_fill(none, 0) / temperature).masked_fill(none, -torch.inf)
            positive = logits.gather(1, own[:, None]).squeeze(1)
            losses.append((logits.logsumexp(dim=1) - positive).mean())
        return (torch.stack(losses).mean(),)
