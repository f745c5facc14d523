"""Masked graph convolution against plain PyTorch, over the shapes of the encoder.

The contestants are ST-GCN's own form, a 1x1 convolution and an einsum with the adjacency, as it
comes (NCHW), in channels_last, and with the adjacency applied by a batched product first; each
eager, and on request through torch.compile. Every contestant gets x in the memory format that suits
it, made beforehand. `ratio` is the fastest of them over ours, in the same run.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.machine import ceilings, describe, side_by_side
from msclr import kernels, layouts

# (C_in, C_out, T) of the ten blocks at width 16 and T = 50; like blocks are listed once.
SHAPES = [(3, 16, 50), (16, 16, 50), (16, 32, 50), (32, 32, 25), (32, 64, 25), (64, 64, 13)]
SHAPES += [(64, 256, 13)]
LAYOUTS = {25: "kinectv2_25", 42: "smplx_42"}
RESULTS = Path(__file__).parent / "results"


def nchw(x: Tensor, weight: Tensor, bias: Tensor, adjacency: Tensor) -> Tensor:
    """ST-GCN's code: convolution, then einsum."""
    z = F.conv2d(x, weight, bias).unflatten(1, (len(adjacency), -1))
    return torch.einsum("nkctv,kvw->nctw", z, adjacency)


def bmm_first(x: Tensor, weight: Tensor, bias: Tensor, adjacency: Tensor) -> Tensor:
    """Neighbours added up densely first, then one product with the (K C_in) x C_out weight."""
    k = len(adjacency)
    z = torch.einsum("nctv,kvw->ntwkc", x, adjacency).flatten(3)  # (N, T, V, K*C_in)
    w = weight.flatten(1).unflatten(0, (k, -1)).permute(0, 2, 1).flatten(0, 1)  # (K*C_in, C_out)
    shift = torch.einsum("ko,kvw->wo", bias.unflatten(0, (k, -1)), adjacency)  # (V, C_out)
    return (z @ w + shift).permute(0, 3, 1, 2)


def measure(
    samples: int, c_in: int, c_out: int, frames: int, joints: int, args: argparse.Namespace
) -> dict[str, Any]:
    """One row: seconds of every contestant, forward alone and forward with backward."""
    device, dtype = torch.device(args.device), getattr(torch, args.dtype)
    adjacency = layouts.get(LAYOUTS[joints]).adjacency().to(device, dtype)
    support = kernels.graph_support(adjacency)
    k = len(adjacency)
    x = torch.randn(samples, c_in, frames, joints, device=device).to(dtype)
    last = x.contiguous(memory_format=torch.channels_last)
    weight = torch.randn(k * c_out, c_in, 1, 1, device=device).to(dtype)
    bias = torch.randn(k * c_out, device=device).to(dtype)

    def ours(x, weight, bias, adjacency):
        return kernels.masked_graph_conv(x, weight, bias, adjacency, support=support)

    contestants = {
        "ours": (ours, last),
        "conv_einsum_nchw": (nchw, x),
        "conv_einsum_channels_last": (nchw, last),
        "bmm_first": (bmm_first, last),
    }
    if args.compile:
        for name in list(contestants)[1:]:
            run, best = contestants[name]
            contestants[f"{name}_compiled"] = (torch.compile(run), best)
    row: dict[str, Any] = {
        "op": "graph_conv", "N": samples, "C_in": c_in, "C_out": c_out, "T": frames, "V": joints,
        "dtype": args.dtype,
    }  # fmt: skip
    inputs = {n: _leaves(x, weight, bias, adjacency) for n, (_, x) in contestants.items()}
    grads = {n: torch.randn_like(run(*inputs[n])) for n, (run, _) in contestants.items()}
    for key, make in (("forward", _forward), ("forward_backward", _forward_backward)):
        times = side_by_side(
            {n: make(run, inputs[n], grads[n]) for n, (run, _) in contestants.items()},
            device,
            args.rounds,
        )
        best = min((n for n in times if n != "ours"), key=lambda n: times[n]["median"])
        row[key] = {
            "seconds": times,
            "best_other": best,
            "ratio": times[best]["median"] / times["ours"]["median"],
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
    parser.add_argument("--samples", type=int, nargs="+", default=[64, 256], help="tracks")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--compile", action="store_true", help="torch.compile of each as well")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--out", type=Path, help="file to write (default: a new one in results/)")
    args = parser.parse_args(argv)
    device = torch.device(args.device)
    result = {
        "benchmark": "graph_conv",
        "malloc": os.environ.get("GLIBC_TUNABLES", "as it comes"),
        **describe(device),
        "ceilings": ceilings(device, getattr(torch, args.dtype)),
        "rows": [],
    }
    for samples in args.samples:
        for joints in LAYOUTS:
            for shape in SHAPES:
                row = measure(samples, *shape, joints, args)
                result["rows"].append(row)
                if not args.json:
                    print(_line(row), flush=True)
    tuned = "tuned" if "GLIBC_TUNABLES" in os.environ else "plain"
    out = args.out or RESULTS / f"graph_conv-{device.type}-{args.dtype}-{tuned}.json"
    out.write_text(json.dumps(result, indent=1) + "\n")
    if args.json:
        print(json.dumps(result))
    return result


def _line(row: dict[str, Any]) -> str:
    parts = [f"N {row['N']:3} V {row['V']} {row['C_in']:3} -> {row['C_out']:3} T {row['T']}"]
    for key in ("forward", "forward_backward"):
        ours = row[key]["seconds"]["ours"]["median"]
        parts.append(
            f"{key} {1e3 * ours:7.2f} ms, {row[key]['ratio']:5.2f}x of {row[key]['best_other']}"
        )
    return "; ".join(parts)
