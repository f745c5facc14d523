"""Inputs of the tests of multi-view InfoNCE."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from msclr.kernels import multi_view_info_nce

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
AT_HUGE_LOGITS = [
    {"negatives": negatives, "pairs": pairs}
    for negatives in ("view", "batch")
    for pairs in (None, [(0, 1), (1, 0)], [(2, 0), (2, 1), (0, 2)])
]
VIEWS, CLIPS, DIM = 3, 6, 4  # 6 clips are shared by 2 ranks and by 3


def arguments(views=VIEWS, clips=CLIPS, dim=DIM, bank=5, seed=0):
    """Normalised views and bank in float64."""
    g = torch.Generator().manual_seed(seed)
    shapes = [(views, clips, dim), (bank, dim)]
    return [F.normalize(torch.randn(s, generator=g, dtype=torch.float64), dim=-1) for s in shapes]


def of_huge_logits(device="cpu"):
    """Views and bank in float32 whose logits are 1e4 at a temperature of 0.01, and differ by about
    1 where it matters; those of the last view are smaller by 1,000 and more.

    Numbers are sixteenths, so that float32 holds all similarities without a rounding.
    """
    g = torch.Generator().manual_seed(0)
    views, bank = (torch.randint(-4, 5, s, generator=g) / 16 for s in [(3, 7, 5), (6, 5)])
    views[..., 0], bank[..., 0] = 10, 10
    views[2, :, 0] = 9
    bank[:3, 0] = 9
    views[:2, 0, 1:] = bank[0, 1:]  # a clip whose positives and candidates are close
    return views.to(device), bank.to(device)


def errors_at_huge_logits(backend, device="cpu", **options):
    """Of loss and the gradients of temperature, views and bank in float32, as parts of the largest
    number of the reference in float64."""
    found, exact = (
        _loss_and_gradients(b, [t.to(dtype) for t in of_huge_logits(device)], **options)
        for b, dtype in [(backend, torch.float32), ("reference", torch.float64)]
    )
    return [((f - e).abs().max() / e.abs().max()).item() for f, e in zip(found, exact, strict=True)]


def _loss_and_gradients(backend, leaves, **options):
    temperature = torch.tensor(0.01, dtype=torch.float64, device=leaves[0].device)
    leaves = [t.requires_grad_() for t in (temperature, *leaves)]
    loss = multi_view_info_nce(leaves[1], leaves[0], bank=leaves[2], backend=backend, **options)
    return [loss.detach(), *torch.autograd.grad(loss, leaves)]
