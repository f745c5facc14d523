"""The operators: fake tensors and autograd.

``msclr::graph_conv`` is compiled (csrc/: its schema, and code for CPU and CUDA tensors);
``msclr::graph_conv_triton`` is the same operator in Triton, and needs no compiler.
"""

from __future__ import annotations

import torch
from torch import Tensor

from msclr.kernels._backend import has_triton, load_library
from msclr.kernels._triton_op import define_triton

COMPILED = "graph_conv"
TRITON = "graph_conv_triton"
BACKENDS = {}  # backend -> operator, of those that may be called here
if load_library():
    BACKENDS |= {"cpu": COMPILED, "cuda": COMPILED}
if has_triton():
    BACKENDS["triton"] = TRITON

# As in csrc/library.cpp.
_SCHEMA = (
    "(Tensor x, Tensor weight, Tensor? bias, Tensor adjacency, Tensor? layout_index=None, "
    "Tensor? joint_counts=None, Tensor? support=None) -> Tensor"
)
_BACKWARD_SCHEMA = (
    "(Tensor grad, Tensor x, Tensor weight, Tensor? bias, Tensor adjacency, Tensor? layout_index, "
    "Tensor? joint_counts, Tensor? support, bool want_x, bool want_weight, bool want_bias, "
    "bool want_adjacency) -> (Tensor, Tensor, Tensor, Tensor)"
)


def graph_conv(
    name: str,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    adjacency: Tensor,
    layout_index: Tensor | None = None,
    joint_counts: Tensor | None = None,
    support: Tensor | None = None,
) -> Tensor:
    """``torch.ops.msclr.<name>``; see :func:`msclr.kernels.masked_graph_conv`."""
    run = getattr(torch.ops.msclr, name)
    return run(x, weight.flatten(1), bias, adjacency, layout_index, joint_counts, support)


def empty_activations(x: Tensor, channels: int) -> Tensor:
    """(N, channels, T, V): channels-last, unless x is contiguous in the (N, C, T, V) order."""
    channels_last = x.stride(1) == 1 or not x.is_contiguous()
    return torch.empty(
        (x.shape[0], channels, *x.shape[2:]),
        dtype=x.dtype,
        device=x.device,
        memory_format=torch.channels_last if channels_last else torch.contiguous_format,
    )


def _fake(x, weight, bias, adjacency, layout_index=None, joint_counts=None, support=None):
    return empty_activations(x, weight.shape[0] // adjacency.shape[-3])


def _fake_backward(
    grad, x, weight, bias, adjacency, layout_index, joint_counts, support, *wanted: bool
):
    want_x, want_weight, want_bias, want_adjacency = wanted
    none = x.new_empty(0)
    return (
        empty_activations(x, x.shape[1]) if want_x else none,
        weight.new_empty(weight.shape) if want_weight else weight.new_empty(0),
        none if bias is None else bias.new_empty(bias.shape if want_bias else 0),
        adjacency.new_empty(adjacency.shape) if want_adjacency else adjacency.new_empty(0),
    )


def _save(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs)


def _differentiable(name: str) -> None:
    backward = getattr(torch.ops.msclr, f"{name}_backward")

    def gradients(ctx, grad):
        wanted = ctx.needs_input_grad[:4]
        found = backward(grad, *ctx.saved_tensors, *wanted)
        return (*(g if want else None for g, want in zip(found, wanted, strict=True)), *[None] * 3)

    torch.library.register_fake(f"msclr::{name}", _fake)
    torch.library.register_fake(f"msclr::{name}_backward", _fake_backward)
    torch.library.register_autograd(f"msclr::{name}", gradients, setup_context=_save)


if "triton" in BACKENDS:
    _KERNEL = "msclr.kernels.graph_conv.triton_kernel"
    define_triton(TRITON, _SCHEMA, _KERNEL, "forward")
    define_triton(f"{TRITON}_backward", _BACKWARD_SCHEMA, _KERNEL, "backward")
for _name in set(BACKENDS.values()):
    _differentiable(_name)
