"""The Triton programs of a block's end, y = relu(dropout(h scale + shift) + residual).

Dropout is drawn from a counter as dropout.py has it: of 64 numbers in a row, each of 16 counters
makes four words, for numbers 16 apart. Where 64 numbers are whole rows or a part of one, a program
takes BLOCK_R such groups of WIDTH columns, word by word, and no word is made twice. Else (WIDTH 0)
it takes BLOCK_R rows and BLOCK_C columns, and each number makes its four words.
"""

from __future__ import annotations

import triton
import triton.language as tl

from msclr.kernels._triton_rows import places_of_rows

GROUP = tl.constexpr(64)


@triton.jit
def _words(group, lane, seed, block, SEED_IN_MEMORY: tl.constexpr):
    """The four words of counters ``lane`` of groups of 64 numbers."""
    key = tl.load(seed) if SEED_IN_MEMORY else seed
    counter = ((group & 0xFFFFFFF) * 16 + lane).to(tl.uint32)
    high = (group >> 28).to(tl.uint32)
    none = tl.zeros_like(counter)
    return tl.philox(key, counter, high, none, none + block.to(tl.uint32))


@triton.jit
def _factors(word, THRESHOLD: tl.constexpr, KEPT: tl.constexpr, SUM: tl.constexpr):
    drops = word < tl.full((1, 1), THRESHOLD, tl.uint32)
    return tl.where(drops, tl.zeros((1, 1), SUM), tl.full((1, 1), KEPT, SUM))


