"""The Triton programs of the temporal convolution over packed rows; triton_launch.py launches them.

What they compute is in operator.py. A tap is a shift of whole frames, so of one joint's rows; rows
are normalised as they are read, once a tap, and their sums are taken as they are written.

Backward a row of x adds up over the frames t' that read it: tap k of frame t' reads frame
stride t' + k - 4. Of stride 2, even frames were read by the taps 0, 2 .. 8 and odd ones by 1, 3, 5,
7, so tiles have either.
"""

from __future__ import annotations

import triton
import triton.language as tl

from msclr.kernels._triton_rows import (
    PARITY,
    READ_FRAMES,
    as_operand,
    entry_of,
    normed_rows,
    own_rows,
    read_rows,
    rows_of_tile,
    store_sums,
)

TAPS = tl.constexpr(9)
REACH = tl.constexpr(4)


@triton.jit
def convolve(
    given,  # (R, C_read): x, or d
    other,  # None, or y
    norm,  # (2, C_read), or (3, C_read)
    weight,  # (9, C_read, C_made)
    bias,  # (C_made,) or None
    gate,  # None, or x (R', C_made): made is 0 where x scale + shift <= 0
    gate_norm,  # (2, C_made): scale and shift
    table,
    counts,  # None, or (L,): samples that are there
    made,  # (R', C_made)
    sums,  # None, or (tiles, 2, C_made): of made as it is stored, and of made * made or made * gate
    channels_read,
    channels_made,
    STRIDE: tl.constexpr,
    ENTRIES: tl.constexpr,
    SUM: tl.constexpr,
    OPERAND: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """One program makes BLOCK_M rows times BLOCK_N channels; with `other`, backward."""
    blocks = tl.cdiv(channels_made, BLOCK_N)
    tile = tl.program_id(0) // blocks
    o = tl.program_id(0) % blocks * BLOCK_N + tl.arange(0, BLOCK_N)
    segment, entry = entry_of(table, tile, ENTRIES)
    sample, frame, joint, is_there, exists = rows_of_tile(entry, counts, tile, BLOCK_M)
    read_frames = tl.load(entry + READ_FRAMES)
    parity = tl.load(entry + PARITY)
    taps = TAPS if other is None else (TAPS - parity + STRIDE - 1) // STRIDE

    acc = tl.zeros((BLOCK_M, BLOCK_N), SUM)
    for i in range(taps * tl.cdiv(channels_read, BLOCK_C)):
        j = i % taps
        c = i // taps * BLOCK_C + tl.arange(0, BLOCK_C)
        if other is None:
            tap = j
            t = frame * STRIDE + j - REACH
        else:
            tap = parity + STRIDE * j
            t = frame + REACH // STRIDE - j
        there = is_there & (t >= 0) & (t < read_frames)
        row = read_rows(entry, sample, t, joint)
        a = normed_rows(given, other, norm, row, there, c, channels_read, SUM)
        factor_at = weight + (tap * channels_read + c)[:, None] * channels_made + o[None, :]
        within = (c < channels_read)[:, None] & (o < channels_made)[None, :]
        factor = tl.load(factor_at, mask=within, other=0).to(OPERAND)
        acc = tl.dot(as_operand(a, given, OPERAND), factor, acc, PRECISION, out_dtype=SUM)

    row = own_rows(entry, sample, frame, joint, 1 if other is None else STRIDE)
    inside = exists[:, None] & (o < channels_made)[None, :]
    known = is_there[:, None] & (o < channels_made)[None, :]
    at = row[:, None] * channels_made + o[None, :]
    if gate is None:
        acc += tl.load(bias + o, mask=o < channels_made, other=0).to(SUM)[None, :]
        if counts is not None:
            acc = tl.where(known, acc, 0)
        stored = acc.to(made.dtype.element_ty)
        seen = tl.where(known, stored.to(SUM), 0)
        factors = seen
    else:
        factors = tl.load(gate + at, mask=known, other=0).to(SUM)
        scale = tl.load(gate_norm + o, mask=o < channels_made, other=0)
        shift = tl.load(gate_norm + channels_made + o, mask=o < channels_made, other=0)
        closed = factors * scale.to(SUM)[None, :] + shift.to(SUM)[None, :] <= 0  # not where NaN
        stored = tl.where(closed, 0, acc).to(made.dtype.element_ty)
        seen = tl.where(known, stored.to(SUM), 0)
    if sums is not None:
        store_sums(sums, tile, o, channels_made, seen, seen * factors)
    tl.store(made + at, stored, mask=inside)


@triton.jit(do_not_specialize=["tiles"])
def weight_gradient(
    d,  # (R', C_out); this and the next two make g
    y,
    coefficients,
    x,  # (R, C_in)
    norm,  # (2, C_in)
    table,
    counts,  # None, or (L,)
    sums,  # (splits, 9 C_out C_in + C_out): of the weight (C_out, C_in, 9), and of the bias
    channels_in,
    channels_out,
    tiles,
    STRIDE: tl.constexpr,
    GROUP: tl.constexpr,  # taps that a program does at once
    ENTRIES: tl.constexpr,
    SUM: tl.constexpr,
    OPERAND: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_O: tl.constexpr,
):
    """A program adds up its share of the tiles, for a block of channels and GROUP taps."""
    split = tl.program_id(0)
    blocks = tl.cdiv(channels_in, BLOCK_C)
    c = tl.program_id(1) % blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    o = tl.program_id(1) // blocks * BLOCK_O + tl.arange(0, BLOCK_O)
    first_tap = tl.program_id(2) * GROUP
    acc = ()
    for _ in tl.static_range(GROUP):
        acc = acc + (tl.zeros((BLOCK_O, BLOCK_C), SUM),)
    of_bias = tl.zeros((BLOCK_O,), SUM)
    for tile in range(split, tiles, tl.num_programs(0)):
        segment, entry = entry_of(table, tile, ENTRIES)
        sample, frame, joint, exists, has = rows_of_tile(entry, counts, tile, BLOCK_M)
        read_frames = tl.load(entry + READ_FRAMES)
        row = own_rows(entry, sample, frame, joint, 1)
        g = normed_rows(d, y, coefficients, row, exists, o, channels_out, SUM)
        of_bias += tl.sum(g, 0)
        g = tl.trans(as_operand(g, x, OPERAND))
        grown = ()
        for i in tl.static_range(GROUP):
            t = frame * STRIDE + first_tap + i - REACH
            there = exists & (t >= 0) & (t < read_frames)
            near = read_rows(entry, sample, t, joint)
            a = normed_rows(x, None, norm, near, there, c, channels_in, SUM)
            a = as_operand(a, x, OPERAND)
            grown = grown + (tl.dot(g, a, acc[i], PRECISION, out_dtype=SUM),)
        acc = grown
    size = channels_out * channels_in * TAPS
    own = sums + split.to(tl.int64) * (size + channels_out)
    inside = (o < channels_out)[:, None] & (c < channels_in)[None, :]
    for i in tl.static_range(GROUP):
        at = (o[:, None] * channels_in + c[None, :]) * TAPS + first_tap + i
        tl.store(own + at, acc[i], mask=inside)
    once = (o < channels_out) & (tl.program_id(1) % blocks == 0) & (first_tap == 0)
    tl.store(own + size + o, of_bias, mask=once)
