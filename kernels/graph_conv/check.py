"""Argument checks of masked_graph_conv, shared by every backend; a GPU is never waited for."""

from __future__ import annotations

import torch
from torch import Tensor

MAX_JOINTS = 128


def check_arguments(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    adjacency: Tensor,
    layout_index: Tensor | None,
    joint_counts: Tensor | None,
    support: Tensor | None,
) -> None:
    """Raise ValueError naming the first argument that does not fit the others."""
    _want(x.dim() == 4, "x", x, "(N, C_in, T, V)")
    _want(x.is_floating_point(), "x", x, "a floating point dtype")
    n, c_in, _, v = x.shape
    _want(1 <= v <= MAX_JOINTS, "x", x, f"1 to {MAX_JOINTS} joints")
    mixed = layout_index is not None or joint_counts is not None
    form = "(L, K, V, V)" if mixed else "(K, V, V)"
    _want(adjacency.dim() == (4 if mixed else 3), "adjacency", adjacency, form)
    _want(adjacency.shape[-2:] == (v, v), "adjacency", adjacency, f"{form} with V = {v} as in x")
    k = adjacency.shape[-3]
    pointwise = weight.dim() == 2 or (weight.dim() == 4 and weight.shape[2:] == (1, 1))
    _want(
        pointwise and weight.shape[1] == c_in and k > 0 and weight.shape[0] % k == 0,
        "weight",
        weight,
        f"(K*C_out, {c_in}) or (K*C_out, {c_in}, 1, 1) with K = {k}",
    )
    if bias is not None:
        _want(bias.shape == weight.shape[:1], "bias", bias, f"({weight.shape[0]},) or None")
    if support is not None:
        _want(support.dtype == torch.bool, "support", support, "bool (see graph_support)")
        _want(support.shape == adjacency.shape, "support", support, f"{tuple(adjacency.shape)}")
    if mixed:
        _check_layouts(x, adjacency, layout_index, joint_counts)
    for name, tensor in {
        "weight": weight,
        "bias": bias,
        "adjacency": adjacency,
        "layout_index": layout_index,
        "joint_counts": joint_counts,
        "support": support,
    }.items():
        if tensor is not None and tensor.device != x.device:
            raise ValueError(f"{name} is on {tensor.device}, but x is on {x.device}")


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
        _want(tensor.dtype in (torch.int32, torch.int64), name, tensor, "int32 or int64")
        _want(tensor.shape == shape, name, tensor, str(shape))
    if x.device.type != "cpu":  # looking at values would wait for the device
        return
    if (
        layout_index.numel()
        and not 0 <= int(layout_index.min()) <= int(layout_index.max()) < layouts
    ):
        raise ValueError(
            f"layout_index must lie in 0..{layouts - 1}, got values from "
            f"{int(layout_index.min())} to {int(layout_index.max())}"
        )
    if layouts and not 0 <= int(joint_counts.min()) <= int(joint_counts.max()) <= x.shape[3]:
        raise ValueError(
            f"joint_counts must lie in 0..{x.shape[3]}, got values from "
            f"{int(joint_counts.min())} to {int(joint_counts.max())}"
        )


def _want(holds: bool, name: str, tensor: Tensor, wanted: str) -> None:
    if not holds:
        raise ValueError(f"{name} must be {wanted}, got {tuple(tensor.shape)} {tensor.dtype}")
