"""Counter-based random numbers: what a clip gets depends on (seed, epoch, clip) alone.

Philox-4x32-10 on int64 tensors. The key is the seed; the counter is (block, clip, epoch, purpose),
so a number is a pure function of them, the same on every device, in any order and after a resume.

Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_MASK = 0xFFFFFFFF


def philox(counter: tuple[Tensor, ...], key: tuple[int, int], rounds: int = 10) -> list[Tensor]:
    """Four 32-bit words (int64 tensors of 0..2^32-1) for a counter of four words and a key."""
    c0, c1, c2, c3 = counter
    k0, k1 = (k & _MASK for k in key)
    for _ in range(rounds):
        high0, low0 = _multiply(_MULTIPLIERS[0], c0)
        high1, low1 = _multiply(_MULTIPLIERS[1], c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _KEY_STEPS[0]) & _MASK, (k1 + _KEY_STEPS[1]) & _MASK
    return [c0, c1, c2, c3]


def _multiply(a: int, b: Tensor) -> tuple[Tensor, Tensor]:
    """High and low 32 bits of a*b; int64 wraps, but its bits are those of the full product."""
    product = b * a
    return (product >> 32) & _MASK, product & _MASK


class ClipRandom:
    """Random numbers for a batch of clips.

    Args:
        clips: int64 (B,), numbers of the clips in the data set, on the device wanted.
        epochs: which pass over the data this is, one number or (B,).
        seed: of the run.
        purpose: a number that sets independent draws apart (query view, key view, ...).
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

    def normal(self, count: int) -> Tensor:
        """N(0, 1) by Box and Muller: float32 (B, count)."""
        pairs = -(-count // 2)
        words = (self._words(2 * pairs) >> 8).float()
        radius = (-2.0 * ((words[:, :pairs] + 1.0) * 2.0**-24).log()).sqrt()
        angle = words[:, pairs:] * (2.0 * math.pi * 2.0**-24)
        return torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)[:, :count]
