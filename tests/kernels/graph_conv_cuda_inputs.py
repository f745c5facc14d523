"""Inputs of the tests of the CUDA graph convolution, and what each result is compared with."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from msclr.kernels import backends
from msclr.kernels.graph_conv import reference
from tests.kernels.cuda_on_cpu.driver import GRADIENTS

DTYPES = (torch.bfloat16, torch.float16)
ALL_DTYPES = (*DTYPES, torch.float32, torch.float64)  # of parameters
ON_A_GPU = pytest.mark.skipif(bool(backends()["cuda"]), reason=backends()["cuda"] or "")


# n, c_in, c_out, frames, v, k, joints of each layout (None: one layout, all joints real)
CASES = {
    "one joint": (5, 8, 8, 3, 1, 1, None),
    "two joints, odd channels": (2, 3, 5, 7, 2, 2, None),
    "17 joints": (2, 16, 24, 9, 17, 3, None),
    "25 joints, first layer": (2, 3, 64, 6, 25, 3, None),
    "25 joints, weight stays": (2, 64, 72, 6, 25, 3, None),
    "25 joints, weight streams": (1, 160, 8, 11, 25, 3, None),
    "five partitions in two groups": (2, 33, 65, 1, 43, 5, None),
    "five partitions, weight streams": (2, 136, 64, 2, 25, 5, None),
    "64 joints": (1, 8, 16, 3, 64, 2, None),
    "128 joints": (2, 8, 8, 1, 128, 2, None),
    "mixed layouts": (7, 16, 8, 9, 43, 3, (25, 43, 17)),
    "mixed layouts, one without joints": (4, 8, 70, 3, 5, 2, (5, 0, 3)),
    "mixed layouts, odd channels": (5, 5, 7, 4, 87, 3, (87, 42)),
}


def arguments(n, c_in, c_out, frames, v, k, counts, dtype, parameters=None, dense=False, seed=0):
    """The operator's arguments, with NaN wherever a joint is masked."""
    g = torch.Generator().manual_seed(seed)
    adjacency_shape = (*([len(counts)] if counts else []), k, v, v)
    x = torch.randn(n, c_in, frames, v, generator=g).to(dtype)
    weight = torch.randn(k * c_out, c_in, generator=g).to(parameters or dtype)
    bias = torch.randn(k * c_out, generator=g).to(parameters or dtype)
    adjacency = torch.randn(adjacency_shape, generator=g).to(parameters or dtype)
    support = None if dense else torch.rand(adjacency_shape, generator=g) < 3 / v
    if support is not None:
        adjacency *= support
    index = counted = None
    if counts:
        index, counted = torch.arange(n) % len(counts), torch.tensor(counts, dtype=torch.int32)
        for sample, layout in enumerate(index.tolist()):
            x[sample, ..., counts[layout] :] = float("nan")
        for layout, count in enumerate(counts):
            adjacency[layout, :, count:] = adjacency[layout, ..., count:] = float("nan")
    x = x.contiguous(memory_format=torch.channels_last)
    return [x, weight, bias, adjacency, index, counted, support]


def exact(grad: Tensor, inputs: list, absolute: bool = False) -> dict[str, Tensor]:
    """y and the gradients in float64; or their bounds, with absolute values of all numbers."""

    def number(t):
        if t is None or not t.is_floating_point():
            return t
        return t.detach().double().abs() if absolute else t.detach().double()

    leaves = [None if t is None else number(t).requires_grad_() for t in inputs[:4]]
    y = reference.masked_graph_conv(*leaves, *inputs[4:])
    found = torch.autograd.grad(y, [t for t in leaves if t is not None], number(grad))
    names = [name for name, t in zip(GRADIENTS, leaves, strict=True) if t is not None]
    return {"y": y.detach(), **dict(zip(names, found, strict=True))}


def upstream(inputs: list, seed: int = 1) -> Tensor:
    """A gradient of y; where joints are masked it is not 0."""
    x, weight, _, adjacency = inputs[:4]
    shape = (x.shape[0], weight.shape[0] // adjacency.shape[-3], *x.shape[2:])
    grad = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(x)
    return grad.contiguous(memory_format=torch.channels_last)


def check(found: dict[str, Tensor], grad: Tensor, inputs: list) -> None:
    """Every number is within rounding of the exact one: exactly 0 where no term is summed.

    An operand, an intermediate and a result are rounded, each by half of eps at most.
    """
    wanted, bounds = exact(grad, inputs), exact(grad, inputs, absolute=True)
    eps = torch.finfo(inputs[0].dtype).eps
    for name, value in found.items():
        like = inputs[GRADIENTS.index(name)] if name in GRADIENTS else grad
        assert value.dtype == like.dtype and value.shape == wanted[name].shape, name
        error = (value.double() - wanted[name]).abs()
        worst = (error / eps / bounds[name].clamp_min(1e-30)).max().item() if error.numel() else 0.0
        assert worst <= 1.6, f"{name}: {worst:.2f} eps of the sum of absolute values"


def rounding_errors(found: dict[str, Tensor], grad: Tensor, inputs: list) -> dict[str, float]:
    wanted = exact(grad, inputs)
    return {
        name: (value.double() - wanted[name]).square().mean().sqrt().item()
        for name, value in found.items()
    }


def by_pytorch(grad: Tensor, inputs: list) -> dict[str, Tensor]:
    """The reference in the very dtype."""
    leaves = [t.detach().requires_grad_() for t in inputs[:4]]
    y = reference.masked_graph_conv(*leaves, *inputs[4:])
    found = torch.autograd.grad(y, leaves, grad)
    return {"y": y.detach(), **dict(zip(GRADIENTS, found, strict=True))}