@triton.jit
def _own_factors(
    place, c, channels, seed, block, THRESHOLD: tl.constexpr, KEPT: tl.constexpr,
    SEED_IN_MEMORY: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    """Those of rows ``place`` and columns c, each from counters of its own."""
    number = place.to(tl.int64)[:, None] * channels + c[None, :]
    i = number % GROUP
    w0, w1, w2, w3 = _words(number // GROUP, i % 16, seed, block, SEED_IN_MEMORY)
    low = tl.where(i < 16, w0, w1)
    return _factors(tl.where(i < 32, low, tl.where(i < 48, w2, w3)), THRESHOLD, KEPT, SUM)


@triton.jit
def _there(r, rows, table, counts, ENTRIES: tl.constexpr):
    """Which rows are there, and their places among those."""
    there = r < rows
    place = r
    if counts is not None:
        there, place = places_of_rows(r, table, counts, ENTRIES)
    return there, place


@triton.jit
def _norm_of(norm, c, channels, SUM: tl.constexpr):
    scale = tl.load(norm + c, mask=c < channels, other=0).to(SUM)
    shift = tl.load(norm + channels + c, mask=c < channels, other=0).to(SUM)
    return scale[None, :], shift[None, :]


@triton.jit
def _make(h, norm, residual, r_norm, made, r, c, there, rows, channels, factors, SUM: tl.constexpr):
    inside = (r < rows)[:, None] & (c < channels)[None, :]
    known = there[:, None] & inside
    at = r.to(tl.int64)[:, None] * channels + c[None, :]
    scale, shift = _norm_of(norm, c, channels, SUM)
    v = tl.load(h + at, mask=known, other=0).to(SUM) * scale + shift
    if factors is not None:
        v = v * factors
    if residual is not None:
        added = tl.load(residual + at, mask=known, other=0).to(SUM)
        if r_norm is not None:
            r_scale, r_shift = _norm_of(r_norm, c, channels, SUM)
            added = added * r_scale + r_shift
        v = v + added
    v = tl.where((v < 0) | ~known, 0, v)  # NaN stays
    tl.store(made + at, v.to(made.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["seed", "rows", "block"])
def output(
    h,  # (R, C), contiguous as all that follow
    norm,  # (2, C): scale and shift
    residual,  # (R, C) or None
    r_norm,  # (2, C) or None
    made,  # (R, C)
    seed,  # a number, or where one is
    rows,
    table,  # of all rows, and samples that are there; or None
    counts,
    ENTRIES: tl.constexpr,
    channels,
    block,
    DROPS: tl.constexpr,
    SEED_IN_MEMORY: tl.constexpr,
    THRESHOLD: tl.constexpr,
    KEPT: tl.constexpr,
    WIDTH: tl.constexpr,
    SUM: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    i = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    if WIDTH == 0:
        c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
        there, place = _there(i, rows, table, counts, ENTRIES)
        factors = None
        if DROPS:
            factors = _own_factors(
                place, c, channels, seed, block, THRESHOLD, KEPT, SEED_IN_MEMORY, SUM
            )
        _make(h, norm, residual, r_norm, made, i, c, there, rows, channels, factors, SUM)
    else:
        first = tl.program_id(1) * WIDTH
        lane = tl.arange(0, 16)
        place = i
        if WIDTH == 64:
            _, place = _there(i, rows, table, counts, ENTRIES)
        group = (place.to(tl.int64) * (GROUP // WIDTH) * channels + first) // GROUP
        words = _words(group[:, None], lane[None, :], seed, block, SEED_IN_MEMORY)
        for w in tl.static_range(4):
            factors = _factors(words[w], THRESHOLD, KEPT, SUM)
            r = i * (GROUP // WIDTH) + w * 16 // WIDTH
            c = first + w * 16 % WIDTH + lane
            there, _ = _there(r, rows, table, counts, ENTRIES)
            _make(h, norm, residual, r_norm, made, r, c, there, rows, channels, factors, SUM)


@triton.jit
def _make_gradient(
    dy, y, h, residual, made, passed, own_sums, r, c, there, rows, channels, factors,
    SUM: tl.constexpr,
):  # fmt: skip
    inside = (r < rows)[:, None] & (c < channels)[None, :]
    known = there[:, None] & inside
    at = r.to(tl.int64)[:, None] * channels + c[None, :]
    z = tl.load(dy + at, mask=known, other=0).to(SUM)
    z = tl.where(tl.load(y + at, mask=known, other=0).to(SUM) <= 0, 0, z)  # not where it is NaN
    d = z
    if factors is not None:
        d = d * factors
    d = tl.where(known, d, 0)
    tl.store(made + at, d.to(made.dtype.element_ty), mask=inside)
    seen = d.to(made.dtype.element_ty).to(SUM)
    normed = tl.load(h + at, mask=known, other=0).to(SUM)
    tl.store(own_sums + c, tl.sum(seen, 0), mask=c < channels)
    tl.store(own_sums + channels + c, tl.sum(seen * normed, 0), mask=c < channels)
    if residual is not None:
        tl.store(passed + at, z.to(passed.dtype.element_ty), mask=inside)
        seen = z.to(passed.dtype.element_ty).to(SUM)
        other = tl.load(residual + at, mask=known, other=0).to(SUM)
        tl.store(own_sums + 2 * channels + c, tl.sum(seen, 0), mask=c < channels)
        tl.store(own_sums + 3 * channels + c, tl.sum(seen * other, 0), mask=c < channels)


@triton.jit(do_not_specialize=["seed", "rows", "block"])
def output_gradient(
    dy,  # (R, C), contiguous as all that follow
    y,
    h,
    residual,  # (R, C) or None: before its norm
    made,  # (R, C): dy where y > 0, times the factors
    passed,  # (R, C) or None: dy where y > 0, for the residual
    sums,  # (parts, S, C): of made and made h; with a residual, passed and passed residual
    seed,
    rows,
    table,
    counts,
    ENTRIES: tl.constexpr,
    channels,
    block,
    DROPS: tl.constexpr,
    SEED_IN_MEMORY: tl.constexpr,
    THRESHOLD: tl.constexpr,
    KEPT: tl.constexpr,
    WIDTH: tl.constexpr,
    SUM: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    i = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    size = (2 if residual is None else 4) * channels
    part = tl.program_id(0).to(tl.int64)
    if WIDTH == 0:
        c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
        there, place = _there(i, rows, table, counts, ENTRIES)
        factors = None
        if DROPS:
            factors = _own_factors(
                place, c, channels, seed, block, THRESHOLD, KEPT, SEED_IN_MEMORY, SUM
            )
        _make_gradient(
            dy, y, h, residual, made, passed, sums + part * size, i, c, there, rows, channels,
            factors, SUM,
        )  # fmt: skip
    else:
        first = tl.program_id(1) * WIDTH
        lane = tl.arange(0, 16)
        place = i
        if WIDTH == 64:
            _, place = _there(i, rows, table, counts, ENTRIES)
        group = (place.to(tl.int64) * (GROUP // WIDTH) * channels + first) // GROUP
        words = _words(group[:, None], lane[None, :], seed, block, SEED_IN_MEMORY)
        for w in tl.static_range(4):
            factors = _factors(words[w], THRESHOLD, KEPT, SUM)
            r = i * (GROUP // WIDTH) + w * 16 // WIDTH
            c = first + w * 16 % WIDTH + lane
            there, _ = _there(r, rows, table, counts, ENTRIES)
            own = sums + (part * (GROUP // WIDTH) + w * 16 // WIDTH) * size
            _make_gradient(
                dy, y, h, residual, made, passed, own, r, c, there, rows, channels, factors, SUM
            )
