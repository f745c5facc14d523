"""Augmentations of whole batches of clips, as torch operations.

Clips are (B, M, T, V, 3). Random numbers come from :class:`~msclr.data.random.ClipRandom`: all of
a clip's bodies share them, the noise apart. A body that is absent (all zero) stays so.

Source: AimCLR (AAAI 2022), section 3.2 and its released code; MS-CLR (arXiv:2508.14889).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from msclr.data.random import ClipRandom

CROP_RATIO = 6
SHEAR = 0.5
ROTATION_DEGREES = 30.0
OTHER_ROTATION_DEGREES = 1.0
NOISE_SD = 0.01
BLUR_TAPS = 15
BLUR_SD = (0.1, 2.0)


def normal_view(x: Tensor, random: ClipRandom) -> Tensor:
    """Temporal crop and shear of clips (B, M, T, V, 3)."""
    return _transform(temporal_crop(x, crop_start(x, random)), shear_matrix(random))


def extreme_view(x: Tensor, random: ClipRandom, flip: Tensor) -> Tensor:
    """A normal view, then flip, rotation, noise, blur and a zeroed axis.

    Args:
        x: clips (B, M, T, V, 3).
        random: their random numbers.
        flip: int64 (V,), the layout's left-right permutation.
    """
    start, shear = crop_start(x, random), shear_matrix(random)
    x = temporal_crop(x, start)
    flipped = random.uniform(1) < 0.5  # (B, 1)
    x = torch.where(flipped[:, :, None, None, None], x[..., flip, :], x)
    x = _transform(x, rotation_matrix(random) @ shear)
    x = add_noise(x, random)
    x = temporal_blur(x, random)
    return zero_axis(x, random)


def crop_start(x: Tensor, random: ClipRandom) -> Tensor:
    """First frame of the crop in the mirrored clip: whole numbers (B,) in -pad..pad."""
    pad = x.shape[2] // CROP_RATIO
    return random.integers(1, 2 * pad + 1).squeeze(1) - pad


def temporal_crop(x: Tensor, start: Tensor) -> Tensor:
    """T frames from ``start`` (B,) on, of a clip whose ends are continued by their mirror image."""
    frames = x.shape[2]
    index = start[:, None] + torch.arange(frames, device=x.device)  # (B, T)
    index = torch.where(index < 0, -1 - index, index)
    index = torch.where(index >= frames, 2 * frames - 1 - index, index)
    return x.gather(2, index[:, None, :, None, None].expand(-1, x.shape[1], -1, *x.shape[3:]))


def shear_matrix(random: ClipRandom) -> Tensor:
    """(B, 3, 3): ones on the diagonal, U(-0.5, 0.5) off it."""
    draws = random.uniform(6, -SHEAR, SHEAR)
    matrix = torch.eye(3, device=draws.device).repeat(len(draws), 1, 1)
    i, j = (torch.eye(3) == 0).nonzero(as_tuple=True)
    matrix[:, i, j] = draws
    return matrix


def rotation_matrix(random: ClipRandom) -> Tensor:
    """(B, 3, 3): R_x R_y R_z, one axis by U(0, 30) degrees, the two others by U(0, 1)."""
    main = random.integers(1, 3)  # (B, 1)
    degrees = random.uniform(3)
    largest = torch.full_like(degrees, OTHER_ROTATION_DEGREES).scatter(1, main, ROTATION_DEGREES)
    angle = degrees * largest * (math.pi / 180)
    cos, sin = angle.cos(), angle.sin()
    x, y, z = torch.eye(3, device=angle.device).repeat(3, len(angle), 1, 1)
    for axis, matrix in enumerate((x, y, z)):
        i, j = (axis + 1) % 3, (axis + 2) % 3
        matrix[:, i, i] = matrix[:, j, j] = cos[:, axis]
        matrix[:, j, i] = sin[:, axis]
        matrix[:, i, j] = -sin[:, axis]
    return x @ y @ z


def add_noise(x: Tensor, random: ClipRandom) -> Tensor:
    """Gaussian noise of sd 0.01 on every coordinate, with probability 0.5."""
    chosen = random.uniform(1) < 0.5
    noise = random.normal(math.prod(x.shape[1:])).view_as(x).to(x.dtype) * NOISE_SD
    present = (x != 0).flatten(2).any(2)  # (B, M)
    return x + noise * (chosen & present)[:, :, None, None, None]


def temporal_blur(x: Tensor, random: ClipRandom) -> Tensor:
    """Gaussian blur over time of 15 taps and sd U(0.1, 2), ends repeated, with probability 0.5."""
    chosen = random.uniform(1) < 0.5
    sd = random.uniform(1, *BLUR_SD)
    offset = torch.arange(BLUR_TAPS, device=x.device) - BLUR_TAPS // 2
    taps = (-(offset**2) / (2 * sd**2)).softmax(1)  # (B, 15)
    taps = torch.where(chosen, taps, (offset == 0).to(taps))
    frames = x.shape[2]
    source = (torch.arange(frames, device=x.device)[:, None] + offset).clamp(0, frames - 1)
    matrix = x.new_zeros(len(x), frames, frames)  # row t: the weights of frame t's sources
    matrix.scatter_add_(
        2, source.expand(len(x), -1, -1), taps.to(x.dtype)[:, None].expand(-1, frames, -1)
    )
    return (matrix[:, None] @ x.flatten(3)).view_as(x)


def zero_axis(x: Tensor, random: ClipRandom) -> Tensor:
    """One coordinate axis set to zero, with probability 0.5."""
    chosen = random.uniform(1) < 0.5
    axis = random.integers(1, 3)
    zeroed = chosen & (torch.arange(3, device=x.device) == axis)  # (B, 3)
    return x.masked_fill(zeroed[:, None, None, None, :], 0)


def _transform(x: Tensor, matrix: Tensor) -> Tensor:
    """Every joint p becomes matrix @ p."""
    return (x.flatten(1, 3) @ matrix.to(x.dtype).transpose(1, 2)).view_as(x)
