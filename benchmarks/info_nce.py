"""InfoNCE against a bank: ours against plain PyTorch, forward and backward.

Two losses: `aimclr`, three views with matching and mined neighbours, and `plain`, one view whose
key is the only positive. The contestants are PyTorch as such code is usually written, with a
similarity matrix a view (`usual`; for AimCLR also `lean`, with fewer passes over them), and
`chunked`, which is our algebra in PyTorch: it streams over the bank and keeps of it log-sum-exp and
mean alone; on request each through torch.compile. Every run makes the loss and the gradient of the
queries. `ratio` is the usual form's time over ours, in the same run; `gemm_share` counts the two
products of P B (Q + 1) D multiply-adds that any of them must do. Forms whose matrices would not fit
into half of the free memory are left out (`left_out`); the ratio is then to `chunked`.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.machine import ceilings, describe, free_bytes, peak_extra_bytes, side_by_side
from benchmarks.output import save, setting
from msclr import kernels

TEMPERATURE = 0.07
CHUNK = 2048  # bank rows
VIEWS = {"aimclr": 3, "plain": 1}
MATRICES = {"usual": 8, "lean": 8, "chunked": 0}  # of (B, Q) at once, at most, rounded up
SIZES = (
    *("32x4096", "32x32768", "128x4096", "128x32768", "512x4096", "512x32768"),
    *("2048x32768", "16384x32768", "128x262144", "128x1048576"),
)


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


USUAL = {"aimclr": usual_aimclr, "plain": usual_plain}
CHUNKED = {"aimclr": chunked_aimclr, "plain": chunked_plain}
OURS = {"aimclr": ours_aimclr, "plain": ours_plain}


def contestants(loss: str, matrix: int, args: argparse.Namespace) -> dict[str, Callable]:
    """Those whose memory suffices, where a matrix of logits takes ``matrix`` bytes."""
    forms = {"usual": USUAL[loss], "chunked": CHUNKED[loss]}
    if loss == "aimclr":
        forms["lean"] = lean_aimclr
    room = free_bytes(torch.device(args.device)) / 2
    forms = {name: form for name, form in forms.items() if MATRICES[name] * matrix <= room}
    if args.compile:
        torch._dynamo.reset()  # or many shapes would end in one that is dynamic
        forms |= {f"{name}_compiled": torch.compile(form) for name, form in forms.items()}
    return {"ours": lambda *inputs: OURS[loss](*inputs, args.backend), **forms}


def measure(
    loss: str, batch: int, bank: int, dim: int, args: argparse.Namespace, ceiling: float
) -> dict[str, Any]:
    """Seconds and peak memory of every contestant's loss and gradient of the queries."""
    device, dtype = torch.device(args.device), getattr(torch, args.dtype)
    shapes = (VIEWS[loss], batch, dim), (batch, dim), (bank, dim)
    torch.manual_seed(0)
    queries, keys, rows = (
        F.normalize(torch.randn(shape, device=device), dim=-1).to(dtype) for shape in shapes
    )
    queries.requires_grad_()

    def step(form: Callable) -> Callable:
        return lambda: torch.autograd.grad(form(queries, keys, rows), queries)

    forms = contestants(loss, batch * bank * queries.element_size(), args)
    runs = {name: step(form) for name, form in forms.items()}
    if dtype in (torch.float32, torch.float64):
        for run in runs.values():
            torch.testing.assert_close(run(), runs["ours"](), rtol=1e-3, atol=1e-5)
    times = side_by_side(runs, device, args.rounds)
    seconds = times["ours"]["median"]
    gflop_s = 4e-9 * VIEWS[loss] * batch * (bank + 1) * dim / seconds
    return {
        "seconds": times,
        "left_out": sorted({"usual", "chunked"} - runs.keys()),
        "ratio": times["usual" if "usual" in times else "chunked"]["median"] / seconds,
        "best_other": min((n for n in times if n != "ours"), key=lambda n: times[n]["median"]),
        "gflop_s": gflop_s,
        "gemm_share": gflop_s / ceiling,
        "peak_extra_bytes": {n: peak_extra_bytes(run, device) for n, run in runs.items()},
    }


def main(argv: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks info_nce", description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--backend", help="of ours (default: the one that would be chosen)")
    parser.add_argument("--loss", nargs="+", choices=VIEWS, default=list(VIEWS))
    parser.add_argument(
        "--sizes", nargs="+", default=SIZES, metavar="BxQ", help="clips x rows of the bank"
    )
    parser.add_argument("--dim", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--compile", action="store_true", help="torch.compile of PyTorch's as well")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--out", type=Path, help="file to write (default: one in results/)")
    args = parser.parse_args(argv)
    device = torch.device(args.device)
    result = {
        "benchmark": "info_nce",
        "backend": args.backend or "default",
        "malloc": os.environ.get("GLIBC_TUNABLES", "as it comes"),
        **describe(device),
        "ceilings": ceilings(device, getattr(torch, args.dtype)),
        "rows": [],
    }
    for loss, size, dim in product(args.loss, args.sizes, args.dim):
        batch, bank = map(int, size.split("x"))
        sizes = {"P": VIEWS[loss], "B": batch, "Q": bank, "D": dim}
        measured = measure(loss, batch, bank, dim, args, result["ceilings"]["gemm_gflop_s"])
        row = {"op": "info_nce", "loss": loss, "dtype": args.dtype, **sizes, **measured}
        result["rows"].append(row)
        if not args.json:
            print(_line(row), flush=True)
    name = (
        f"info_nce-{device.type}-{args.dtype}-{setting(device, args.backend)}"
        + "-compiled" * args.compile
    )
    return save(result, name, args)


def _line(row: dict[str, Any]) -> str:
    best, memory = row["best_other"], row["peak_extra_bytes"]
    over_best = row["seconds"][best]["median"] / row["seconds"]["ours"]["median"]
    return (
        f"{row['loss']:6} B {row['B']:5} Q {row['Q']:7} D {row['D']:3}: "
        f"{1e3 * row['seconds']['ours']['median']:8.2f} ms, {row['ratio']:5.2f}x of "
        f"{'chunked' if 'usual' in row['left_out'] else 'the usual'}, {over_best:5.2f}x of {best}, "
        f"{100 * row['gemm_share']:3.0f} % of the GEMM ceiling, memory in MB: "
        + ", ".join(f"{name} {1e-6 * size:.1f}" for name, size in memory.items())
    )
