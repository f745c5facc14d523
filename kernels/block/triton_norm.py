"""The Triton programs of what is small: norms from their sums, in float64.

A norm with its statistics is folded (5, C): mean, reciprocal deviation, scale, shift and the number
of rows, 0 where the statistics are given.
"""

from __future__ import annotations

import triton
import triton.language as tl

from msclr.kernels._triton_rows import COLUMNS, rows_there


@triton.jit
def _wide(numbers):
    """In float64; half precision takes a step in between, as not all pairs are converted."""
    if numbers.dtype.primitive_bitwidth < 32:
        numbers = numbers.to(tl.float32)
    return numbers.to(tl.float64)


@triton.jit
def _store(at, numbers, mask):
    """Numbers of float64 as what they point to."""
    if at.dtype.element_ty.primitive_bitwidth < 64:
        numbers = numbers.to(tl.float32)
    tl.store(at, numbers.to(at.dtype.element_ty), mask=mask)


@triton.jit
def _total(sums, stride, parts, c, channels, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr):
    """Of one row (C,) of each part."""
    total = tl.zeros((BLOCK_C,), tl.float64)
    for start in range(0, parts, BLOCK_P):
        p = start + tl.arange(0, BLOCK_P)
        at = sums + p.to(tl.int64)[:, None] * stride + c[None, :]
        inside = (p < parts)[:, None] & (c < channels)[None, :]
        total += tl.sum(_wide(tl.load(at, mask=inside, other=0)), 0)
    return total


@triton.jit(do_not_specialize=["parts", "rows"])
def fold(
    sums,  # (parts, 2, C): of h and of its squares; counted, (1, 3, C) with the number of rows;
    # None: with the running statistics
    norms,  # (2, C): weight and bias
    running,  # (2, C): mean and variance
    folded,  # (5, C) float64: made here, as are the next two
    numbers,  # (2, C): scale and shift, to compute with
    moments,  # (2, C): mean and unbiased variance
    parts,
    rows,
    table,  # None, or with counts (L,) of which rows: as many as are there
    counts,
    ENTRIES: tl.constexpr,
    channels,
    EPS: tl.constexpr,
    COUNTED: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    exist = c < channels
    mean = _wide(tl.load(running + c, mask=exist, other=0))
    variance = _wide(tl.load(running + channels + c, mask=exist, other=1))
    unbiased = variance
    if counts is not None:
        rows = 0
        for i in tl.static_range(ENTRIES):
            rows += rows_there(table + i * COLUMNS, counts)
    n = tl.zeros((BLOCK_C,), tl.float64) + rows
    if COUNTED:
        n = _wide(tl.load(sums + 2 * channels + c, mask=exist, other=0))
    if sums is not None:
        stride = (3 if COUNTED else 2) * channels
        some = tl.where(n > 0, n, 1)
        own_mean = _total(sums, stride, parts, c, channels, BLOCK_P, BLOCK_C) / some
        squares = _total(sums + channels, stride, parts, c, channels, BLOCK_P, BLOCK_C) / some
        centred = squares - own_mean * own_mean
        centred = tl.where(centred < 0, 0.0, centred)  # NaN stays
        mean = tl.where(n > 0, own_mean, mean)
        variance = tl.where(n > 0, centred, variance)
        unbiased = tl.where(n > 0, centred * (n / tl.where(n > 1, n - 1, 1)), unbiased)
    reciprocal = 1.0 / tl.sqrt(variance + tl.full((1,), EPS, tl.float64))
    scale = _wide(tl.load(norms + c, mask=exist, other=0)) * reciprocal
    shift = _wide(tl.load(norms + channels + c, mask=exist, other=0)) - mean * scale
    _store(folded + c, mean, exist)
    _store(folded + channels + c, reciprocal, exist)
    _store(folded + 2 * channels + c, scale, exist)
    _store(folded + 3 * channels + c, shift, exist)
    _store(folded + 4 * channels + c, n, exist)
    _store(numbers + c, scale, exist)
    _store(numbers + channels + c, shift, exist)
    _store(moments + c, mean, exist)
    _store(moments + channels + c, unbiased, exist)


@triton.jit(do_not_specialize=["parts"])
def norm_gradient(
    sums,  # (parts, rows, C), of which two: of d and of d h
    folded,  # (5, C) float64
    coefficients,  # (4, C): alpha, beta, gamma and the sum of the gradient; or None
    of_norm,  # (2, C): gradients of weight and bias; or None
    parts,
    stride,  # between parts
    channels,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """The gradient of h is alpha d + beta h + gamma.

    Its sum, which a bias in front of the norm has for a gradient, is 0 where statistics are the
    batch's: what rows in float32 add up to would be noise.
    """
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    exist = c < channels
    first = _total(sums, stride, parts, c, channels, BLOCK_P, BLOCK_C)
    second = _total(sums + channels, stride, parts, c, channels, BLOCK_P, BLOCK_C)
    mean = tl.load(folded + c, mask=exist, other=0)
    reciprocal = tl.load(folded + channels + c, mask=exist, other=0)
    of_weight = reciprocal * (second - mean * first)
    if of_norm is not None:
        _store(of_norm + c, of_weight, exist)
        _store(of_norm + channels + c, first, exist)
    if coefficients is not None:
        scale = tl.load(folded + 2 * channels + c, mask=exist, other=0)
        rows = tl.load(folded + 4 * channels + c, mask=exist, other=0)
        factor = tl.where(rows > 0, scale / tl.where(rows > 0, rows, 1), 0)
        beta = -factor * reciprocal * of_weight
        gamma = -factor * first - beta * mean
        _store(coefficients + c, scale, exist)
        _store(coefficients + channels + c, beta, exist)
        _store(coefficients + 2 * channels + c, gamma, exist)
        of_all = scale * first + (beta * mean + gamma) * rows
        _store(coefficients + 3 * channels + c, of_all, exist)


@triton.jit(do_not_specialize=["parts"])
def total(sums, made, parts, stride, channels, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr):
    """Of one row of each part, into float64; as many rows as programs along the second axis."""
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    at = tl.program_id(1) * channels
    found = _total(sums + at, stride, parts, c, channels, BLOCK_P, BLOCK_C)
    tl.store(made + at + c, found, mask=c < channels)
