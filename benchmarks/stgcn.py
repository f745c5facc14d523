"""A whole ST-GCN in plain PyTorch before and after `msclr.nn.accelerate`, turn about in one run.

Width 64 is the ST-GCN paper's, width 16 that of AimCLR and CrosSCLR; both end in 256 features. Each
is timed as PyTorch comes (NCHW) and moved to channels_last, in eval mode (a forward without
gradients) and in train mode (forward and backward). Half precision is autocast's.
"""

from __future__ import annotations

import argparse
import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.machine import describe, side_by_side
from benchmarks.output import save
from benchmarks.plain_stgcn import PlainSTGCN, widths
from msclr import layouts
from msclr.nn import accelerate

# Not 8: in channels_last on the CPU, PyTorch 2.13's gradient of a strided 1x1 convolution from 8 to
# 16 channels overruns its buffer. The widths here were run between guard pages.
WIDTHS = (64, 16)
FRAMES = 50
LAYOUTS = {25: "kinectv2_25", 42: "smplx_42"}
ORDERS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}


def measure(width: int, joints: int, args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for eval and one for train."""
    device, dtype = torch.device(args.device), getattr(torch, args.dtype)
    torch.manual_seed(0)
    plain = PlainSTGCN(layouts.get(LAYOUTS[joints]).adjacency(), widths(width)).to(device)
    x = torch.randn(args.samples, 3, FRAMES, joints, 1, device=device)
    models: dict[str, nn.Module] = {}
    for order, memory_format in ORDERS.items():
        before = copy.deepcopy(plain).to(memory_format=memory_format)
        after = copy.deepcopy(before)
        summary = accelerate(after)
        if len(summary.swapped) != len(plain.st_gcn_networks):
            raise RuntimeError(f"not all graph convolutions were swapped: {summary}")
        _compare(before.eval(), after.eval(), x)
        models |= {f"{order}_before": before, f"{order}_after": after}
    rows = []
    for mode, make in (("eval", _forward), ("train", _forward_backward)):
        for model in models.values():
            model.train(mode == "train")
        steps = {name: make(model, x, dtype) for name, model in models.items()}
        times = side_by_side(steps, device, args.rounds)
        ratios = {
            order: times[f"{order}_before"]["median"] / times[f"{order}_after"]["median"]
            for order in ORDERS
        }
        row = {"width": width, "N": args.samples, "T": FRAMES, "V": joints, "mode": mode}
        rows.append(row | {"dtype": args.dtype, "seconds": times, "ratio": ratios})
    return rows


@torch.no_grad()
def _compare(before: nn.Module, after: nn.Module, x: Tensor) -> None:
    """No figure of a model that computes something else; a GPU's convolutions may run in TF32."""
    wanted = before(x)
    torch.testing.assert_close(after(x), wanted, rtol=0, atol=1e-2 * wanted.abs().max().item())


def _forward(model: nn.Module, x: Tensor, dtype: torch.dtype) -> Callable[[], None]:
    def step() -> None:
        with torch.no_grad(), torch.autocast(x.device.type, dtype, dtype != torch.float32):
            model(x)

    return step


def _forward_backward(model: nn.Module, x: Tensor, dtype: torch.dtype) -> Callable[[], None]:
    def step() -> None:
        model.zero_grad(set_to_none=True)
        with torch.autocast(x.device.type, dtype, dtype != torch.float32):
            loss = model(x).float().square().mean()
        loss.backward()

    return step


def main(argv: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks stgcn", description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--samples", type=int, default=64, help="tracks, of 50 frames each")
    parser.add_argument("--joints", type=int, nargs="+", default=[25], choices=tuple(LAYOUTS))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, help="of the CPU; default: PyTorch's")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--out", type=Path, help="file to write (default: one in results/)")
    args = parser.parse_args(argv)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    result = {
        "benchmark": "stgcn",
        "malloc": os.environ.get("GLIBC_TUNABLES", "as it comes"),
        **describe(device),
        "rows": [],
    }
    for width in WIDTHS:
        for joints in args.joints:
            for row in measure(width, joints, args):
                result["rows"].append(row)
                if not args.json:
                    print(_line(row), flush=True)
    return save(result, f"stgcn-{device.type}-{args.dtype}", args)


def _line(row: dict[str, Any]) -> str:
    parts = [f"width {row['width']:2} V {row['V']} {row['mode']:5}"]
    for order, ratio in row["ratio"].items():
        before, after = (row["seconds"][f"{order}_{x}"]["median"] for x in ("before", "after"))
        parts.append(f"{order} {1e3 * before:7.1f} -> {1e3 * after:7.1f} ms, {ratio:4.2f}x")
    return "; ".join(parts)
