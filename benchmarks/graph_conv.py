"""Masked graph convolution against plain PyTorch, over the shapes of the encoder.

The contestants are ST-GCN's own form, a 1x1 convolution and an einsum with the adjacency, as it
comes (NCHW), in channels_last, and with the adjacency applied by a batched product first; each
eager, and on request through torch.compile. Every contestant gets x in the memory format that suits
it, made beforehand. In a mixed batch every other sample is of 25 joints, filled up to 42, and each
has its own adjacency.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.options import BACKENDS, FLOATS, positive
from benchmarks.runner import Case, Part, Setup, alike, forward, with_gradients
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


FORMS = {  # and whether x comes in channels_last
    "conv_einsum_nchw": (conv_einsum, False),
    "conv_einsum_channels_last": (conv_einsum, True),
    "bmm_first": (bmm_first, True),
}


def options(parser: argparse.ArgumentParser) -> None:
    text = "tracks (default: 64 256; with --compile 256)"
    parser.add_argument("--samples", type=positive, nargs="+", help=text)
    parser.add_argument("--joints", nargs="+", choices=LAYOUTS, default=list(LAYOUTS))


def cases(args: argparse.Namespace) -> list[Case]:
    names = ["ours", *FORMS, *(f"{name}_compiled" for name in FORMS if args.compile)]
    samples = args.samples or ([256] if args.compile else [64, 256])
    found = []
    for n, joints, (c_in, c_out, frames) in product(samples, args.joints, SHAPES):
        sizes = {"N": n, "C_in": c_in, "C_out": c_out, "T": frames, "V": joints}
        numbers = n * (2 * c_in + c_out) * frames * max(_counts(joints))
        size = numbers * getattr(torch, args.dtype).itemsize
        found.append(Case({"op": "graph_conv", "dtype": args.dtype, **sizes}, tuple(names), size))
    return found


def _counts(joints: str) -> list[int]:
    return [layouts.get(name).num_joints for name in LAYOUTS[joints]]


def parts(case: Case, args: argparse.Namespace) -> Iterator[Part]:
    """Forward alone, and forward with the gradients of x, weight, bias and adjacency."""
    x, *parameters, mixed = tensors(case, args)
    forms = contestants(parameters[-1], mixed, args)
    last = x.contiguous(memory_format=torch.channels_last)
    inputs = {
        name: [t.detach().requires_grad_() for t in (last if in_last else x, *parameters)]
        for name, (_, in_last) in forms.items()
    }
    y = {name: form(*inputs[name]).detach() for name, (form, _) in forms.items()}
    grad = torch.randn(y["ours"].shape, device=x.device)
    grads = {name: torch.empty_like(of).copy_(grad) for name, of in y.items()}
    made = y["ours"].nbytes
    steps = {
        name: with_gradients(form, *inputs[name], grad=grads[name])
        for name, (form, _) in forms.items()
    }
    exact = x.element_size() >= 4 and x.device.type == "cpu"  # a GPU's products may be in TF32
    alike({n: (y[n], *step()[:3]) for n, step in steps.items()}, 1e-4 if exact else 5e-2)
    del y, grads

    operations = 2 * parameters[0].shape[0] * x.numel()
    yield Part(
        {name: forward(form, *inputs[name]) for name, (form, _) in forms.items()},
        name="forward",
        operations=operations,
        bytes=x.nbytes + made,
        more={"results_bytes": made},
    )
    yield Part(
        steps,
        name="forward_backward",
        operations=3 * operations,
        bytes=3 * x.nbytes + 2 * made,
        more={"results_bytes": made + sum(t.nbytes for t in inputs["ours"])},
    )


def tensors(case: Case, args: argparse.Namespace) -> tuple:
    """x, weight, bias, adjacency, and the arguments that make ours a mixed batch."""
    device, dtype, sizes = args.device, getattr(torch, args.dtype), case.sizes
    counts = _counts(sizes["V"])
    v = max(counts)
    graphs = [layouts.get(name).adjacency() for name in LAYOUTS[sizes["V"]]]
    graphs = torch.stack([F.pad(a, (0, v - a.shape[-1]) * 2) for a in graphs])  # (L, K, V, V)
    rows = graphs.shape[1] * sizes["C_out"]
    shapes = (sizes["N"], sizes["C_in"], sizes["T"], v), (rows, sizes["C_in"], 1, 1), (rows,)
    x, weight, bias = (torch.randn(shape, device=device).to(dtype) for shape in shapes)
    mixed = {}
    if len(counts) > 1:
        index = torch.arange(len(x), device=device) % len(counts)
        mixed = {"layout_index": index, "joint_counts": torch.tensor(counts, device=device)}
        x[0::2, ..., counts[0] :] = 0
    return x, weight, bias, graphs.squeeze(0).to(device, dtype), mixed


def contestants(
    adjacency: Tensor, mixed: dict[str, Tensor], args: argparse.Namespace
) -> dict[str, tuple[Callable, bool]]:
    """Name -> a function of (x, weight, bias, A), and whether x is to be in channels_last."""
    support = kernels.graph_support(adjacency)

    def ours(x, weight, bias, adjacency):
        return kernels.masked_graph_conv(
            x, weight, bias, adjacency, support=support, backend=args.backend, **mixed
        )

    forms = dict(FORMS)
    if args.compile:
        torch._dynamo.reset()  # or many shapes would end in one that is dynamic
        forms |= {f"{name}_compiled": (torch.compile(f), x) for name, (f, x) in FORMS.items()}
    if mixed:
        index = mixed["layout_index"]
        forms = {name: (_per_sample(f, index), x) for name, (f, x) in forms.items()}
    return {"ours": (ours, True), **forms}


def _per_sample(form: Callable, index: Tensor) -> Callable:
    return lambda x, weight, bias, adjacency: form(x, weight, bias, adjacency[index])


SETUP = Setup(
    "12 minutes", rounds=7, dtypes=FLOATS, backends=BACKENDS, compiles=True, products=True
)
