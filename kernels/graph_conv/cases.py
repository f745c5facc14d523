"""Awkward inputs of masked_graph_conv, float64 on the CPU: for tests, and to qualify backends."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from msclr.kernels._cases import Draw
from msclr.kernels.graph_conv.operator import Arguments


def graph(partitions: int, joints: int, draw: Draw) -> Tensor:
    """(K, V, V): a tree with self links, and partitions in which some joints have no neighbour."""
    parents = [int(draw.integers(0, max(w - 1, 0))) for w in range(joints)]
    a = torch.zeros(partitions, joints, joints, dtype=torch.float64)
    for w in range(joints):
        a[0, w, w] = 1
        if partitions > 1:
            a[1, parents[w], w] = 0.5
        if partitions > 2 and w % 3 == 0:
            a[2, w, parents[w]] = 0.25
        for extra in range(3, partitions):
            a[extra, (w + extra) % joints, w] = 1 / extra
    return a


def make(
    n: int,
    c_in: int,
    c_out: int,
    frames: int,
    joints: int,
    partitions: int = 3,
    counts: tuple[int, ...] = (),
    bias: bool = True,
    dense: bool = False,
) -> Arguments:
    """``counts``: the real joints of each of several layouts; what is masked is NaN."""
    draw = Draw()
    x = draw.normal(n, c_in, frames, joints).contiguous(memory_format=torch.channels_last)
    weight = draw.normal(partitions * c_out, c_in) / max(c_in, 1) ** 0.5
    adjacency = graph(partitions, joints, draw)
    index = None
    if counts:
        adjacency = torch.stack([adjacency.roll(i, 1) for i in range(len(counts))])
        index = torch.arange(n) % len(counts)
    if dense:
        adjacency = draw.normal(*adjacency.shape)
    support = None if dense else adjacency != 0
    for layout, count in enumerate(counts):
        x[layout :: len(counts), ..., count:] = float("nan")
        adjacency[layout, :, count:], adjacency[layout, :, :, count:] = float("nan"), float("nan")
    b = draw.normal(partitions * c_out) if bias else None
    return Arguments(
        x, weight, b, adjacency, index, torch.tensor(counts) if counts else None, support
    )


CASES = {
    "one joint": partial(make, 2, 3, 2, 3, 1, 1),
    "two joints, odd channels": partial(make, 1, 5, 7, 1, 2, 2),
    "17 joints, tiles with two frames and more": partial(make, 1, 3, 16, 9, 17),
    "25 joints, channels in two blocks": partial(make, 1, 33, 35, 2, 25),
    "channels in many blocks": partial(make, 1, 64, 129, 2, 17),
    "five partitions": partial(make, 2, 2, 3, 2, 9, 5),
    "six partitions, one at a time": partial(make, 1, 2, 3, 1, 4, 6),
    "more than 64 joints": partial(make, 2, 2, 3, 2, 67, 1),
    "128 joints": partial(make, 1, 1, 1, 1, 128, 1),
    "no bias": partial(make, 2, 4, 4, 3, 5, bias=False),
    "16 channels, any adjacency": partial(make, 2, 16, 16, 3, 17, 2, dense=True),
    "any adjacency": partial(make, 2, 5, 6, 3, 9, dense=True),
    "mixed layouts": partial(make, 3, 3, 4, 3, 43, 2, (25, 43)),
    "mixed layouts, one without joints": partial(make, 4, 3, 4, 2, 5, 2, (5, 0, 3)),
    "mixed layouts, any adjacency": partial(make, 4, 3, 5, 2, 9, 3, (9, 6), dense=True),
    "mixed layouts, odd channels": partial(make, 5, 5, 7, 4, 87, 3, (87, 42)),
    "no sample": partial(make, 0, 3, 4, 2, 5),
    "no sample, mixed layouts": partial(make, 0, 3, 4, 2, 5, 2, (5, 3)),
    "wide tiles of joints sorted by partition": partial(make, 5, 48, 40, 40, 42, 3, (42, 25)),
    "many frames": partial(make, 7, 32, 32, 75, 25),
}
LARGE = {  # for Triton's interpreter
    "channels in many blocks",
    "mixed layouts, odd channels",
    "wide tiles of joints sorted by partition",
    "many frames",
}
QUALIFYING = (  # tried before a backend becomes the default on a GPU
    "17 joints, tiles with two frames and more",
    "25 joints, channels in two blocks",
    "16 channels, any adjacency",
    "mixed layouts, one without joints",
    "mixed layouts, odd channels",
    "five partitions",
    "wide tiles of joints sorted by partition",
    "no sample",
)
TIMED = partial(make, 64, 32, 64, 25, 25)
