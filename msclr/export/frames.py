"""The frame of a body by operators of PyTorch alone: `msclr.data.skeleton.frame`, for a graph.

All is batched over bodies and over time; which joints are seen is a mask, so that no shape hangs on
what the clips hold. Tests hold it against the functions in NumPy that it follows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from msclr.data.skeleton.frame import (
    _LOWER,
    _NEARLY_ALONG,
    _ROUNDS,
    _SHORTEST,
    _SIDES,
    _TINY,
    _UPPER,
    LOOKED_AT,
)
from msclr.layouts import Layout


class Frames(NamedTuple):
    """Of B bodies: rotation (B, 3, 3), origin (B, 3), scale (B,), all float64, and found (B,) bool,
    whether the body shows what its frame needs; else the others mean nothing."""

    rotation: Tensor
    origin: Tensor
    scale: Tensor
    found: Tensor


class Places(nn.Module):
    """Weighted sums of a layout's landmarks, one for each of ``wanted`` that the layout tells.

    forward: xyz (B, T, V, 3) float64, 0 where not seen, and seen (B, T, V) bool, to the places
    (B, T, P, 3) and whether all that each needs is seen, (B, T, P) bool.
    """

    def __init__(self, layout: Layout, wanted: list[Mapping[str, float]]) -> None:
        super().__init__()
        rules = dict(layout.landmarks)
        joint = {name: v for v, name in enumerate(layout.joints)}
        rows = np.zeros((len(wanted), layout.num_joints))
        for row, landmarks in zip(rows, wanted, strict=True):
            for landmark, share in landmarks.items():
                for name, weight in rules[landmark]:
                    row[joint[name]] += share * weight
        used = [
            {joint[name] for landmark in landmarks for name, _ in rules[landmark]}
            for landmarks in wanted
        ]
        needs = np.array([[v in of for v in joint.values()] for of in used], float)
        self.register_buffer("weights", torch.from_numpy(rows))  # (P, V)
        self.register_buffer("needs", torch.from_numpy(needs.reshape(rows.shape).T.copy()))

    def forward(self, xyz: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        return self.weights @ xyz, (~seen).double() @ self.needs < 0.5


class BodyFrames(nn.Module):
    """`msclr.data.skeleton.frame.body_frame` of each body by itself.

    forward: xyz (B, T, V, 3) float64, 0 where not seen, seen (B, T, V) bool -> :class:`Frames`.
    """

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        known = dict(layout.landmarks).keys()
        self.lower, self.upper = (
            [(places, height) for places, height in candidates if places.keys() <= known]
            for candidates in (_LOWER, _UPPER)
        )
        lines = [[{f"l{part}": 1.0, f"r{part}": -1.0} for part in parts] for parts in _SIDES]
        lines = [[line for line in group if line.keys() <= known] for group in lines]
        self.sides = [len(group) for group in lines if group]
        self.blind = not (self.lower and self.upper and self.sides)
        ends = [places for places, _ in (*self.lower, *self.upper)]
        self.places = Places(layout, [*ends, *(line for group in lines for line in group)])
        for name, candidates in (("bottoms", self.lower), ("tops", self.upper)):
            heights = torch.tensor([height for _, height in candidates], dtype=torch.float64)
            self.register_buffer(name, heights)

    def forward(self, xyz: Tensor, seen: Tensor) -> Frames:
        if self.blind:
            one = torch.ones_like(xyz[:, 0, 0, 0])  # (B,)
            rotation = torch.eye(3, dtype=torch.float64, device=xyz.device) * one[:, None, None]
            return Frames(rotation, xyz[:, 0, 0], one, one < 0)
        place, ok = self.places(xyz, seen)
        ends = len(self.lower), len(self.upper), sum(self.sides)
        (lower, upper, lines), (lower_ok, upper_ok, shown) = (
            part.split(ends, dim=2) for part in (place, ok)
        )
        low, low_ok, bottom, any_low = _best(lower, lower_ok, self.bottoms)
        high, high_ok, top, any_high = _best(upper, upper_ok, self.tops)
        apart = top - bottom  # (B, 1)
        far = apart >= _SHORTEST
        torso = (high - low) / torch.where(far, apart, 1.0).unsqueeze(2)  # (B, T, 3)
        whole = (low_ok & high_ok).unsqueeze(2)  # (B, T, 1)
        hips = low - bottom.unsqueeze(2) * torso
        points = torch.cat([torch.stack([torso, hips], dim=2), lines], dim=2)  # (B, T, P, 3)
        mask = first_seen(torch.cat([whole, whole, shown], dim=2))  # (B, T, P)
        median = geometric_median(points, mask)
        up, origin, sides = median.split([1, 1, sum(self.sides)], dim=1)
        scale = masked_median(_length(torso).squeeze(2), mask.select(2, 0))  # (B,)
        there = mask.any(dim=1)  # (B, P)
        left, sided = self._left(sides, there.narrow(1, 2, sum(self.sides)))
        rotation, spans = _rotation(up.squeeze(1), left)
        ends_seen = (any_low & any_high & far).squeeze(1) & there.select(1, 0)
        return Frames(rotation, origin.squeeze(1), scale, ends_seen & sided & spans & (scale > 0))

    def _left(self, lines: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
        """From right to left (B, 3), and whether it is known (B,): the mean of the first
        group of lines (B, P, 3) of which some are there (B, P)."""
        left, found = None, None
        groups = zip(lines.split(self.sides, dim=1), there.split(self.sides, dim=1), strict=True)
        for group, some in groups:
            share = some.double().unsqueeze(2)
            mean = (group * share).sum(dim=1) / share.sum(dim=1).clamp(min=1)
            some = some.any(dim=1, keepdim=True)  # (B, 1)
            left = mean if found is None else torch.where(found, left, mean)
            found = some if found is None else found | some
        return left, found.squeeze(1)


def _best(place: Tensor, ok: Tensor, heights: Tensor) -> tuple[Tensor, ...]:
    """Of candidates (B, T, P, 3), the first that is seen at least half as often as the one seen
    most: where it is (B, T, 3), in which frames it is seen (B, T), its height (B, 1), and whether
    any is seen (B, 1)."""
    often = ok.double().sum(dim=1)  # (B, P)
    most = often.amax(dim=1, keepdim=True)
    number = torch.arange(len(heights), device=ok.device)
    first = torch.where(2 * often >= most, number, len(heights)).amin(dim=1, keepdim=True)
    chosen = number == first  # (B, P), one of them
    share = chosen.double()
    where = (place * share.unsqueeze(1).unsqueeze(3)).sum(dim=2)
    height = (heights * share).sum(dim=1, keepdim=True)
    return where, (ok & chosen.unsqueeze(1)).any(dim=2), height, most > 0


def first_seen(ok: Tensor, count: int = LOOKED_AT) -> Tensor:
    """Of a mask (B, T, ..), the first ``count`` over T."""
    return ok & (ok.long().cumsum(dim=1) <= count)


def masked_median(values: Tensor, mask: Tensor) -> Tensor:
    """The median (B,) of those values (B, T) that the mask lets through; 0 of none."""
    ordered = torch.where(mask, values, torch.inf).sort(dim=1).values
    last = mask.long().sum(dim=1, keepdim=True) - 1  # (B, 1)
    middle = ordered.gather(1, (last // 2).clamp(min=0))
    other = ordered.gather(1, ((last + 1) // 2).clamp(min=0))
    return torch.where(last >= 0, (middle + other) / 2, 0.0).squeeze(1)


def geometric_median(points: Tensor, mask: Tensor) -> Tensor:
    """Of the points (B, T, P, 3) that the mask (B, T, P) lets through, (B, P, 3); 0 of none."""
    share = mask.double().unsqueeze(3)  # (B, T, P, 1)
    count = share.sum(dim=1, keepdim=True).clamp(min=1)
    middle = (points * share).sum(dim=1, keepdim=True) / count  # (B, 1, P, 3)
    spread = (_length(points - middle) * share).sum(dim=1, keepdim=True) / count
    largest = (points.abs().amax(dim=3, keepdim=True) * share).amax(dim=1, keepdim=True)
    wide = spread > 1e-12 * largest  # (B, 1, P, 1); the others' rounds mean nothing
    shortest = torch.where(wide, 1e-3 * spread, 1.0)
    found = middle
    for _ in range(_ROUNDS):
        weight = share / torch.maximum(_length(points - found), shortest)  # (B, T, P, 1)
        found = (points * weight).sum(dim=1, keepdim=True) / weight.sum(dim=1, keepdim=True)
    return torch.where(wide, found, middle).squeeze(1)


def _rotation(up: Tensor, left: Tensor) -> tuple[Tensor, Tensor]:
    """Rows left, up and forward (B, 3, 3), and whether the two span a plane (B,)."""
    high, wide = _length(up), _length(left)  # (B, 1)
    spans = torch.minimum(high, wide) > _TINY * torch.maximum(high, wide)
    up = up / torch.where(spans, high, 1.0)
    left = left / torch.where(spans, wide, 1.0)
    left = left - (left * up).sum(dim=1, keepdim=True) * up
    across = _length(left)
    spans = spans & (across >= _NEARLY_ALONG)
    left = left / torch.where(spans, across, 1.0)
    return torch.stack([left, up, _cross(left, up)], dim=1), spans.squeeze(1)


def _cross(a: Tensor, b: Tensor) -> Tensor:
    (x, y, z), (u, v, w) = a.unbind(dim=1), b.unbind(dim=1)
    return torch.stack([y * w - z * v, z * u - x * w, x * v - y * u], dim=1)


def _length(vectors: Tensor) -> Tensor:
    """Of (..., 3), (..., 1)."""
    return (vectors * vectors).sum(dim=-1, keepdim=True).sqrt()
