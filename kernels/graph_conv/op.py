"""The compiled operator: fake tensors and autograd. Its schema and CPU code are in csrc/."""

from __future__ import annotations

import torch
from torch import Tensor

from msclr.kernels._backend import load_library

AVAILABLE = load_library()


def graph_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    adjacency: Tensor,
    layout_index: Tensor | None = None,
    joint_counts: Tensor | None = None,
    support: Tensor | None = None,
) -> Tensor:
    """``torch.ops.msclr.graph_conv``; see :func:`msclr.kernels.masked_graph_conv`."""
    return torch.ops.msclr.graph_conv(
        x, weight.flatten(1), bias, adjacency, layout_index, joint_counts, support
    )


def empty_activations(x: Tensor, channels: int) -> Tensor:
    """Channels-last, unless x is contiguous in the (N, C, T, V) order."""
    channels_last = x.stride(1) == 1 or not x.is_contiguous()
    return x.new_empty(x.shape[0], channels, *x.shape[2:]).contiguous(
        memory_format=torch.channels_last if channels_last else torch.contiguous_format
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


def _backward(ctx, grad):
    wanted = ctx.needs_input_grad[:4]
    gradients = torch.ops.msclr.graph_conv_backward(grad, *ctx.saved_tensors, *wanted)
    return (
        *(g if want else None for g, want in zip(gradients, wanted, strict=True)),
        None,
        None,
        None,
    )


if AVAILABLE:
    torch.library.register_fake("msclr::graph_conv", _fake)
    torch.library.register_fake("msclr::graph_conv_backward", _fake_backward)
    torch.library.register_autograd("msclr::graph_conv", _backward, setup_context=_save)
