"""Packed rows: the activations of several joint layouts, one segment after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


def triples(segments: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """N, T and V of each segment."""
    return zip(*[iter(segments)] * 3, strict=True)


def strided(segments: Sequence[int], stride: int) -> list[int]:
    """The segments that are left of every ``stride``-th frame."""
    return [k for n, t, v in triples(segments) for k in (n, -(-t // stride), v)]


def rows_in(segments: Sequence[int], stride: int = 1) -> int:
    """How many rows every ``stride``-th frame makes."""
    return sum(n * t * v for n, t, v in triples(strided(segments, stride)))


def split(rows: Tensor, segments: Sequence[int]) -> list[Tensor]:
    """Each segment's rows (R, C) as (N, C, T, V) in channels_last memory; nothing is copied."""
    sizes = list(triples(segments))
    parts = rows.split([n * t * v for n, t, v in sizes])
    return [
        part.view(n, t, v, rows.shape[1]).permute(0, 3, 1, 2)
        for part, (n, t, v) in zip(parts, sizes, strict=True)
    ]


def joined(activations: Sequence[Tensor]) -> Tensor:
    """Packed rows (R, C) of activations (N, C, T, V)."""
    rows = [x.permute(0, 2, 3, 1).reshape(-1, x.shape[1]) for x in activations]
    return rows[0] if len(rows) == 1 else torch.cat(rows)


def split_graphs(adjacency: Tensor, segments: Sequence[int], partitions: int) -> list[Tensor]:
    """Each segment's (K, V, V) of flat entries, one segment's after the other's."""
    joints = [v for _, _, v in triples(segments)]
    parts = adjacency.split([partitions * v * v for v in joints])
    return [part.view(partitions, v, v) for part, v in zip(parts, joints, strict=True)]


class PackedRows(NamedTuple):
    """Activations of one or several joint layouts as one matrix."""

    rows: Tensor  # (R, C), each layout's in the order (N, T, V)
    segments: list[int]  # N, T, V of each layout in turn

    @classmethod
    def of(cls, activations: Sequence[Tensor]) -> PackedRows:
        """Of activations (N, C, T, V); one in channels_last memory is not copied."""
        sizes = [k for x in activations for k in (x.shape[0], x.shape[2], x.shape[3])]
        return cls(joined(activations), sizes)

    def groups(self) -> list[Tensor]:
        """Each layout's as (N, C, T, V) in channels_last memory, without a copy."""
        return split(self.rows, self.segments)
