"""Inputs of the tests of InfoNCE."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from msclr import kernels

AIMCLR = {"teacher": 0, "top_k": 1, "positives": "mined"}
compiled = pytest.mark.skipif(
    bool(kernels.backends()["cpu"]), reason=f"no compiled operators: {kernels.backends()['cpu']}"
)


def arguments(views=3, batch=4, dim=5, bank=7, seed=0):
    """Normalised queries, keys and bank in float64."""
    g = torch.Generator().manual_seed(seed)
    shapes = [(views, batch, dim), (batch, dim), (bank, dim)]
    return [F.normalize(torch.randn(s, generator=g, dtype=torch.float64), dim=-1) for s in shapes]


def leaves(*sizes, dtype=torch.float64):
    """The same and a temperature, all of which want gradients."""
    return [t.to(dtype).requires_grad_() for t in (*arguments(*sizes), torch.tensor(0.2))]
