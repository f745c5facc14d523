"""InfoNCE against a bank: ours against plain PyTorch, forward and backward.

Two losses: `aimclr`, three views with matching and mined neighbours, and `plain`, one view whose
key is the only positive. The contestants are PyTorch as such code is usually written, with a
similarity matrix a view (`usual`; for AimCLR also `lean`, with fewer passes over them), and
`chunked`, which is our algebra in PyTorch: it streams over the bank and keeps of it log-sum-exp and
mean alone; on request each through torch.compile. Every run makes the loss and the gradient of the
queries. `gemm_share` counts the two products of P B (Q + 1) D multiply-adds that any must do. Forms
whose matrices would not fit into half of the free memory are left out.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.machine import free_bytes
from benchmarks.options import BACKENDS, FLOATS, positive
from benchmarks.runner import Case, Part, Setup, alike
from msclr import kernels

TEMPERATURE = 0.07
CHUNK = 2048  # bank rows
VIEWS = {"aimclr": 3, "plain": 1}
MATRICES = {"usual": 8, "lean": 8, "chunked": 0}  # of (B, Q) at once, at most, rounded up
SIZES = [(b, q) for b in (32, 128, 512) for q in (4096, 32768)]
SIZES += [(2048, 32768), (16384, 32768), (128, 262144), (128, 1048576)]
COMPILED = [(32, 4096), (128, 32768)]  # sizes with --compile


def logits_of(query: Tensor, keys: Tensor, bank: Tensor) -> Tensor:
    positive = (query * keys).sum(1, keepdim=True)
    return torch.cat([positive, query @ bank.T], dim=1) / TEMPERATURE  # (B, 1 + Q)


def usual_aimclr(queries: Tensor, keys: Tensor, bank: Tensor) -> Tensor:
    """In the steps of AimCLR's own code: a softmax, then its logarithm; the negatives are mined."""
    positives = [(query * keys).sum(1, keepdim=True) for query in queries]
    negatives = [query @ bank.T for query in queries]
    normal, extreme, dropped = (
        torch.cat(pair, dim=1) / TEMPERATURE for pair in zip(positives, negatives, strict=True)
    )
    target = normal.clone().detach().softmax(1)
    nearest = torch.zeros_like(negatives[0])
    for similarity in negatives:
        nearest.scatter_(1, similarity.topk(1).indices, 1)
    mask = torch.cat([torch.ones_like(positives[0]), nearest], dim=1)
    contrast = -(normal.log_softmax(1) * mask).sum(1) / mask.sum(1)
    matching = [-(logits.softmax(1).log() * target).sum(1) for logits in (extreme, dropped)]
    return (contrast + 0.5 * (matching[0] + matching[1])).mean()


def lean_aimclr(queries: Tensor, keys: Tensor, bank: Tensor) -> Tensor:
    """The same with as few passes over the matrices as PyTorch's operators allow."""
    normal, *others = (logits_of(query, keys, bank) for query in queries)
    mask = torch.zeros_like(normal)
    mask[:, 0] = 1
    for logits in (normal, *others):
        mask.scatter_(1, logits[:, 1:].topk(1).indices + 1, 1)
    contrast = -(mask * normal.log_softmax(1)).sum(1) / mask.sum(1)
    target = normal.detach().softmax(1)
    matching = [-(target * logits.log_softmax(1)).sum(1) for logits in others]
    return (contrast + 0.5 * (matching[0] + matching[1])).mean()


def usual_plain(queries: Tensor, keys: Tensor, bank: Tensor) -> Tensor:
    logits = logits_of(queries[0], keys, bank)
    return F.cross_entropy(logits, torch.zeros(len(keys), dtype=torch.int64, device=keys.device))


def ours_aimclr(queries: Tensor, keys: Tensor, bank: Tensor, backend: str | None) -> Tensor:
    out = kernels.info_nce(
        queries, keys, bank, TEMPERATURE, teacher=0, top_k=1, positives="mined", backend=backend
    )
    return (out.loss[0] + 0.5 * (out.distribution[1] + out.distribution[2])).mean()


def ours_plain(queries: Tensor, keys: Tensor, bank: Tensor, backend: str | None) -> Tensor:
    return kernels.info_nce(queries, keys, bank, TEMPERATURE, backend=backend).loss.mean()


