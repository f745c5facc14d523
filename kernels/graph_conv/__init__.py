"""Masked graph convolution over variable joint layouts: the public function."""

from __future__ import annotations

import torch
from torch import Tensor

from msclr.kernels.graph_conv import operator
from msclr.kernels.graph_conv.check import MAX_JOINTS, check_arguments
from msclr.kernels.graph_conv.operator import Arguments

__all__ = ["MAX_JOINTS", "graph_support", "masked_graph_conv"]


def masked_graph_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    adjacency: Tensor,
    layout_index: Tensor | None = None,
    joint_counts: Tensor | None = None,
    support: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """Spatial graph convolution of ST-GCN for one joint layout or a mixture of them.

    ``y[n,o,t,w] = sum_k sum_v (sum_c W[k,o,c] x[n,c,t,v] + b[k,o]) * A[l(n),k,v,w]``

    Args:
        x: activations (N, C_in, T, V), any strides, channels_last preferred.
        weight: (K*C_out, C_in), or (K*C_out, C_in, 1, 1) as a 1x1 convolution keeps it.
        bias: (K*C_out,) or None.
        adjacency: (K, V, V), or (L, K, V, V) together with ``layout_index``.
        layout_index: integer (N,), the layout of each sample; needs ``joint_counts``.
        joint_counts: integer (L,), the real joints of each layout. Joints at or past it are
            never read, come out as exact 0 and get a gradient of exactly 0.
        support: bool of the adjacency's shape, or what :func:`graph_support` made of it: a
            promise that the adjacency is 0 outside it and that no gradient is wanted there.
        backend: "cpu", "triton", "cuda" or "reference" (see :func:`msclr.kernels.backends`), or
            None for the fastest one known to be right on x's device.

    Returns:
        y (N, C_out, T, V) of x's dtype, or of the autocast dtype under autocast. Gradients flow to
        x, weight, bias and adjacency. Backends other than the reference sum at least in float32
        and make y contiguous where x is, else channels_last.

    Raises:
        ValueError: an argument of the wrong shape, dtype or device; it is named.

    Source: Yan et al., "Spatial Temporal Graph Convolutional Networks" (AAAI 2018), eq. 5.

    Code: ``kernels/graph_conv/operator.py``; C++ ``csrc/graph_conv/cpu.cpp``, CUDA
    ``csrc/graph_conv/cuda.cu``, Triton ``kernels/graph_conv/triton_launch.py``.
    """
    arguments = Arguments(x, weight, bias, adjacency, layout_index, joint_counts, support)
    check_arguments(arguments)
    return operator.masked_graph_conv(backend, arguments._replace(weight=weight.flatten(1)))


def graph_support(adjacency: Tensor) -> Tensor:
    """Where an adjacency may be non-zero: bool of its shape, made once and passed as ``support``.

    Args:
        adjacency: (K, V, V) or (L, K, V, V), any float dtype; the fixed graph, without weights.
    """
    if not torch.is_tensor(adjacency) or adjacency.dim() not in (3, 4):
        raise ValueError(
            f"adjacency must be a (K, V, V) or (L, K, V, V) tensor, got {_shape_of(adjacency)}"
        )
    return adjacency.detach() != 0


def _shape_of(value: object) -> str:
    return str(tuple(value.shape)) if torch.is_tensor(value) else type(value).__name__
