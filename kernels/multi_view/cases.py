"""Awkward inputs of multi_view_info_nce, float64 on the CPU: for tests, and to qualify backends."""

from __future__ import annotations

from functools import partial
from itertools import permutations

import torch

from msclr.kernels._cases import Draw
from msclr.kernels.multi_view.operator import Arguments


def make(
    views: int = 2,
    clips: int = 5,
    dim: int = 4,
    bank: int | None = 3,
    temperature: float = 0.2,
    all_views: bool = False,
    pairs: tuple[int, ...] | None = None,
    others: int = 0,
    first: int = 0,
) -> Arguments:
    """``others``: candidates of so many clips, as several processes have them."""
    draw = Draw()
    every = [view for pair in permutations(range(views), 2) for view in pair]
    return Arguments(
        draw.unit(views, clips, dim),
        torch.tensor(temperature, dtype=torch.float64),
        list(pairs or every),
        draw.unit(views, others, dim) if others else None,
        first,
        None if bank is None else draw.unit(bank, dim),
        all_views,
    )


CASES = {
    "two views": make,
    "negatives of every view": partial(make, 3, all_views=True),
    "no bank": partial(make, bank=None),
    "an empty bank": partial(make, bank=0),
    "one pair": partial(make, 3, pairs=(1, 0)),
    "a pair given twice": partial(make, 3, pairs=(0, 1, 1, 0, 0, 1), all_views=True),
    "a clip alone": partial(make, clips=1, dim=1, bank=None),
    "wide rows": partial(make, clips=3, dim=130),
    "near": partial(make, 3, 17, 7, 9, temperature=5.0),
    "far": partial(make, 3, 17, 7, 9, temperature=0.01, all_views=True),
    "two tiles": partial(make, clips=70, dim=20, bank=40, temperature=0.07, pairs=(1, 0)),
    "clips of one process": partial(make, clips=3, others=3, all_views=True),
    "clips of other processes": partial(make, clips=3, others=7, first=2),
    "clips of other processes, every view": partial(make, 3, 3, others=9, first=6, all_views=True),
    "clips of other processes in two tiles": partial(
        make, clips=20, bank=3, pairs=(0, 1, 1, 0, 0, 1), others=40, first=17
    ),
    "several tiles": partial(make, 2, 150, 6, 40),
    "several tiles, others, far": partial(
        make, 3, 150, 6, 40, 0.01, True, (1, 0, 0, 1, 0, 1), 300, 37
    ),
}
LARGE = {"several tiles", "several tiles, others, far"}  # for Triton's interpreter
QUALIFYING = (  # tried before a backend becomes the default on a GPU
    "two views",
    "no bank",
    "a clip alone",
    "near",
    "far",
    "two tiles",
    "clips of other processes in two tiles",
    "several tiles, others, far",
)
TIMED = partial(make, 2, 512, 128, None, temperature=0.07)
