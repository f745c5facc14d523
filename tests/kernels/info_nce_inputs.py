"""Inputs of the tests of InfoNCE."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F

from msclr import kernels

REFERENCE = partial(kernels.info_nce, backend="reference")
AIMCLR = {"teacher": 0, "top_k": 1, "positives": "mined"}
AT_HUGE_LOGITS = {
    "the key alone": {"teacher": 1},
    "given rows": {
        "teacher": 1,
        "positives": torch.tensor([[0, 13, -1], [12, 12, 12], [16, 0, 39]]),
    },
    "mined": AIMCLR | {"top_k": 2},
}


def arguments(views=3, batch=4, dim=5, bank=7, seed=0):
    """Normalised queries, keys and bank in float64."""
    g = torch.Generator().manual_seed(seed)
    shapes = [(views, batch, dim), (batch, dim), (bank, dim)]
    return [F.normalize(torch.randn(s, generator=g, dtype=torch.float64), dim=-1) for s in shapes]


def leaves(*sizes, dtype=torch.float64):
    """The same and a temperature, all of which want gradients."""
    return [t.to(dtype).requires_grad_() for t in (*arguments(*sizes), torch.tensor(0.2))]


def of_huge_logits(device="cpu"):
    """Queries, keys and bank in float32 whose logits are 1e4 at a temperature of 0.01, and differ
    by about 1 where it matters; those of ten bank rows are smaller by 1,000.

    Numbers are sixteenths, so that float32 holds all similarities without a rounding.
    """
    g = torch.Generator().manual_seed(0)
    shapes = [(3, 3, 5), (3, 5), (40, 5)]
    queries, keys, bank = (torch.randint(-4, 5, s, generator=g) / 16 for s in shapes)
    queries[..., 0], keys[:, 0], bank[10:, 0], bank[:10, 0] = 10, 10, 10, 9
    keys[1:, 1:] = queries[0, 1:, 1:]  # near their queries
    return [t.to(device) for t in (queries, keys, bank)]


def errors_at_huge_logits(info_nce, device="cpu", **options):
    """Of the gradients of queries, keys, bank and temperature in float32, as parts of the largest
    number of the reference in float64."""
    options = {n: v.to(device) if torch.is_tensor(v) else v for n, v in options.items()}
    found, exact = (
        _gradients(run, [t.to(dtype) for t in of_huge_logits(device)], options)
        for run, dtype in [(info_nce, torch.float32), (REFERENCE, torch.float64)]
    )
    return [((f - e).abs().max() / e.abs().max()).item() for f, e in zip(found, exact, strict=True)]


def _gradients(info_nce, tensors, options):
    temperature = torch.tensor(0.01, dtype=torch.float64, device=tensors[0].device)
    leaves = [t.requires_grad_() for t in (*tensors, temperature)]
    out = info_nce(*leaves, **options)
    return torch.autograd.grad((out.loss + out.distribution + out.log_sum_exp).sum(), leaves)
