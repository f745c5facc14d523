"""Which bodies an encoder computes, in sizes of which there are few, so that steps are alike.

How many bodies a batch has changes from step to step, and with it every size in the encoder, which
a CUDA graph cannot have. So their number is rounded up: the last tracks of a layout are surplus,
and a count on the device says from where on. They are in no statistic, and are not computed.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from msclr.host import to_device

_LEAST_STEP, _STEPS = 8, 8  # of sizes between a power of two and the next: under 1/8 is surplus


class Tracks(NamedTuple):
    """The bodies of one layout's clips (N, .., M) that are computed; the last may be surplus."""

    index: Tensor  # (S,) int64: which of the N * M bodies each is
    clip: Tensor  # (S,) int64: whose it is, of the N clips
    share: Tensor  # (S, 1) float64: 1 / its clip's bodies; 0 of surplus
    count: Tensor  # (1,) int64: how many are no surplus

    def there(self) -> Tensor:
        """bool (S,): which are no surplus."""
        return torch.arange(len(self.index), device=self.index.device) < self.count


def capacity(number: int) -> int:
    """The least size of the few there are that holds so many."""
    step = max(_LEAST_STEP, 2 ** (max(number, 1) - 1).bit_length() // (2 * _STEPS))
    return -(-max(number, 1) // step) * step


def tracks_of(present: np.ndarray, device: torch.device) -> Tracks:
    """Of bodies that are ``present`` (N, M), bool on the host; copied to the device at once."""
    index = np.flatnonzero(present)
    count, size = len(index), capacity(len(index))
    table = np.zeros(3 * size + 1, np.int64)
    clip = index // present.shape[1]
    table[:count], table[size : size + count] = index, clip
    share = 1.0 / present.sum(1)[clip]
    table[2 * size : 2 * size + count] = share.view(np.int64)  # bits: one copy for all
    table[-1] = count
    there = to_device(table, device)
    index, clip, share, count = there.split([size, size, size, 1])
    return Tracks(index, clip, share.view(torch.float64)[:, None], count)