@torch.no_grad()
def stream(queries: Tensor, keys: Tensor, bank: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """log-sum-exp (P, B), mean (P, B, D) and nearest bank row (P, B), a chunk of rows at a time."""
    best = queries.new_full(queries.shape[:2], -torch.inf)
    nearest = torch.zeros(queries.shape[:2], dtype=torch.int64, device=queries.device)
    top = (queries * keys).sum(-1) / TEMPERATURE  # (P, B)
    total, mean = torch.ones_like(top), keys.expand_as(queries)
    for start in range(0, len(bank), CHUNK):
        rows = bank[start : start + CHUNK]
        logits = queries @ rows.T / TEMPERATURE  # (P, B, CHUNK)
        largest, where = logits.max(-1)
        nearest = torch.where(largest > best, where + start, nearest)
        best = torch.maximum(largest, best)
        scale = (top - torch.maximum(top, largest)).exp()
        top = torch.maximum(top, largest)
        weights = (logits - top[..., None]).exp()
        total = total * scale + weights.sum(-1)
        mean = mean * scale[..., None] + weights @ rows
    return top + total.log(), mean / total[..., None], nearest


def chunked_aimclr(queries: Tensor, keys: Tensor, bank: Tensor) -> Tensor:
    log_sum_exp, mean, nearest = stream(queries, keys, bank)
    rows = nearest.T.sort(1).values  # (B, P), repeats side by side
    once = F.pad(rows.diff(dim=1) != 0, (1, 0), value=True)
    positive = (keys + (bank[rows] * once[..., None]).sum(1)) / (1 + once.sum(1, keepdim=True))
    contrast = _below(log_sum_exp, mean, queries, positive)[0]
    matching = _below(log_sum_exp, mean, queries, mean[0])
    return (contrast + 0.5 * (matching[1] + matching[2])).mean()


def chunked_plain(queries: Tensor, keys: Tensor, bank: Tensor) -> Tensor:
    log_sum_exp, mean, _ = stream(queries, keys, bank)
    return _below(log_sum_exp, mean, queries, keys).mean()


def _below(log_sum_exp: Tensor, mean: Tensor, queries: Tensor, rows: Tensor) -> Tensor:
    """log_sum_exp - query.row / T, where log_sum_exp is a number whose gradient is mean / T."""
    zero = ((queries - queries.detach()) * mean).sum(-1)
    return log_sum_exp + (zero - (queries * rows).sum(-1)) / TEMPERATURE


FORMS = {
    "aimclr": {"usual": usual_aimclr, "chunked": chunked_aimclr, "lean": lean_aimclr},
    "plain": {"usual": usual_plain, "chunked": chunked_plain},
}
OURS = {"aimclr": ours_aimclr, "plain": ours_plain}


def size(text: str) -> tuple[int, int]:
    if not re.fullmatch(r"[1-9]\d*x[1-9]\d*", text):
        raise argparse.ArgumentTypeError(f"{text!r}: BxQ is wanted, clips x rows, as in 128x32768")
    return tuple(map(int, text.split("x")))


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--loss", nargs="+", choices=VIEWS, default=list(VIEWS))
    text = "clips x rows of the bank (default: ten; with --compile 32x4096 128x32768)"
    parser.add_argument("--sizes", type=size, nargs="+", metavar="BxQ", help=text)
    text = "of the embedding (default: 128 256; with --compile 128)"
    parser.add_argument("--dim", type=positive, nargs="+", help=text)


def cases(args: argparse.Namespace) -> list[Case]:
    """Those whose matrices would take more than half of the free memory are no contestants."""
    sizes = args.sizes or (COMPILED if args.compile else SIZES)
    dims = args.dim or ([128] if args.compile else [128, 256])
    each, room = getattr(torch, args.dtype).itemsize, free_bytes(args.device) / 2
    found = []
    for loss, (b, q), d in product(args.loss, sizes, dims):
        row = {"op": "info_nce", "loss": loss, "dtype": args.dtype}
        names = [name for name in FORMS[loss] if MATRICES[name] * b * q * each <= room]
        names += [f"{name}_compiled" for name in names if args.compile]
        row |= {"P": VIEWS[loss], "B": b, "Q": q, "D": d}
        found.append(Case(row, ("ours", *names), ((2 * VIEWS[loss] + 1) * b + q) * d * each))
    return found


def parts(case: Case, args: argparse.Namespace) -> Iterator[Part]:
    """Every contestant's loss and gradient of the queries."""
    dtype, loss = getattr(torch, args.dtype), case.sizes["loss"]
    p, b, q, d = (case.sizes[key] for key in "PBQD")
    queries, keys, bank = (
        F.normalize(torch.randn(shape, device=args.device), dim=-1).to(dtype)
        for shape in ((p, b, d), (b, d), (q, d))
    )
    queries.requires_grad_()
    torch._dynamo.reset()  # or many shapes would end in one that is dynamic
    forms = {"ours": lambda *inputs: OURS[loss](*inputs, args.backend)}
    for name in case.contestants[1:]:
        form = FORMS[loss][name.removesuffix("_compiled")]
        forms[name] = torch.compile(form) if name.endswith("_compiled") else form

    def step(form: Callable) -> Callable:
        return lambda: torch.autograd.grad(form(queries, keys, bank), queries)

    runs = {name: step(form) for name, form in forms.items()}
    if dtype in (torch.float32, torch.float64):  # else two may find unlike rows the nearest
        alike({name: run() for name, run in runs.items()}, 1e-3)
    yield Part(runs, operations=4 * p * b * (q + 1) * d)


SETUP = Setup(
    "18 minutes",
    file="{device}-{dtype}-{setting}{compiled}",
    rounds=7,
    dtypes=FLOATS,
    backends=BACKENDS[:3],
    compiles=True,
    products=True,
)
