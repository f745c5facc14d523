"""A whole ST-GCN in plain PyTorch before and after `msclr.nn.accelerate`, turn about in one run.

Width 64 is the ST-GCN paper's, width 16 that of AimCLR and CrosSCLR; both end in 256 features. Each
is timed as PyTorch comes (NCHW) and moved to channels_last, in eval mode (a forward without
gradients) and in train mode (forward and backward); before also through torch.compile, on request.
`ratio` is the fastest before over the fastest after. Half precision is autocast's.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Iterator
from itertools import product

import torch
from torch import Tensor, nn

from benchmarks.options import FLOATS, positive
from benchmarks.plain_stgcn import PlainSTGCN, widths
from benchmarks.runner import Case, Part, Setup, alike
from msclr import layouts
from msclr.nn import accelerate

# Not 8: in channels_last on the CPU, PyTorch 2.13's gradient of a strided 1x1 convolution from 8 to
# 16 channels overruns its buffer. The widths here were run between guard pages.
WIDTHS = (64, 16)
FRAMES = 50
LAYOUTS = {25: "kinectv2_25", 42: "smplx_42"}
ORDERS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}
NAMES = tuple(f"{order}_{when}" for order in ORDERS for when in ("before", "after"))
COMPILED = tuple(f"{order}_before_compiled" for order in ORDERS)


def options(parser: argparse.ArgumentParser) -> None:
    text = f"tracks, of {FRAMES} frames each (default: 32)"
    parser.add_argument("--samples", type=positive, default=32, help=text)
    parser.add_argument("--joints", type=positive, nargs="+", default=[25], choices=tuple(LAYOUTS))


def cases(args: argparse.Namespace) -> list[Case]:
    return [
        Case(
            {"width": w, "N": args.samples, "T": FRAMES, "V": v, "mode": m, "dtype": args.dtype},
            (*NAMES, *(COMPILED if args.compile else ())),
            4 * args.samples * w * FRAMES * v,
        )
        for w, v, m in product(WIDTHS, args.joints, ("eval", "train"))
    ]


def parts(case: Case, args: argparse.Namespace) -> Iterator[Part]:
    """A step of each model in the case's mode."""
    n, v, mode = (case.sizes[key] for key in ("N", "V", "mode"))
    dtype = getattr(torch, args.dtype)
    x = torch.randn(n, 3, FRAMES, v, 1, device=args.device)
    models = before_and_after(case, x)
    make = _forward if mode == "eval" else _forward_backward
    if args.compile:
        torch._dynamo.reset()  # or many shapes would end in one that is dynamic
        models |= {name: torch.compile(models[name.removesuffix("_compiled")]) for name in COMPILED}
    yield Part(
        {name: make(of.train(mode == "train"), x, dtype) for name, of in models.items()},
        ours=tuple(f"{order}_after" for order in ORDERS),
    )


def before_and_after(case: Case, x: Tensor) -> dict[str, nn.Module]:
    """The same model in each order, as it is and accelerated; all compute the same."""
    graph = layouts.get(LAYOUTS[case.sizes["V"]]).adjacency()
    plain = PlainSTGCN(graph, widths(case.sizes["width"])).to(x.device).eval()
    models = {}
    for order, memory_format in ORDERS.items():
        before = copy.deepcopy(plain).to(memory_format=memory_format)
        after = copy.deepcopy(before)
        summary = accelerate(after)
        if len(summary.swapped) != len(plain.st_gcn_networks):
            raise RuntimeError(f"not all graph convolutions were swapped: {summary}")
        models |= {f"{order}_before": before, f"{order}_after": after}
    with torch.no_grad():  # a GPU's convolutions may run in TF32
        alike({name: [model(x)] for name, model in models.items()}, 1e-2)
    return models


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


SETUP = Setup(
    "2 minutes", file="{device}-{dtype}{compiled}", rounds=5, dtypes=FLOATS[:3], compiles=True
)
