"""Inputs of the tests of multi-view InfoNCE."""

from __future__ import annotations

import torch
import torch.nn.functional as F

BACKENDS = ["reference", "cpu"]
CASES = [
    {"negatives": negatives, "pairs": pairs, "bank": bank}
    for negatives, pairs, bank in [
        ("view", None, False),
        ("batch", None, True),
        ("view", ((0, 2), (2, 1)), True),
        ("batch", ((1, 0),), False),
    ]
]
VIEWS, CLIPS, DIM = 3, 6, 4  # 6 clips are shared by 2 ranks and by 3


def arguments(views=VIEWS, clips=CLIPS, dim=DIM, bank=5, seed=0):
    """Normalised views and bank in float64."""
    g = torch.Generator().manual_seed(seed)
    shapes = [(views, clips, dim), (bank, dim)]
    return [F.normalize(torch.randn(s, generator=g, dtype=torch.float64), dim=-1) for s in shapes]
