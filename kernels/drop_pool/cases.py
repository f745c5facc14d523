"""Awkward inputs of drop_pool, float64 on the CPU: for tests, and to qualify backends."""

from __future__ import annotations

from functools import partial

from msclr.kernels._cases import Draw
from msclr.kernels._segments import rows_in
from msclr.kernels.drop_pool.operator import Arguments


def make(channels: int, segments: list[int], drop: bool = True) -> Arguments:
    """``segments``: N, T and V of each layout. One number in forty, and one joint, is large."""
    draw = Draw()
    x = draw.normal(rows_in(segments), channels)
    x += 6 * (draw.normal(*x.shape) > 2)
    if segments[0]:
        x[: segments[2] : max(segments[2], 1)] += 9
    return Arguments(x, segments, drop)


CASES = {
    "one layout": partial(make, 16, [3, 5, 7]),
    "odd channels, three layouts": partial(make, 13, [2, 5, 7, 1, 13, 25, 4, 3, 2]),
    "a layout without samples": partial(make, 8, [0, 5, 7, 2, 3, 4]),
    "one frame": partial(make, 8, [2, 1, 7]),
    "one joint": partial(make, 8, [2, 7, 1]),
    "one number": partial(make, 3, [2, 1, 1]),
    "without the drop": partial(make, 13, [2, 5, 7, 1, 3, 4], drop=False),
    "wide": partial(make, 256, [2, 13, 25, 1, 13, 42]),
}
LARGE = {"wide"}  # for Triton's interpreter
QUALIFYING = (
    "odd channels, three layouts",
    "a layout without samples",
    "one frame",
    "without the drop",
    "wide",
)
TIMED = partial(make, 256, [64, 13, 25])
