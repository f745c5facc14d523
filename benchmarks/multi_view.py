"""Multi-view InfoNCE of two views against the usual matmul + cross-entropy in PyTorch.

With negatives of the key's view that is CLIP's code: one (B, B) matrix of logits, cross-entropy
over its rows and over its columns. With negatives of all views it is SimCLR's: one (2B, 2B) matrix
whose diagonal is masked. `chunked` is either for some anchors at a time, whose logits are computed
again for their gradient; it alone is left where the matrices would take more than half of the
memory.
On request torch.compile takes part as well.
`gemm_share` is what ours reaches of the matrix products' ceiling, counting the products that the
compiled CPU backend makes: for each pair of views one forward and three backward, where matrices
take one and two.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from benchmarks.machine import free_bytes
from benchmarks.options import BACKENDS, FLOATS, positive
from benchmarks.runner import Case, Part, Setup, alike, forward, with_gradients
from msclr import kernels

TEMPERATURE = 0.07
CHUNK = 1024  # anchors


def clip_loss(views: Tensor) -> Tensor:
    """negatives="view": both directions from one matrix of logits."""
    logits = (views[0] @ views[1].T).float() / TEMPERATURE  # (B, B)
    own = torch.arange(len(logits), device=views.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def simclr_loss(views: Tensor) -> Tensor:
    """negatives="batch": all views against all others."""
    z = views.flatten(0, 1)
    logits = (z @ z.T).float() / TEMPERATURE  # (2B, 2B)
    itself = torch.eye(len(z), dtype=torch.bool, device=views.device)
    return F.cross_entropy(
        logits.masked_fill(itself, -torch.inf),
        torch.arange(len(z), device=views.device).roll(views.shape[1]),
    )


def chunked(views: Tensor, negatives: str) -> Tensor:
    """Either, some anchors at a time, whose logits are computed again for their gradient."""
    count = views.shape[1]
    own = torch.arange(count, device=views.device).split(CHUNK)

    def part(anchors: Tensor, keys: Tensor, others: Tensor, rows: Tensor) -> Tensor:
        logits = (anchors @ keys.T).float() / TEMPERATURE  # (CHUNK, B)
        if negatives == "batch":
            same_view = (anchors @ others.T).float() / TEMPERATURE
            same_view = same_view.scatter(1, rows[:, None], -torch.inf)  # itself
            logits = torch.cat([logits, same_view], dim=1)
        return F.cross_entropy(logits, rows, reduction="sum")

    total = sum(
        checkpoint(part, anchors[rows], keys, anchors, rows, use_reentrant=False)
        for anchors, keys in ((views[0], views[1]), (views[1], views[0]))
        for rows in own
    )
    return total / (2 * count)


USUAL = {"view": clip_loss, "batch": simclr_loss}
MATRICES = {"view": 6, "batch": 24}  # of (B, B) float32 at once, at most, rounded up
PAIRS = {"view": 1, "batch": 2}  # of unlike views, and half of those of a view with itself


def options(parser: argparse.ArgumentParser) -> None:
    text = "of a batch (default: 256 1024 4096)"
    parser.add_argument("--clips", type=positive, nargs="+", default=[256, 1024, 4096], help=text)
    parser.add_argument("--dim", type=positive, default=128)
    parser.add_argument("--negatives", nargs="+", choices=USUAL, default=list(USUAL))


def cases(args: argparse.Namespace) -> list[Case]:
    room, found = free_bytes(args.device) / 2, []
    for clips, negatives in product(args.clips, args.negatives):
        row = {"op": "multi_view_info_nce", "dtype": args.dtype}
        names = ["ours", "chunked"]
        if MATRICES[negatives] * 4 * clips**2 <= room:
            names += ["matmul"] + ["matmul_compiled"] * args.compile
        row |= {"P": 2, "B": clips, "D": args.dim, "negatives": negatives}
        size = 4 * clips * args.dim * getattr(torch, args.dtype).itemsize
        found.append(Case(row, tuple(names), size))
    return found


def parts(case: Case, args: argparse.Namespace) -> Iterator[Part]:
    """Forward alone, and forward with the gradient of the views."""
    clips, dim, negatives = (case.sizes[key] for key in ("B", "D", "negatives"))
    views = F.normalize(torch.randn(2, clips, dim, device=args.device), dim=-1)
    views = views.to(getattr(torch, args.dtype)).requires_grad_()
    forms = {name: form(name, negatives, args) for name in case.contestants}
    both = {name: with_gradients(form, views) for name, form in forms.items()}
    alike({n: run() for n, run in both.items()}, 5e-2 if views.element_size() < 4 else 1e-4)
    a_product = 2 * clips**2 * dim * PAIRS[negatives]
    alone = {name: forward(form, views) for name, form in forms.items()}
    yield Part(alone, name="forward", operations=a_product)
    yield Part(both, name="forward_backward", operations=4 * a_product)


def form(name: str, negatives: str, args: argparse.Namespace) -> Callable[[Tensor], Tensor]:
    """A contestant: a function of the views."""
    if name == "ours":
        options = {"temperature": TEMPERATURE, "negatives": negatives, "backend": args.backend}
        return partial(kernels.multi_view_info_nce, **options)
    if name == "chunked":
        return partial(chunked, negatives=negatives)
    if name == "matmul_compiled":
        torch._dynamo.reset()  # or many shapes would end in one that is dynamic
        return torch.compile(USUAL[negatives])
    return USUAL[negatives]


SETUP = Setup(
    "1 minute", rounds=5, dtypes=FLOATS, backends=BACKENDS[:3], compiles=True, products=True
)
