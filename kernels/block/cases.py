"""Awkward inputs of stgcn_block, float64 on the CPU: for tests, and to qualify backends."""

from __future__ import annotations

from functools import partial

import torch

from msclr.kernels._cases import Draw
from msclr.kernels._segments import present_rows, rows_in, triples
from msclr.kernels.block.operator import Arguments
from msclr.kernels.graph_conv.cases import graph


def make(
    c_in: int,
    c_out: int,
    segments: list[int],
    *,
    partitions: int = 3,
    stride: int = 1,
    residual: bool = True,
    training: bool = True,
    dropout: float = 0.0,
    bias: bool = True,
    counts: list[int] | None = None,
) -> Arguments:
    """``segments``: N, T and V of each layout. A residual has a weight where shapes differ.

    ``counts``: how many of each N are there; the rows of the others are NaN.
    """
    draw, k = Draw(), partitions
    graphs = [graph(k, v, draw).flatten() for _, _, v in triples(segments)]
    adjacency = torch.cat(graphs)
    weighted = residual and (c_in != c_out or stride != 1)
    norms = 6 if weighted else 4
    x = draw.normal(rows_in(segments), c_in)
    given = None if counts is None else torch.tensor(counts)
    if counts is not None:
        x[~present_rows(given, segments)] = torch.nan
    return Arguments(
        x,
        adjacency,
        adjacency != 0,
        draw.normal(k * c_out, c_in) / c_in**0.5,
        draw.normal(k * c_out) if bias else None,
        draw.normal(c_out, c_out, 9) / (9 * c_out) ** 0.5,
        draw.normal(c_out),
        draw.normal(c_out, c_in) / c_in**0.5 if weighted else None,
        draw.normal(c_out) if weighted else None,
        draw.normal(norms, c_out) + 1,
        draw.normal(norms, c_out).abs() + 0.5,
        torch.tensor(2**40 + 7) if dropout else None,
        segments,
        k,
        stride,
        residual,
        training,
        dropout,
        1e-5,
        3,
        "",
        given,
    )


CASES = {
    "a residual with a weight": partial(make, 5, 7, [2, 6, 5]),
    "two layouts, identity": partial(make, 7, 7, [2, 6, 5, 3, 11, 4]),
    "stride 2": partial(make, 16, 32, [2, 13, 9, 1, 6, 5], stride=2),
    "no residual, three channels": partial(make, 3, 16, [1, 11, 25], residual=False),
    "statistics that are given": partial(make, 8, 8, [2, 9, 5], training=False),
    "statistics that are given, stride 2": partial(make, 3, 8, [2, 9, 5], stride=2, training=False),
    "dropout": partial(make, 8, 8, [2, 9, 5, 1, 3, 7], dropout=0.5),
    "a little dropout, odd channels": partial(make, 5, 7, [2, 9, 5], dropout=0.1),
    "one joint, one partition": partial(make, 3, 4, [3, 7, 1], partitions=1),
    "one frame": partial(make, 4, 4, [3, 1, 2]),
    "a layout without samples": partial(make, 4, 4, [0, 5, 3, 2, 5, 4]),
    "no bias of the graph": partial(make, 4, 4, [2, 5, 3], bias=False),
    "surplus": partial(make, 16, 16, [3, 5, 4, 2, 9, 3], dropout=0.5, counts=[2, 1]),
    "surplus, stride 2": partial(make, 5, 7, [3, 6, 5, 4, 5, 3], stride=2, counts=[1, 3]),
    "surplus, statistics given": partial(
        make, 3, 8, [3, 9, 5], training=False, residual=False, counts=[2]
    ),
    "surplus alone": partial(make, 4, 4, [2, 3, 2, 1, 4, 3], dropout=0.5, counts=[0, 0]),
    "wide, surplus": partial(make, 64, 64, [2, 3, 5, 2, 2, 3], dropout=0.5, counts=[1, 2]),
    "wide": partial(make, 64, 128, [2, 13, 25], dropout=0.5),
    "wide, longer than a window": partial(make, 40, 40, [1, 50, 6, 2, 30, 3]),
}
LARGE = {"wide", "wide, longer than a window"}  # for Triton's interpreter
QUALIFYING = (  # tried before a backend becomes the default on a GPU
    "a residual with a weight",
    "two layouts, identity",
    "stride 2",
    "statistics that are given, stride 2",
    "a little dropout, odd channels",
    "a layout without samples",
    "surplus, stride 2",
    "wide",
    "wide, surplus",
    "wide, longer than a window",
)
TIMED = partial(make, 64, 64, [64, 13, 25])
