"""Argument checks of masked_graph_conv, shared by every backend; a GPU is never waited for."""

from __future__ import annotations

import torch
from torch import Tensor

from msclr.kernels._arguments import want, want_one_device, want_within
from msclr.kernels.graph_conv.operator import Arguments

MAX_JOINTS = 128


def check_arguments(arguments: Arguments) -> None:
    """Raise ValueError naming the first argument that does not fit the others."""
    x, weight, bias, adjacency, layout_index, joint_counts, support = arguments
    want(x.dim() == 4, "x", x, "(N, C_in, T, V)")
    want(x.is_floating_point(), "x", x, "a floating point dtype")
    n, c_in, _, v = x.shape
    want(1 <= v <= MAX_JOINTS, "x", x, f"1 to {MAX_JOINTS} joints")
    mixed = layout_index is not None or joint_counts is not None
    form = "(L, K, V, V)" if mixed else "(K, V, V)"
    want(adjacency.dim() == (4 if mixed else 3), "adjacency", adjacency, form)
    want(adjacency.shape[-2:] == (v, v), "adjacency", adjacency, f"{form} with V = {v} as in x")
    k = adjacency.shape[-3]
    pointwise = weight.dim() == 2 or (weight.dim() == 4 and weight.shape[2:] == (1, 1))
    want(
        pointwise and weight.shape[1] == c_in and k > 0 and weight.shape[0] % k == 0,
        "weight",
        weight,
        f"(K*C_out, {c_in}) or (K*C_out, {c_in}, 1, 1) with K = {k}",
    )
    if bias is not None:
        want(bias.shape == weight.shape[:1], "bias", bias, f"({weight.shape[0]},) or None")
    if support is not None:
        want(support.dtype == torch.bool, "support", support, "bool (see graph_support)")
        want(support.shape == adjacency.shape, "support", support, f"{tuple(adjacency.shape)}")
    if mixed:
        _check_layouts(x, adjacency, layout_index, joint_counts)
    want_one_device(**arguments._asdict())


def _check_layouts(
    x: Tensor, adjacency: Tensor, layout_index: Tensor | None, joint_counts: Tensor | None
) -> None:
    if layout_index is None or joint_counts is None:
        raise ValueError("layout_index and joint_counts go together: give both or neither")
    layouts = adjacency.shape[0]
    for name, tensor, shape in (
        ("layout_index", layout_index, (x.shape[0],)),
        ("joint_counts", joint_counts, (layouts,)),
    ):
        want(tensor.dtype in (torch.int32, torch.int64), name, tensor, "int32 or int64")
        want(tensor.shape == shape, name, tensor, str(shape))
    want_within("layout_index", layout_index, 0, layouts - 1, f"lie in 0..{layouts - 1}")
    want_within("joint_counts", joint_counts, 0, x.shape[3], f"lie in 0..{x.shape[3]}")
