"""The temporal convolution in Triton: what is launched, with which blocks and scratch memory.

Bytes a row, with e the size of an element: forward (C_in + C_out) e; backward to x
(2 C_out + 2 C_in) e and to the weight (2 C_out + C_in) e, for it reads the gradient, what it is a
gradient of, and x. A tile's rows are read once for each tap, from the caches but for the first.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from msclr.kernels._block_sizes import tunable
from msclr.kernels._segments import rows_in
from msclr.kernels._triton import block_size, cdiv
from msclr.kernels._triton_rows import RowTypes, plan_rows, splits_of
from msclr.kernels._triton_sums import sum_of_parts
from msclr.kernels.temporal_conv import triton_kernels as programs

TAPS = 9


def forward(
    x: Tensor,
    norm: Tensor,
    weight: Tensor,
    bias: Tensor,
    segments: Sequence[int],
    stride: int,
    want_sums: bool,
    counts: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """y, and its sums (tiles, 2, C_out); ``norm`` (2, C_in) is scale and shift; ``counts`` (L,)
    samples of each segment are there."""
    taps = packed_taps(weight, x.dtype, transposed=False)
    return _convolve(x, None, norm, taps, bias, None, None, segments, stride, counts, want_sums)


def backward(
    d: Tensor,
    y: Tensor,
    coefficients: Tensor,
    x: Tensor,
    norm: Tensor,
    weight: Tensor,
    segments: Sequence[int],
    stride: int,
    counts: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """e, and its sums (tiles, 2, C_in)."""
    taps = packed_taps(weight, d.dtype, transposed=True)
    return _convolve(d, y, coefficients, taps, None, x, norm, segments, stride, counts)


def packed_taps(weight: Tensor, dtype: torch.dtype, transposed: bool) -> Tensor:
    """The weight (C_out, C_in, 9) as (9, C_in, C_out), transposed (9, C_out, C_in), in one copy."""
    taps = weight.permute(2, 0, 1) if transposed else weight.permute(2, 1, 0)
    return taps.to(dtype, memory_format=torch.contiguous_format, copy=True)


def _convolve(
    given: Tensor,
    other: Tensor | None,
    norm: Tensor,
    taps: Tensor,
    bias: Tensor | None,
    gate: Tensor | None,
    gate_norm: Tensor | None,
    segments: Sequence[int],
    stride: int,
    counts: Tensor | None,
    want_sums: bool = True,
) -> tuple[Tensor, Tensor | None]:
    types = RowTypes(given.dtype)
    _, read, channels = taps.shape
    blocks = _blocks(types, read, channels)
    backward = other is not None
    plan = plan_rows(segments, stride, backward, blocks["BLOCK_M"], given.device)
    made = given.new_empty(rows_in(segments, 1 if backward else stride), channels)
    sums = types.new_sums(given, plan.tiles, 2, channels) if want_sums else None
    if plan.tiles:
        programs.convolve[(plan.tiles * cdiv(channels, blocks["BLOCK_N"]),)](
            given, other, norm, taps, bias, gate, gate_norm, plan.table, counts, made, sums,
            read, channels, STRIDE=stride, ENTRIES=plan.entries, **types.constants, **blocks,
        )  # fmt: skip
    return made, sums


def weight_gradient(
    d: Tensor,
    y: Tensor,
    coefficients: Tensor,
    x: Tensor,
    norm: Tensor,
    weight: Tensor,
    segments: Sequence[int],
    stride: int,
    counts: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Those of the weight and of the bias, in the weight's dtype."""
    types = RowTypes(d.dtype)
    out, inner, _ = weight.shape
    blocks = _weight_blocks(types, inner, out)
    plan = plan_rows(segments, stride, False, blocks["BLOCK_M"], d.device)
    pieces = cdiv(inner, blocks["BLOCK_C"]) * cdiv(out, blocks["BLOCK_O"])
    groups = TAPS // blocks["GROUP"]
    splits = splits_of(d, plan.tiles, pieces * groups, 16 // blocks["num_warps"])
    sums = types.new_sums(d, splits, weight.numel() + out)
    if splits:
        programs.weight_gradient[(splits, pieces, groups)](
            d, y, coefficients, x, norm, plan.table, counts, sums, inner, out, plan.tiles,
            STRIDE=stride, ENTRIES=plan.entries, **types.constants, **blocks,
        )  # fmt: skip
    made = weight.new_empty(weight.shape), weight.new_empty(out)
    sum_of_parts(sums, *made)
    return made


# Blocks. All were chosen by what ptxas makes of them for sm_80 and sm_90: no spills, and
# tensor-core instructions where there are any. Unmeasured yet.


@tunable("temporal_conv.convolve")
def _blocks(types: RowTypes, read: int, made: int) -> dict[str, int]:
    rows, most_made, most_read, warps = types.pick(
        half=(128, 64, 64, 8), single=(64, 64, 32, 4), double=(32, 32, 16, 4)
    )
    return {
        "BLOCK_M": rows,
        "BLOCK_N": block_size(made, most_made),
        "BLOCK_C": block_size(read, most_read),
        "num_warps": warps,
        "maxnreg": 255,  # without a limit ptxas sometimes spills to stay below one it sets itself
    }


@tunable("temporal_conv.weight_gradient")
def _weight_blocks(types: RowTypes, inner: int, out: int) -> dict[str, int]:
    group, rows, most_in, most_out, warps = types.pick(
        half=(3, 32, 32, 32, 4), single=(1, 32, 32, 32, 4), double=(3, 32, 16, 16, 4)
    )
    return {
        "GROUP": group,
        "BLOCK_M": rows,
        "BLOCK_C": block_size(inner, most_in),
        "BLOCK_O": block_size(out, most_out),
        "num_warps": warps,
        "maxnreg": 255,
    }
