"""Masked graph convolution against plain PyTorch, over the shapes of the encoder.

The contestants are ST-GCN's own form, a 1x1 convolution and an einsum with the adjacency, as it
comes (NCHW), in channels_last, and with the adjacency applied by a batched product first; each
eager, and on request through torch.compile. Every contestant gets x in the memory format that suits
it, made beforehand. `ratio` is the fastest of them over ours, in the same run. In a mixed batch
every other sample is of 25 joints, filled up to 42, and each has its own adjacency.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.machine import ceilings, describe, peak_extra_bytes, side_by_side
from benchmarks.output import save, setting
from msclr import kernels, layouts

# (C_in, C_out, T) of the ten blocks at width 16 and T = 50; like blocks are listed once.
SHAPES = [(3, 16, 50), (16, 16, 50), (16, 32, 50), (32, 32, 25), (32, 64, 25), (64, 64, 13)]
SHAPES += [(64, 256, 13)]
LAYOUTS = {"25": ["kinectv2_25"], "42": ["smplx_42"], "mixed": ["kinectv2_25", "smplx_42"]}


def conv_einsum(x: Tensor, weight: Tensor, bias: Tensor, adjacency: Tensor) -> Tensor:
    """ST-GCN's code: convolution, then einsum. A mixed batch comes with (N, K, V, V)."""
    z = F.conv2d(x, weight, bias).unflatten(1, (adjacency.shape[-3], -1))
    if adjacency.dim() == 4:
        return torch.einsum("nkctv,nkvw->nctw", z, adjacency)
    return torch.einsum("nkctv,kvw->nctw", z, adjacency)


def bmm_first(x: Tensor, weight: Tensor, bias: Tensor, adjacency: Tensor) -> Tensor:
    """Neighbours added up densely first, then one product with the (K C_in) x C_out weight."""
    k = adjacency.shape[-3]
    w = weight.flatten(1).unflatten(0, (k, -1)).permute(0, 2, 1).flatten(0, 1)  # (K*C_in, C_out)
    b = bias.unflatten(0, (k, -1))
    if adjacency.dim() == 4:
        z = torch.einsum("nctv,nkvw->ntwkc", x, adjacency).flatten(3)
        shift = torch.einsum("ko,nkvw->nwo", b, adjacency)[:, None]  # (N, 1, V, C_out)
    else:
        z = torch.einsum("nctv,kvw->ntwkc", x, adjacency).flatten(3)  # (N, T, V, K*C_in)
        shift = torch.einsum("ko,kvw->wo", b, adjacency)  # (V, C_out)
    return (z @ w + shift).permute(0, 3, 1, 2)


class Case:
    """The tensors of one shape, and every contestant as a function of (x, weight, bias, A)."""

    def __init__(self, samples: int, c_in: int, c_out: int, frames: int, joints: str, args) -> None:
        device, dtype = torch.device(args.device), getattr(torch, args.dtype)
        graphs = [layouts.get(name).adjacency() for name in LAYOUTS[joints]]
        k, v = len(graphs[0]), max(a.shape[-1] for a in graphs)
        graphs = torch.stack([F.pad(a, (0, v - a.shape[-1]) * 2) for a in graphs])  # (L, K, V, V)
        self.adjacency = graphs.squeeze(0).to(device, dtype)
        self.x = torch.randn(samples, c_in, frames, v, device=device).to(dtype)
        self.weight = torch.randn(k * c_out, c_in, 1, 1, device=device).to(dtype)
        self.bias = torch.randn(k * c_out, device=device).to(dtype)
        self.output = (samples, c_out, frames, v)
        self.mixed: dict[str, Tensor] = {}
        if joints == "mixed":
            counts = [layouts.get(name).num_joints for name in LAYOUTS[joints]]
            index = torch.arange(samples, device=device) % len(counts)
            self.mixed = {
                "layout_index": index,
                "joint_counts": torch.tensor(counts, device=device),
            }
            self.x[0::2, ..., counts[0] :] = 0

    def contestants(self, compiled: bool) -> dict[str, tuple[Callable, Tensor]]:
        """Name -> (function, x in the memory format that suits it)."""
        last = self.x.contiguous(memory_format=torch.channels_last)
        support = kernels.graph_support(self.adjacency)

        def ours(x, weight, bias, adjacency):
            return kernels.masked_graph_conv(
                x, weight, bias, adjacency, support=support, backend=self.backend, **self.mixed
            )

        index = self.mixed.get("layout_index")
        forms = {
            "conv_einsum_nchw": (conv_einsum, self.x),
            "conv_einsum_channels_last": (conv_einsum, last),
            "bmm_first": (bmm_first, last),
        }
        if compiled:
            torch._dynamo.reset()  # or many shapes would end in one that is dynamic
            forms |= {f"{n}_compiled": (torch.compile(f), x) for n, (f, x) in forms.items()}
        if index is not None:
            forms = {n: (_per_sample(f, index), x) for n, (f, x) in forms.items()}
        return {"ours": (ours, last), **forms}

    backend: str | None = None

    def work(self) -> dict[str, dict[str, float]]:
        """Operations of the products and bytes of what must be read and written, at the least."""
        x, y = self.x.numel(), math.prod(self.output)
        operations = 2 * self.weight.shape[0] * x
        size = self.x.element_size()
        forward = {"operations": operations, "bytes": size * (x + y)}
        return {
            "forward": forward,
            "forward_backward": {"operations": 3 * operations, "bytes": size * (3 * x + 2 * y)},
        }


