"""Dropout drawn from a counter: the same factors forward and backward, on every backend."""

from __future__ import annotations

import torch
from torch import Tensor

from msclr.kernels.augment.philox import philox

GROUP = 64  # numbers that 16 Philox blocks of 4 words make


def dropout_factors(rows: int, columns: int, p: float, seed: int, block: int) -> Tensor:
    """0 with probability p, else 1 / (1 - p), float64 (rows, columns).

    Number e of the rows, counted row by row, belongs to group ``e // 64``; with ``i = e % 64`` its
    word is number ``i // 16`` of the Philox block ``16 (e // 64) + i % 16``. Below ``p 2^32`` it is
    dropped. The counter is (block of words, group >> 28, 0, ``block``), the key the seed.
    """
    e = torch.arange(rows * columns)
    group, i = e // GROUP, e % GROUP
    counter = (
        (group % 2**28) * 16 + i % 16,
        group // 2**28,
        torch.zeros_like(e),
        torch.full_like(e, block),
    )
    words = torch.stack(philox(counter, (seed, seed >> 32)))  # (4, R C)
    word = words.gather(0, (i // 16)[None]).squeeze(0)
    keep = word >= min(round(p * 2**32), 2**32 - 1)
    return (keep.double() / (1 - p)).view(rows, columns)
