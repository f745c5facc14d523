"""Multi-view InfoNCE of two views against the usual matmul + cross-entropy in PyTorch.

With negatives of the key's view that is CLIP's code: one (B, B) matrix of logits, cross-entropy
over its rows and over its columns. With negatives of all views it is SimCLR's: one (2B, 2B) matrix
whose diagonal is masked. `chunked` is either for some anchors at a time, whose logits are made anew
for their gradient; it alone is left where the matrices would take more than half of the memory.
`ratio` is the fastest of these and, on request, of torch.compile over ours, in the same run.
`gemm_share` is what ours reaches of the matrix products' ceiling, counting the products that the
compiled CPU backend makes: for each pair of views one forward and three backward, where matrices
take one and two.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from benchmarks.machine import ceilings, describe, free_bytes, peak_extra_bytes, side_by_side
from benchmarks.output import save, setting
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
    """Either, some anchors at a time, whose logits are made anew for their gradient."""
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


def contestants(negatives: str, clips: int, args: argparse.Namespace) -> dict[str, Callable]:
    def ours(views: Tensor) -> Tensor:
        return kernels.multi_view_info_nce(
            views, TEMPERATURE, negatives=negatives, backend=args.backend
        )

    found = {"ours": ours, "chunked": partial(chunked, negatives=negatives)}
    if MATRICES[negatives] * 4 * clips**2 <= free_bytes(torch.device(args.device)) / 2:
        found["matmul"] = USUAL[negatives]
    if args.compile and "matmul" in found:
        torch._dynamo.reset()  # or many shapes would end in one that is dynamic
        found["matmul_compiled"] = torch.compile(USUAL[negatives])
    return found


def measure(clips: int, negatives: str, gemm: float, args: argparse.Namespace) -> dict[str, Any]:
    """Seconds and peak memory of every contestant, forward alone and forward with backward."""
    device = torch.device(args.device)
    views = F.normalize(torch.randn(2, clips, args.dim, device=device), dim=-1)
    views = views.to(getattr(torch, args.dtype)).requires_grad_()
    forms = contestants(negatives, clips, args)
    _compare(forms, views)
    a_product = 2 * clips**2 * args.dim * PAIRS[negatives]
    row: dict[str, Any] = {}
    for key, make, products in (("forward", _forward, 1), ("forward_backward", _both, 4)):
        runs = {name: make(form, views) for name, form in forms.items()}
        times = side_by_side(runs, device, args.rounds)
        best = min((n for n in times if n != "ours"), key=lambda n: times[n]["median"])
        seconds = times["ours"]["median"]
        gflop_s = 1e-9 * products * a_product / seconds
        row[key] = {
            "seconds": times,
            "best_other": best,
            "ratio": times[best]["median"] / seconds,
            "gflop_s": gflop_s,
            "gemm_share": gflop_s / gemm,
            "peak_extra_bytes": {n: peak_extra_bytes(run, device) for n, run in runs.items()},
        }
    return row


def _compare(forms: dict[str, Callable], views: Tensor) -> None:
    """No figure of a loss that is another one."""
    found = {name: _both(form, views)()[0].float() for name, form in forms.items()}
    for gradient in found.values():
        error = (gradient - found["chunked"]).norm() / found["chunked"].norm()
        if error > (1e-4 if views.dtype == torch.float32 else 5e-2):
            raise RuntimeError(f"gradients differ by {error:.1e}")


def _forward(form: Callable, views: Tensor) -> Callable:
    def step() -> None:
        with torch.no_grad():
            form(views)

    return step


def _both(form: Callable, views: Tensor) -> Callable:
    return lambda: torch.autograd.grad(form(views), views)


def main(argv: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks multi_view", description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--backend", help="of ours (default: the one that would be chosen)")
    parser.add_argument("--clips", type=int, nargs="+", default=[256, 1024, 4096], help="batches")
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--negatives", nargs="+", choices=USUAL, default=list(USUAL))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, help="of the CPU; default: PyTorch's")
    parser.add_argument("--compile", action="store_true", help="torch.compile of matmul as well")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--out", type=Path, help="file to write (default: one in results/)")
    args = parser.parse_args(argv)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    result = {
        "benchmark": "multi_view",
        "backend": args.backend or "default",
        "malloc": os.environ.get("GLIBC_TUNABLES", "as it comes"),
        **describe(device),
        "ceilings": ceilings(device, getattr(torch, args.dtype)),
        "rows": [],
    }
    for clips, negatives in product(args.clips, args.negatives):
        sizes = {"P": 2, "B": clips, "D": args.dim, "negatives": negatives}
        found = measure(clips, negatives, result["ceilings"]["gemm_gflop_s"], args)
        row = {"op": "multi_view_info_nce", "dtype": args.dtype, **sizes, **found}
        result["rows"].append(row)
        if not args.json:
            print(_line(row), flush=True)
    name = f"multi_view-{device.type}-{args.dtype}-{setting(device, args.backend)}"
    return save(result, name, args)


def _line(row: dict[str, Any]) -> str:
    parts = [f"B {row['B']:5} negatives {row['negatives']:5}"]
    for key in ("forward", "forward_backward"):
        of = row[key]
        memory = {name: size / 2**20 for name, size in of["peak_extra_bytes"].items()}
        parts.append(
            f"{key} {1e3 * of['seconds']['ours']['median']:8.2f} ms, {of['ratio']:5.2f}x of "
            f"{of['best_other']}, {100 * of['gemm_share']:3.0f} % of gemm, "
            f"{memory['ours']:.0f} of {memory[of['best_other']]:.0f} MiB"
        )
    return "; ".join(parts)
