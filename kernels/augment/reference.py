"""Augmented views of clips in plain PyTorch: the oracle of the compiled ones.

All random numbers of a view are Philox words. The key is the seed, the counter is
(block, clip, epoch, purpose), and the block says what for:

    block           word 0        word 1        word 2        word 3
    0               crop's start  shear xy      shear xz      shear yx
    1               shear yz      shear zx      shear zy      flip, or not
    2               turned axis   angle x       angle y       angle z
    3               noise or not  blur or not   blur's sd     zero an axis, or not
    4               zeroed axis
    16 + (m T + t) V + v: noise of joint v in frame t of body m
                    x's radius    its angle, y  z's radius    its angle
                                  shares both

The bodies of a clip share all but the noise. A word becomes a number of [0, 1) by its upper 24
bits, a whole number below n by the upper word of its product with n, and two words become normal
numbers by Box and Muller. Words and whole numbers are the same on every backend; coordinates are so
up to rounding.

Sources: AimCLR (AAAI 2022), section 3.2 and its released code; MS-CLR (arXiv:2508.14889).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from msclr.kernels.augment.amounts import LEAST_BLUR, Amounts, amounts_of
from msclr.kernels.augment.philox import philox

VIEWS = ("none", "normal", "extreme")
STREAMS = ("joint", "motion", "bone")
OTHER_ROTATION_DEGREES = 1.0  # or those of the main axis, if they are fewer
BLUR_TAPS = 15
SMALL_BLOCKS = 5
FIRST_NOISE_BLOCK = 16


class Draws(NamedTuple):
    """What is drawn for the views of B clips, the noise apart."""

    start: Tensor  # (B,) int64, first frame of the crop: -pad..pad
    matrix: Tensor  # (B, 3, 3) float64, of joints as columns
    flipped: Tensor  # (B,) bool
    noisy: Tensor  # (B,) bool
    taps: Tensor  # (B, 15) float64, all in the middle where there is no blur
    zeroed: Tensor  # (B,) int64, an axis or -1


def augment(
    clips: Tensor,
    index: Tensor,
    numbers: Tensor,
    epochs: Tensor,
    seed: int,
    purpose: int,
    view: int,
    flip: Tensor | None,
    stream: int,
    parents: Tensor | None,
    planar: bool,
    dtype: torch.dtype,
    amounts: Sequence[float] | None = None,
) -> Tensor:
    """(B, M, T, V, 3) of :func:`msclr.kernels.augment`; float64 clips are computed in float64."""
    view, stream = VIEWS[view], STREAMS[stream]
    x = clips.index_select(0, index)
    x = x if x.dtype == torch.float64 else x.float()  # (B, M, T, V, 3)
    if view != "none":
        counter = numbers, epochs, seed, purpose
        amounts = amounts_of(None, x.shape[2]) if amounts is None else Amounts(*amounts)
        draws = draw(*counter, x.shape[2], view == "extreme", planar, amounts)
        present = (x != 0).flatten(2).any(2)  # (B, M)
        x = temporal_crop(x, draws.start)
        if view == "extreme":
            x = torch.where(draws.flipped[:, None, None, None, None], x[..., flip, :], x)
        x = transform(x, draws.matrix)
        if view == "extreme":
            noise = normals(*counter, x.shape[1:4], x.dtype, planar)
            noisy = draws.noisy[:, None] & present  # (B, M)
            x = x + amounts.noise * noise * noisy[:, :, None, None, None]
            x = zero_axis(temporal_blur(x, draws.taps), draws.zeroed)
    return to_stream(x, stream, parents, planar).to(dtype)


def draw(
    numbers: Tensor,
    epochs: Tensor,
    seed: int,
    purpose: int,
    frames: int,
    extreme: bool,
    planar: bool,
    amounts: Amounts | None = None,
) -> Draws:
    """The small draws of views, by the table above."""
    blocks = torch.arange(SMALL_BLOCKS, device=numbers.device)
    words = random_words(blocks, numbers, epochs, seed, purpose).flatten(1)  # (B, 20)
    amounts = amounts_of(None, frames) if amounts is None else amounts
    pad = int(amounts.pad)
    start = integers(words[:, 0], 2 * pad + 1) - pad
    shear = shear_matrix(uniform(words[:, 1:7]), planar, amounts.shear)
    no = torch.zeros_like(start, dtype=torch.bool)
    if not extreme:
        return Draws(
            start, shear, no, no, blur_taps(no, uniform(words[:, 0]), LEAST_BLUR), start * 0 - 1
        )
    often = (amounts.flip, 0.5 * (amounts.noise > 0), 0.5 * (amounts.blur > 0), amounts.axis)
    flipped, noisy, blurred, zeroed = (
        uniform(words[:, i]) < p for i, p in zip((7, 12, 13, 15), often, strict=True)
    )
    rotation = rotation_matrix(
        integers(words[:, 8], 3), uniform(words[:, 9:12]), planar, amounts.rotation
    )
    axis = integers(words[:, 16], 2 if planar else 3)
    return Draws(
        start,
        rotation @ shear,
        flipped,
        noisy,
        blur_taps(blurred, uniform(words[:, 14]), max(amounts.blur, LEAST_BLUR)),
        torch.where(zeroed, axis, -1),
    )


def random_words(
    blocks: Tensor, numbers: Tensor, epochs: Tensor, seed: int, purpose: int
) -> Tensor:
    """Words of blocks (K,) of clips (B,): int64 (B, K, 4) of 0..2^32-1."""
    block, number, epoch = torch.broadcast_tensors(
        blocks & 0xFFFFFFFF, (numbers & 0xFFFFFFFF)[:, None], (epochs & 0xFFFFFFFF)[:, None]
    )
    counter = block, number, epoch, torch.full_like(block, purpose & 0xFFFFFFFF)
    return torch.stack(philox(counter, (seed, seed >> 32)), dim=-1)


def uniform(words: Tensor) -> Tensor:
    """Numbers of [0, 1), float64: the upper 24 bits, which float32 holds as well."""
    return (words >> 8).double() * 2.0**-24


def integers(words: Tensor, below: int) -> Tensor:
    """Whole numbers 0..below-1."""
    return (words * below) >> 32


def normals(
    numbers: Tensor,
    epochs: Tensor,
    seed: int,
    purpose: int,
    shape: tuple[int, int, int],
    dtype: torch.dtype,
    planar: bool,
) -> Tensor:
    """N(0, 1) for every coordinate of clips of (M, T, V) joints: (B, M, T, V, 3)."""
    blocks = FIRST_NOISE_BLOCK + torch.arange(math.prod(shape), device=numbers.device)
    words = (random_words(blocks, numbers, epochs, seed, purpose) >> 8).to(dtype)
    radius = (-2 * ((words[..., 0::2] + 1) * 2.0**-24).log()).sqrt()  # (B, M T V, 2)
    angle = words[..., 1::2] * (2 * math.pi * 2.0**-24)
    x, z = (radius * angle.cos()).unbind(-1)
    y = radius[..., 0] * angle[..., 0].sin()
    made = torch.stack([x, y, torch.zeros_like(z) if planar else z], dim=-1)
    return made.view(len(numbers), *shape, 3)


def temporal_crop(x: Tensor, start: Tensor) -> Tensor:
    """T frames from ``start`` (B,) on, of a clip whose ends are continued by their mirror image."""
    frames = x.shape[2]
    index = start[:, None] + torch.arange(frames, device=x.device)  # (B, T)
    index = torch.where(index < 0, -1 - index, index)
    index = torch.where(index >= frames, 2 * frames - 1 - index, index)
    return x.gather(2, index[:, None, :, None, None].expand(-1, x.shape[1], -1, *x.shape[3:]))


def shear_matrix(u: Tensor, planar: bool, most: float = 0.5) -> Tensor:
    """(B, 3, 3): ones on the diagonal, U(-most, most) off it, from u (B, 6) row by row.

    Of planar joints (x, y, score) x and y are sheared, the score is kept.
    """
    matrix = torch.eye(3, dtype=u.dtype, device=u.device).repeat(len(u), 1, 1)
    for k, (i, j) in enumerate([(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)]):
        if not planar or (i < 2 and j < 2):
            matrix[:, i, j] = 2 * most * u[:, k] - most
    return matrix


def rotation_matrix(main: Tensor, u: Tensor, planar: bool, most: float = 30.0) -> Tensor:
    """(B, 3, 3): R_x R_y R_z, axis ``main`` (B,) by U(0, most) degrees, the others by U(0, 1).

    Planar joints are turned as if they lay in space at z = 0, and seen along z; the score is kept.
    """
    largest = torch.full_like(u, min(OTHER_ROTATION_DEGREES, most))
    largest.scatter_(1, main[:, None], most)
    angle = u * largest * (math.pi / 180)  # (B, 3)
    cos, sin = angle.cos(), angle.sin()
    x, y, z = torch.eye(3, dtype=u.dtype, device=u.device).repeat(3, len(u), 1, 1)
    for axis, matrix in enumerate((x, y, z)):
        i, j = (axis + 1) % 3, (axis + 2) % 3
        matrix[:, i, i] = matrix[:, j, j] = cos[:, axis]
        matrix[:, j, i] = sin[:, axis]
        matrix[:, i, j] = -sin[:, axis]
    matrix = x @ y @ z
    if planar:
        matrix[:, 2], matrix[:, :, 2], matrix[:, 2, 2] = 0, 0, 1
    return matrix


def transform(x: Tensor, matrix: Tensor) -> Tensor:
    """Every joint p becomes matrix @ p."""
    return (x.flatten(1, 3) @ matrix.to(x.dtype).transpose(1, 2)).view_as(x)


def blur_taps(blurred: Tensor, u: Tensor, most: float = 2.0) -> Tensor:
    """(B, 15): a Gaussian of sd U(0.1, most) frames, of sum 1; 0 .. 1 .. 0 where not blurred."""
    sd = LEAST_BLUR + (most - LEAST_BLUR) * u
    offset = torch.arange(BLUR_TAPS, device=u.device) - BLUR_TAPS // 2
    taps = (-(offset**2) / (2 * sd[:, None] ** 2)).softmax(1)
    return torch.where(blurred[:, None], taps, (offset == 0).to(taps))


def temporal_blur(x: Tensor, taps: Tensor) -> Tensor:
    """Frame t becomes the sum over o of taps[o] x[t + o], the first and last frame repeated."""
    frames = x.shape[2]
    offset = torch.arange(BLUR_TAPS, device=x.device) - BLUR_TAPS // 2
    source = (torch.arange(frames, device=x.device)[:, None] + offset).clamp(0, frames - 1)
    matrix = x.new_zeros(len(x), frames, frames)  # row t: the weights of frame t's sources
    matrix.scatter_add_(
        2, source.expand(len(x), -1, -1), taps.to(x.dtype)[:, None].expand(-1, frames, -1)
    )
    return (matrix[:, None] @ x.flatten(3)).view_as(x)


def zero_axis(x: Tensor, zeroed: Tensor) -> Tensor:
    """Coordinate ``zeroed`` (B,) set to zero; none where that is -1."""
    axis = torch.arange(3, device=x.device) == zeroed[:, None]  # (B, 3)
    return x.masked_fill(axis[:, None, None, None, :], 0)


def to_stream(x: Tensor, stream: str, parents: Tensor | None, planar: bool) -> Tensor:
    """joint: x. motion: x[t+1] - x[t], 0 at the end. bone: x[joint] - x[parent]."""
    if stream == "joint":
        return x
    if stream == "motion":
        made = torch.zeros_like(x)
        made[:, :, :-1] = x[:, :, 1:] - x[:, :, :-1]
    else:
        made = x - x[:, :, :, parents]
    return torch.cat([made[..., :2], x[..., 2:]], dim=-1) if planar else made
