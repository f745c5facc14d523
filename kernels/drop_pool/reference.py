"""The formula in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from msclr.kernels._arguments import at_least_float32
from msclr.kernels._segments import split

EPSILON = 1e-4
THRESHOLD = 0.7


def drop_pool(
    x: Tensor, segments: list[int], drop: bool, there: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Means (R, C), those after the drop (R, C) or (0, C), and counts (4,).

    ``there`` (L,) is how many samples of each segment are there; means of the others are 0.
    """
    maps = split(at_least_float32(x), segments)
    own = [None] * len(maps)  # (N, 1, 1, 1) each: which samples are there
    if there is not None:
        own = [_first(len(part), number) for part, number in zip(maps, there, strict=True)]
        maps = [torch.where(known, part, 0) for part, known in zip(maps, own, strict=True)]
    mean = torch.cat([part.mean(dim=(2, 3)) for part in maps])
    counts = torch.zeros(4, dtype=torch.float64, device=x.device)
    if not drop:
        return mean, mean[:0], counts
    dropped = []
    for part, known in zip(maps, own, strict=True):
        joint, cell = masks(part)
        dropped.append((part * joint * cell).mean(dim=(2, 3)))
        kept = [m for mask in (joint, cell) for m in _total_and_kept(mask, known)]
        counts += torch.stack(kept)
    return mean, torch.cat(dropped), counts


@torch.no_grad()
def masks(x: Tensor) -> tuple[Tensor, Tensor]:
    """Which joints (N, 1, 1, V) and which cells (N, C, T, V) stay, as 0 or 1."""
    if x.shape[2] * x.shape[3] < 2 or len(x) == 0:  # a variance of one number: nothing stays
        return x.new_zeros(len(x), 1, 1, x.shape[3]), torch.zeros_like(x)
    variance, mean = torch.var_mean(x, dim=(2, 3), keepdim=True)  # unbiased
    s = torch.sigmoid((x - mean).square() / (4 * (variance + EPSILON)) + 0.5)
    joints = s.mean(dim=(1, 2), keepdim=True) < THRESHOLD
    return joints.to(x), (s < THRESHOLD).to(x)


def _total_and_kept(mask: Tensor, known: Tensor | None) -> tuple[Tensor, Tensor]:
    all_of_it = torch.full_like(mask, 1, dtype=torch.float64)
    if known is not None:
        mask, all_of_it = mask * known, all_of_it * known
    return all_of_it.sum(), mask.sum(dtype=torch.float64)


def _first(samples: int, number: Tensor) -> Tensor:
    """Which samples (N, 1, 1, 1) are among the first ``number``."""
    return (torch.arange(samples, device=number.device) < number)[:, None, None, None]
