"""Multi-view InfoNCE in plain PyTorch: the formula, pair by pair, the oracle of every backend."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from msclr.kernels.info_nce.reference import at_least_float32


def multi_view_info_nce(
    views: Tensor,
    temperature: float | Tensor,
    bank: Tensor | None,
    pairs: Sequence[tuple[int, int]],
    negatives: str,
    candidates: Tensor | None,
    first: int,
) -> Tensor:
    """See :func:`msclr.kernels.multi_view_info_nce`.

    ``candidates`` (P, N, D) are the views of all clips, of which those of ``views`` begin at
    ``first``; None stands for ``views``.
    """
    with torch.autocast(views.device.type, enabled=False):
        views = at_least_float32(views)
        clips = views if candidates is None else at_least_float32(candidates)
        bank = None if bank is None else at_least_float32(bank)
        count, batch, _ = views.shape
        own = torch.arange(first, first + batch, device=views.device)
        losses = []
        for i, j in pairs:
            anchors = views[i] / temperature
            logits = anchors @ clips[j].T  # (B, N), the positive at (b, own[b])
            blocks = [logits]
            if negatives == "batch":
                others = [v for v in range(count) if v != j]
                same_clip = torch.arange(clips.shape[1], device=views.device) == own[:, None]
                blocks += [
                    (anchors @ clips[v].T).masked_fill(same_clip, -torch.inf) for v in others
                ]
            if bank is not None:
                blocks.append(anchors @ bank.T)
            log_sum_exp = torch.cat(blocks, dim=1).logsumexp(dim=1)
            positive = logits.gather(1, own[:, None]).squeeze(1)
            losses.append((log_sum_exp - positive).mean())
        return torch.stack(losses).mean()
