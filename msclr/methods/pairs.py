"""Which layouts of a clip are contrasted: pairs (query layout, key layout)."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from msclr.host import to_device

PAIR_MODES = ("batch", "sample", "all")


def draw_pairs(
    mode: str, layouts: int | Tensor, clips: int, uniform: Callable[[int], Tensor]
) -> tuple[Tensor, Tensor]:
    """Layout numbers of the query and the key of each clip, uniform over all L x L pairs.

    Args:
        mode: "batch" draws one pair for the batch, "sample" one for each clip.
        layouts: L, or (B,) int64, that of each clip.
        clips: B.
        uniform: uniform(n) gives n numbers in [0, 1).

    Returns:
        two int64 (B,) tensors of values in 0..L-1.
    """
    draws = uniform(1).expand(clips) if mode == "batch" else uniform(clips)
    pair = (draws * layouts**2).long().clamp(max=torch.as_tensor(layouts**2 - 1))
    return pair // layouts, pair % layouts


@functools.cache  # a CUDA graph goes on reading them
def anchored_pairs(
    anchor: Tensor, layouts: Tensor, uniform: Callable[[int], Tensor]
) -> tuple[Tensor, Tensor]:
    """As :func:`draw_pairs`, where query or key of each clip is under its layout ``anchor`` (B,).

    Which of the two is drawn for each clip, and the layout of the other out of all L (B,).
    """
    drawn = (uniform(len(anchor)) * 2 * layouts).long().clamp(max=2 * layouts - 1)
    is_key, other = drawn // layouts == 1, drawn % layouts
    return torch.where(is_key, other, anchor), torch.where(is_key, anchor, other)


def ordered_pairs(layouts: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """All (i, j), i != j, of L layouts as two index tensors; (0, 0) where there is one only."""
    i, j = np.indices((layouts, layouts)).reshape(2, -1)
    unlike = (i != j) | (layouts == 1)
    return to_device(i[unlike], device), to_device(j[unlike], device)


def pair_up(queries: Tensor, keys: Tensor, layouts: int) -> tuple[Tensor, Tensor]:
    """Queries (P, R, E) and keys (R, ..) of every ordered pair of unlike layouts of each clip."""
    if layouts == 1:
        return queries, keys
    i, j = ordered_pairs(layouts, keys.device)
    queries = queries.unflatten(1, (-1, layouts))[:, :, i].flatten(1, 2)  # (P, B*pairs, E)
    return queries, keys.unflatten(0, (-1, layouts))[:, j].flatten(0, 1)
