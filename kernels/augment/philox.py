"""Philox-4x32-10: random words that are a function of a counter and a key, and of nothing else."""

from __future__ import annotations

from torch import Tensor

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_MASK = 0xFFFFFFFF


def philox(counter: tuple[Tensor, ...], key: tuple[int, int], rounds: int = 10) -> list[Tensor]:
    """Four 32-bit random words for each counter, the same on every device.

    Args:
        counter: four int64 tensors of one shape, words of 0..2^32-1.
        key: two whole numbers, of which the lower 32 bits count.
        rounds: 10, the published choice.

    Returns:
        Four int64 tensors of the counter's shape, words of 0..2^32-1.

    Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
    """
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