def _per_sample(form: Callable, index: Tensor) -> Callable:
    return lambda x, weight, bias, adjacency: form(x, weight, bias, adjacency[index])


def measure(case: Case, args: argparse.Namespace) -> dict[str, Any]:
    """Seconds and peak memory of every contestant, forward alone and forward with backward."""
    device = torch.device(args.device)
    contestants = case.contestants(args.compile)
    parameters = case.weight, case.bias, case.adjacency
    inputs = {n: _leaves(x, *parameters) for n, (_, x) in contestants.items()}
    grads = {n: torch.randn_like(run(*inputs[n])) for n, (run, _) in contestants.items()}
    row: dict[str, Any] = {}
    for key, make in (("forward", _forward), ("forward_backward", _forward_backward)):
        runs = {n: make(run, inputs[n], grads[n]) for n, (run, _) in contestants.items()}
        times = side_by_side(runs, device, args.rounds)
        best = min((n for n in times if n != "ours"), key=lambda n: times[n]["median"])
        seconds, work = times["ours"]["median"], case.work()[key]
        made = case.weight.element_size() * math.prod(case.output)
        if key == "forward_backward":
            made += sum(t.numel() * t.element_size() for t in inputs["ours"])
        row[key] = {
            "seconds": times,
            "best_other": best,
            "ratio": times[best]["median"] / seconds,
            "gflop_s": 1e-9 * work["operations"] / seconds,
            "gb_s": 1e-9 * work["bytes"] / seconds,
            "results_bytes": made,
            "peak_extra_bytes": {n: peak_extra_bytes(run, device) for n, run in runs.items()},
        }
    return row


def _leaves(*tensors: Tensor) -> list[Tensor]:
    return [t.detach().requires_grad_() for t in tensors]


def _forward(run: Callable, inputs: list[Tensor], grad: Tensor) -> Callable:
    def step() -> None:
        with torch.no_grad():
            run(*inputs)

    return step


def _forward_backward(run: Callable, inputs: list[Tensor], grad: Tensor) -> Callable:
    return lambda: torch.autograd.grad(run(*inputs), inputs, grad)


def main(argv: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks graph_conv", description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--backend", help="of ours (default: the one that would be chosen)")
    parser.add_argument("--samples", type=int, nargs="+", default=[64, 256], help="tracks")
    parser.add_argument("--joints", nargs="+", choices=LAYOUTS, default=list(LAYOUTS))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--compile", action="store_true", help="torch.compile of each as well")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--out", type=Path, help="file to write (default: one in results/)")
    args = parser.parse_args(argv)
    device = torch.device(args.device)
    Case.backend = args.backend
    result = {
        "benchmark": "graph_conv",
        "backend": args.backend or "default",
        "malloc": os.environ.get("GLIBC_TUNABLES", "as it comes"),
        **describe(device),
        "ceilings": ceilings(device, getattr(torch, args.dtype)),
        "rows": [],
    }
    for samples, joints, (c_in, c_out, frames) in product(args.samples, args.joints, SHAPES):
        sizes = {"N": samples, "C_in": c_in, "C_out": c_out, "T": frames, "V": joints}
        case = Case(samples, c_in, c_out, frames, joints, args)
        row = {"op": "graph_conv", "dtype": args.dtype, **sizes, **measure(case, args)}
        result["rows"].append(row)
        if not args.json:
            print(_line(row), flush=True)
    name = f"graph_conv-{device.type}-{args.dtype}-{setting(device, args.backend)}"
    return save(result, name, args)


def _line(row: dict[str, Any]) -> str:
    parts = [f"N {row['N']:3} V {row['V']} {row['C_in']:3} -> {row['C_out']:3} T {row['T']}"]
    for key in ("forward", "forward_backward"):
        of = row[key]
        parts.append(
            f"{key} {1e3 * of['seconds']['ours']['median']:7.2f} ms, {of['ratio']:5.2f}x of "
            f"{of['best_other']}, memory {of['peak_extra_bytes']['ours'] / of['results_bytes']:.2f}"
        )
    return "; ".join(parts)
