"""Counter-based random numbers: what a clip gets depends on (seed, epoch, clip) alone.

The key of :func:`msclr.kernels.philox` is the seed; the counter is (block, clip, epoch, purpose),
so a number is a pure function of them, the same on every device, in any order and after a resume.
"""

from __future__ import annotations

import torch
from torch import Tensor

from msclr.kernels import philox

_MASK = 0xFFFFFFFF


class ClipRandom:
    """Random numbers for a batch of clips, block after block.

    Those of augmentations are drawn where they are used, in :func:`msclr.kernels.augment`; these
    are for all else that is drawn for clips.

    Args:
        clips: int64 (B,), numbers of the clips in the data set, on the device wanted.
        epochs: which pass over the data this is, one number or (B,).
        seed: of the run.
        purpose: a number that sets independent draws apart (order, pairs, ...).
    """

    def __init__(self, clips: Tensor, epochs: int | Tensor, seed: int, purpose: int = 0):
        epochs = torch.as_tensor(epochs, device=clips.device).expand_as(clips)
        self._clips, self._epochs = (clips & _MASK)[:, None], (epochs & _MASK)[:, None]
        self._key, self._purpose, self._block = (seed, seed >> 32), purpose, 0

    def _words(self, count: int) -> Tensor:
        """The next ``count`` words of every clip: int64 (B, count)."""
        blocks = -(-count // 4)
        block = torch.arange(self._block, self._block + blocks, device=self._clips.device)
        self._block += blocks
        block, clips, epochs = torch.broadcast_tensors(block, self._clips, self._epochs)
        words = philox((block, clips, epochs, torch.full_like(block, self._purpose)), self._key)
        return torch.stack(words, dim=-1).flatten(1)[:, :count]

    def uniform(self, count: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """U(low, high): float32 (B, count), from the upper 24 bits of a word each."""
        return (self._words(count) >> 8).float() * (2.0**-24 * (high - low)) + low

    def integers(self, count: int, below: int) -> Tensor:
        """Whole numbers 0..below-1: int64 (B, count)."""
        return (self._words(count) * below) >> 32
