"""Awkward inputs of info_nce, float64 on the CPU: for tests, and to qualify backends."""

from __future__ import annotations

from functools import partial

import torch

from msclr.kernels._cases import Draw
from msclr.kernels.info_nce.operator import Arguments


def make(
    views: int = 3,
    batch: int = 4,
    dim: int = 5,
    bank: int | None = 7,
    temperature: float = 0.2,
    teacher: int | None = None,
    top_k: int = 0,
    rows: int = 0,
    mined: bool = False,
    norm: float = 1.0,
) -> Arguments:
    """``rows``: so many given positives a clip, repeats and -1 among them."""
    draw = Draw()
    positives = draw.integers(-1, bank - 1, batch, rows) if rows else None
    return Arguments(
        draw.unit(views, batch, dim) * norm,
        draw.unit(batch, dim),
        None if bank is None else draw.unit(bank, dim),
        torch.tensor(temperature, dtype=torch.float64),
        teacher,
        top_k,
        positives,
        mined,
    )


CASES = {
    "the key alone": make,
    "a teacher": partial(make, teacher=1),
    "mined": partial(make, teacher=0, top_k=2, mined=True),
    "given rows": partial(make, teacher=2, top_k=3, rows=3),
    "one of each": partial(make, 1, 1, 1, 1),
    "as many as there are": partial(make, 2, 1, 5, 3, top_k=3, mined=True),
    "sixteen mined": partial(make, 3, 1, 16, 70, top_k=16, mined=True),
    "no bank": partial(make, bank=None, teacher=0),
    "an empty bank": partial(make, bank=0),
    "no clips": partial(make, batch=0, teacher=0, top_k=1, mined=True),
    "wide rows": partial(make, 2, 3, 200, 40, teacher=0),
    "a thousand columns": partial(make, 2, 2, 1000, 20, teacher=0, top_k=1, mined=True),
    "two tiles of queries": partial(make, 3, 12, 1, 20, 1.0, teacher=0, top_k=1),
    "near": partial(make, 2, 5, 17, 40, temperature=5.0, teacher=0),
    "far": partial(make, 2, 5, 17, 40, temperature=0.01, teacher=0, top_k=1, mined=True),
    "logits of a thousand": partial(make, 2, 5, 9, 40, temperature=0.01, norm=10.0),
    "forty columns": partial(make, 3, 5, 40, 70, 0.07, teacher=0, top_k=2, mined=True),
    "several tiles": partial(make, 3, 30, 37, 250, teacher=0, top_k=1, mined=True),
    "several tiles, given rows": partial(make, 3, 30, 37, 250, teacher=1, rows=2),
}
LARGE = {"several tiles", "several tiles, given rows"}  # for Triton's interpreter
QUALIFYING = (  # tried before a backend becomes the default on a GPU
    "mined",
    "one of each",
    "an empty bank",
    "wide rows",
    "near",
    "far",
    "forty columns",
    "several tiles, given rows",
)
TIMED = partial(make, 3, 128, 128, 8192, temperature=0.07, teacher=0)
