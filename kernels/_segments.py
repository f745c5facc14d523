"""Packed rows: the activations of several joint layouts, one segment after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from msclr.kernels._arguments import has_values, want


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


def present_rows(counts: Tensor, segments: Sequence[int]) -> Tensor:
    """Which rows (R,) are of samples that are there, by each segment's count; nothing is waited
    for."""
    return torch.cat(
        [
            torch.arange(n * t * v, device=counts.device) < counts[i] * (t * v)
            for i, (n, t, v) in enumerate(triples(segments))
        ]
    )


def check_counts(counts: Tensor, segments: Sequence[int]) -> None:
    """Raise ValueError unless counts are of the segments, and within them where that is seen."""
    sizes = [n for n, _, _ in triples(segments)]
    fits = counts.shape == (len(sizes),) and counts.dtype == torch.int64
    want(fits, "counts", counts, f"int64 ({len(sizes)},)")
    if has_values(counts):
        for count, size in zip(counts.numpy(), sizes, strict=True):
            if not 0 <= count <= size:
                raise ValueError(f"counts must lie in 0..N, got {count} of {size} samples")


def counted(segments: Sequence[int], counts: Tensor) -> list[int]:
    """The segments of what is there alone; counts must be on the CPU."""
    there = counts.tolist()
    return [k for c, (_, t, v) in zip(there, triples(segments), strict=True) for k in (c, t, v)]


def without_surplus(rows: Tensor, segments: Sequence[int], there: Sequence[int]) -> Tensor:
    """The rows of segments of which some samples are there, ``there``, as a matrix of their own."""
    sizes = zip(triples(segments), triples(there), strict=True)
    parts = rows.split([n * t * v for n, t, v in triples(segments)])
    kept = [p[: n * t * v] for p, (_, (n, t, v)) in zip(parts, sizes, strict=True)]
    return torch.cat(kept)


def with_surplus(rows: Tensor, segments: Sequence[int], there: Sequence[int]) -> Tensor:
    """The inverse: rows that are not there are 0."""
    made = rows.new_zeros(rows_in(segments), rows.shape[1])
    parts = made.split([n * t * v for n, t, v in triples(segments)])
    given = rows.split([n * t * v for n, t, v in triples(there)])
    for part, own in zip(parts, given, strict=True):
        part[: len(own)] = own
    return made


class PackedRows(NamedTuple):
    """Activations of one or several joint layouts as one matrix."""

    rows: Tensor  # (R, C), each layout's in the order (N, T, V)
    segments: list[int]  # N, T, V of each layout in turn
    # (L,) int64 on the rows' device: how many of each layout's N are there. Those that come after
    # are surplus, to make sizes equal: they are never computed with. None: all are there.
    counts: Tensor | None = None

    @classmethod
    def of(cls, activations: Sequence[Tensor]) -> PackedRows:
        """Of activations (N, C, T, V); one in channels_last memory is not copied."""
        sizes = [k for x in activations for k in (x.shape[0], x.shape[2], x.shape[3])]
        return cls(joined(activations), sizes)

    def there(self) -> Tensor | None:
        """bool (R, 1): which rows are no surplus; None where there is none."""
        return None if self.counts is None else present_rows(self.counts, self.segments)[:, None]

    def groups(self) -> list[Tensor]:
        """Each layout's as (N, C, T, V) in channels_last memory, without a copy."""
        return split(self.rows, self.segments)
