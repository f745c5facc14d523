"""Packed rows in Triton: which rows a program makes and which it reads, from a small table.

Rows are those of one or several joint layouts, one segment after the other, in the order (N, T, V)
within a segment. A program takes a tile of BLOCK_M rows of one entry of the table: of a segment,
or, where rows are made from those of every second frame, of its even or its odd frames. Tables
depend on sizes alone, so they are made once and kept. Where the number of samples changes from
call to call, sizes are those of the most there may be, and ``counts`` (L,) in memory says how many
are there; rows of the others are surplus: written as 0, and never read.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from msclr.kernels._backend import interpreted
from msclr.kernels._segments import strided, triples
from msclr.kernels._triton import Types, cdiv, multiprocessors, next_power_of_2

_COLUMNS = 11
COLUMNS = tl.constexpr(_COLUMNS)
FIRST_TILE = tl.constexpr(0)
ROWS = tl.constexpr(1)  # that the entry makes
FRAMES = tl.constexpr(2)  # of a sample that the entry makes
JOINTS = tl.constexpr(3)
OWN_ROW = tl.constexpr(4)  # the segment's first row, of those made
OWN_FRAMES = tl.constexpr(5)  # of a sample, of those made
READ_ROW = tl.constexpr(6)  # the segment's first row, of those read
READ_FRAMES = tl.constexpr(7)
PARITY = tl.constexpr(8)  # the entry's first frame
GRAPH = tl.constexpr(9)  # where the segment's adjacency begins, over K
SEGMENT = tl.constexpr(10)  # its number
_NO_TILE = 2**31 - 1


class Plan(NamedTuple):
    """Tiles of rows to make."""

    table: Tensor  # (entries, _COLUMNS) int32
    tiles: int
    entries: int  # a power of two


def plan_rows(
    segments: Sequence[int], stride: int, backward: bool, block: int, device: torch.device
) -> Plan:
    """Tiles of ``block`` rows; see :func:`entries_of`."""
    return _plan(tuple(segments), stride, backward, block, device)


@functools.cache  # without a limit: a captured CUDA graph goes on reading its tables
def _plan(
    segments: tuple[int, ...], stride: int, backward: bool, block: int, device: torch.device
) -> Plan:
    entries = entries_of(segments, stride, backward)
    tiles = 0
    for entry in entries:
        entry[0] = tiles
        tiles += cdiv(entry[1], block)
    count = next_power_of_2(max(2, len(entries)))
    entries += [[_NO_TILE] + [0] * (_COLUMNS - 1)] * (count - len(entries))
    return Plan(to_device(torch.tensor(entries, dtype=torch.int32), device), tiles, count)


def entries_of(segments: Sequence[int], stride: int, backward: bool) -> list[list[int]]:
    """A table without its first column.

    Forward, rows of every ``stride``-th frame are made, and all are read. Backward it is the other
    way round, and the frames that are and are not read back are entries of their own.
    """
    entries, rows, graph = [], [0, 0], 0  # rows: of all frames, of every stride-th
    short = strided(segments, stride)
    sizes = zip(triples(segments), triples(short), strict=True)
    for number, ((n, t, v), (_, t_short, _)) in enumerate(sizes):
        frames = [t, t_short]
        own, read = (0, 1) if backward else (1, 0)
        for parity in range(stride if backward else 1):
            made = -(-(t - parity) // stride)
            entries.append([0, n * made * v, made, v, rows[own], frames[own], rows[read],
                            frames[read], parity, graph, number])  # fmt: skip
        rows = [rows[0] + n * t * v, rows[1] + n * t_short * v]
        graph += v * v
    return entries


def to_device(numbers: Tensor, device: torch.device) -> Tensor:
    """A copy that any stream may read from now on, without waiting for what runs there."""
    if device.type != "cuda":
        return numbers.to(device)
    if torch.cuda.is_current_stream_capturing():
        raise RuntimeError("a table of rows is missing: call with these sizes before a capture")
    with torch.cuda.stream(torch.cuda.Stream(device)):
        copied = numbers.pin_memory().to(device, non_blocking=True)
        torch.cuda.current_stream(device).synchronize()
    return copied


@triton.jit
def entry_of(table, tile, ENTRIES: tl.constexpr):
    """The number of a tile's entry, and where it is in the table."""
    first = tl.load(table + tl.arange(0, ENTRIES) * COLUMNS + FIRST_TILE)
    number = tl.sum((first <= tile).to(tl.int32), 0) - 1
    return number, table + number * COLUMNS


@triton.jit
def rows_there(entry, counts):
    """How many of the entry's rows are of samples that are there, all but its last ones."""
    rows = tl.load(entry + ROWS)
    if counts is not None:
        samples = tl.load(counts + tl.load(entry + SEGMENT)).to(tl.int32)
        rows = tl.minimum(rows, samples * tl.load(entry + FRAMES) * tl.load(entry + JOINTS))
    return rows


