"""``msclr::graph_conv``: its declaration, and where the code of each backend is."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from msclr.kernels._arguments import like
from msclr.kernels._backend import misfit_of_dtype
from msclr.kernels._operator import Operator, define
from msclr.kernels.graph_conv import reference


class Arguments(NamedTuple):
    """See :func:`msclr.kernels.masked_graph_conv`; the weight is (K*C_out, C_in)."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    adjacency: Tensor
    layout_index: Tensor | None = None
    joint_counts: Tensor | None = None
    support: Tensor | None = None


def empty_activations(x: Tensor, channels: int) -> Tensor:
    """(N, channels, T, V): channels-last, unless x is contiguous in the (N, C, T, V) order."""
    channels_last = x.stride(1) == 1 or not x.is_contiguous()
    return torch.empty(
        (x.shape[0], channels, *x.shape[2:]),
        dtype=x.dtype,
        device=x.device,
        memory_format=torch.channels_last if channels_last else torch.contiguous_format,
    )


# The adjacency's gradient reads the bias: dA[k,v,w] = sum_n,o,t grad[..,w] (W_k x + b_k)[..,v].
define(
    "graph_conv",
    "(Tensor x, Tensor weight, Tensor? bias, Tensor adjacency, Tensor? layout_index=None, "
    "Tensor? joint_counts=None, Tensor? support=None) -> Tensor",
    fake=lambda *given: empty_activations(given[0], given[1].shape[0] // given[3].shape[-3]),
    gradients={
        "x": lambda x: empty_activations(x, x.shape[1]),
        "weight": like,
        "bias": like,
        "adjacency": like,
    },
    triton="msclr.kernels.graph_conv.triton_launch",
)

masked_graph_conv = Operator(
    "masked_graph_conv",
    reference=reference.masked_graph_conv,
    cpu=torch.ops.msclr.graph_conv,  # csrc/graph_conv/cpu.cpp
    cuda=torch.ops.msclr.graph_conv,  # csrc/graph_conv/cuda.cu
    triton=torch.ops.msclr.graph_conv_triton,  # triton_launch.py
    autocast=True,
    supports={
        "cuda": lambda a: misfit_of_dtype("cuda", "x", a[0], torch.bfloat16, torch.float16),
    },
)
