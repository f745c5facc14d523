"""Inputs of the tests of InfoNCE."""

from __future__ import annotations

import torch
import torch.nn.functional as F

AIMCLR = {"teacher": 0, "top_k": 1, "positives": "mined"}


def arguments(views=3, batch=4, dim=5, bank=7, seed=0):
    """Normalised queries, keys and bank in float64."""
    g = torch.Generator().manual_seed(seed)
    shapes = [(views, batch, dim), (batch, dim), (bank, dim)]
    return [F.normalize(torch.randn(s, generator=g, dtype=torch.float64), dim=-1) for s in shapes]


def leaves(*sizes, dtype=torch.float64):
    """The same and a temperature, all of which want gradients."""
    return [t.to(dtype).requires_grad_() for t in (*arguments(*sizes), torch.tensor(0.2))]