@triton.jit
def rows_of_tile(entry, counts, tile, BLOCK_M: tl.constexpr):
    """Sample, frame (of those the entry makes) and joint of each row, whether it is there, and
    whether the entry has it, if as surplus."""
    row = (tile - tl.load(entry + FIRST_TILE)) * BLOCK_M + tl.arange(0, BLOCK_M)
    joints = tl.load(entry + JOINTS)
    frames = tl.load(entry + FRAMES)
    frame = row // joints
    there = row < rows_there(entry, counts)
    return frame // frames, frame % frames, row % joints, there, row < tl.load(entry + ROWS)


@triton.jit
def places_of_rows(row, table, counts, ENTRIES: tl.constexpr):
    """Which rows are there, and their places among those; of a table of all frames made."""
    there = row < 0
    place = row
    before = 0
    for i in tl.static_range(ENTRIES):
        entry = table + i * COLUMNS
        first = tl.load(entry + OWN_ROW)
        rows = rows_there(entry, counts)
        own = (row >= first) & (row < first + rows)
        place = tl.where(own, row - first + before, place)
        there = there | own
        before += rows
    return there, place


@triton.jit
def own_rows(entry, sample, frame, joint, STRIDE: tl.constexpr):
    """The rows to make, of every STRIDE-th frame from the entry's first on."""
    t = frame * STRIDE + tl.load(entry + PARITY)
    row = (sample * tl.load(entry + OWN_FRAMES) + t) * tl.load(entry + JOINTS) + joint
    return (tl.load(entry + OWN_ROW) + row).to(tl.int64)


@triton.jit
def read_rows(entry, sample, frame, joint):
    """The rows of any frames, of those read."""
    row = (sample * tl.load(entry + READ_FRAMES) + frame) * tl.load(entry + JOINTS) + joint
    return (tl.load(entry + READ_ROW) + row).to(tl.int64)


@triton.jit
def normed_rows(
    given,  # (R, C)
    other,  # (R, C) or None
    norm,  # (2, C): scale and shift; with `other` (3, C): alpha, beta, gamma
    row,
    exists,
    c,
    channels,
    SUM: tl.constexpr,
):
    """relu(given scale + shift), or alpha given + beta other + gamma; 0 where no row exists."""
    within = c < channels
    inside = exists[:, None] & within[None, :]
    at = row[:, None] * channels + c[None, :]
    first = tl.load(norm + c, mask=within, other=0).to(SUM)[None, :]
    second = tl.load(norm + channels + c, mask=within, other=0).to(SUM)[None, :]
    made = tl.load(given + at, mask=inside, other=0).to(SUM) * first
    if other is None:
        made = made + second
        made = tl.where(made < 0, 0.0, made)  # NaN stays
    else:
        third = tl.load(norm + 2 * channels + c, mask=within, other=0).to(SUM)[None, :]
        made = made + (tl.load(other + at, mask=inside, other=0).to(SUM) * second + third)
    return tl.where(inside, made, 0)


@triton.jit
def as_operand(numbers, like, OPERAND: tl.constexpr):
    """Numbers as a product takes them: of the precision of a tensor's elements."""
    return numbers.to(like.dtype.element_ty).to(OPERAND)


@triton.jit
def store_sums(sums, tile, c, channels, first, second):
    """A tile's two sums over rows, into (tiles, 2, C)."""
    at = sums + tile.to(tl.int64) * 2 * channels + c
    tl.store(at, tl.sum(first, 0), mask=c < channels)
    tl.store(at + channels, tl.sum(second, 0), mask=c < channels)


class RowTypes:
    """What rows of ``dtype`` are multiplied and added up in.

    float32 is multiplied as three products of tf32, which are exact to float32's last bits; as one
    only where PyTorch is set so (``torch.backends.cuda.matmul``).
    """

    def __init__(self, dtype: torch.dtype):
        types = Types(dtype)
        self.half, self.sum_dtype = dtype.itemsize == 2, types.sum_dtype
        self.double = dtype == torch.float64
        self.constants = types.constants
        if dtype == torch.float32 and not types.tf32:
            self.constants = types.constants | {"PRECISION": "tf32x3"}

    def new_sums(self, like: Tensor, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=self.sum_dtype, device=like.device)

    def pick(self, half: tuple, single: tuple, double: tuple) -> tuple:
        """Of what depends on the size of an element; the interpreter takes large blocks."""
        return half if self.half or interpreted() else double if self.double else single


def splits_of(like: Tensor, tiles: int, programs_a_split: int, at_once: int) -> int:
    """Into how many shares the tiles go, for a multiprocessor to have so many programs at once."""
    return min(tiles, max(1, at_once * multiprocessors(like) // programs_a_split))
