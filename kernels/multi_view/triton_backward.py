"""The Triton programs of multi-view InfoNCE, backward; triton_launch.py launches them.

triton_forward.py has the formulas, and the types. ROUND is what weights are rounded to.

triton_factors.py makes what turns exp(s / T) into the sum of w p over the pairs of views
that s is a negative for, w being a pair's weight in the mean. `gradient_sums` takes a tile of rows
over all others, as whose anchor or candidate they are pulled: weights computed again, times the
others. It keeps its sums in registers, so a tile is made once for each of its two views, which
costs one product more than making it once, and needs neither atomics nor sums in memory tile
by tile. `gradients` adds the splits up and lets the keys pull.

The temperature's gradient is the sum over all logits of each with its gradient. Where every
similarity is near, the product of a row with its gradient is such a sum over the row's logits.
Otherwise similarities are taken less one of the anchor, its base, which changes nothing but the
rounding, for each anchor's gradients add up to 0.
"""

from __future__ import annotations

import triton
import triton.language as tl

from msclr.kernels._triton import LOG2_E, load_rows, products_in_pieces
from msclr.kernels.multi_view.triton_factors import SCALE
from msclr.kernels.multi_view.triton_forward import (
    NOWHERE,
    _dot_rows,
    _is_near,
    _load_tile,
    _not_own,
    _nth_tile,
    _split_tiles,
)


@triton.jit(
    do_not_specialize=["rows", "clips", "bank_rows", "views", "own", "target_slot", "splits"]
)
def gradient_sums(
    targets,  # (., R, D), contiguous but for the stride of rows
    others,  # (P, N, D), contiguous
    bank,  # (Q, D) or None
    temperature,  # ()
    largest,  # (): norm of a row
    sources,  # (., P + 1) int32: how many views each of the targets meets, and which
    target_factors,  # (2, P, P + 1, width) or None where targets are no anchors
    other_factors,  # (2, P, P + 1, width) or None where the others are no anchors
    sums,  # (S, ., R, D): sums of weights times rows, made here for each split, as is the next
    products,  # (S, ., R) or None: of weights and similarities; if near, those with the bank alone
    rows,  # R
    clips,  # N
    bank_rows,
    dim,
    target_stride,
    bank_stride,
    width,  # of the factors
    views,  # P
    own,  # row r of the targets is of clip own + r of the others
    target_slot,  # of the first of the targets, as the others' candidate
    splits,  # S
    SUM: tl.constexpr,
    ROUND: tl.constexpr,
    OPERAND: tl.constexpr,
    PRECISION: tl.constexpr,
    PIECES: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One program takes BLOCK_M rows over its split of all that they meet."""
    factor = LOG2_E / tl.load(temperature)
    if _is_near(largest, factor):
        _gradient_sums(
            targets, others, bank, factor, sources, target_factors, other_factors, sums, products,
            rows, clips, bank_rows, dim, target_stride, bank_stride, width, views, own, target_slot,
            splits, True, SUM, ROUND, OPERAND, PRECISION, PIECES, BLOCK_M, BLOCK_N, BLOCK_D,
        )  # fmt: skip
    else:
        _gradient_sums(
            targets, others, bank, factor, sources, target_factors, other_factors, sums, products,
            rows, clips, bank_rows, dim, target_stride, bank_stride, width, views, own, target_slot,
            splits, False, SUM, ROUND, OPERAND, PRECISION, PIECES, BLOCK_M,
            BLOCK_N // 2 if BLOCK_N > 16 else BLOCK_N, BLOCK_D,
        )  # fmt: skip


@triton.jit
def _gradient_sums(
    targets, others, bank, factor, sources, target_factors, other_factors, sums, products,
    rows, clips, bank_rows, dim, target_stride, bank_stride, width, views, own, target_slot, splits,
    IS_NEAR: tl.constexpr, SUM: tl.constexpr, ROUND: tl.constexpr, OPERAND: tl.constexpr,
    PRECISION: tl.constexpr, PIECES: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):  # fmt: skip
    start_r = tl.program_id(0) * BLOCK_M
    r = start_r + tl.arange(0, BLOCK_M)
    target, split = tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    left = targets + target * rows * target_stride
    d = tl.arange(0, BLOCK_D)
    kept = tl.zeros((BLOCK_M, BLOCK_D), OPERAND)
    if PIECES == 1:
        kept = _load_tile(left, target_stride, start_r, rows, d, dim, True, OPERAND, BLOCK_M)
    acc = ()
    for _ in tl.static_range(PIECES):
        acc = acc + (tl.zeros((BLOCK_M, BLOCK_D), SUM),)
    product = tl.zeros((BLOCK_M,), SUM)
    plane = views * (views + 1) * width
    bases = None
    if products is not None:
        bases = target_factors + plane + (target * (views + 1) + views) * width

    source = sources + target * (views + 1)
    count = tl.load(source)
    tiles, all_tiles = tl.cdiv(clips, BLOCK_N), tl.cdiv(clips, BLOCK_N) * count
    if bank is not None:
        all_tiles += tl.cdiv(bank_rows, BLOCK_N)
    first = (all_tiles.to(tl.int64) * split // splits).to(tl.int32)
    last = (all_tiles.to(tl.int64) * (split + 1) // splits).to(tl.int32)
    for k in range(count):
        other = tl.load(source + 1 + k).to(tl.int64)
        mine = None
        theirs = None
        if target_factors is not None:
            mine = target_factors + (target * (views + 1) + other) * width
        if other_factors is not None:
            theirs = other_factors + (other * (views + 1) + target_slot + target) * width
        acc, product = _add_tiles(
            acc, product, kept, left, target_stride, start_r, rows, others + other * clips * dim,
            dim, clips, tl.maximum(first - k * tiles, 0), tl.minimum(last - k * tiles, tiles), own,
            dim, factor, mine, theirs, bases, plane, products is not None and not IS_NEAR, IS_NEAR,
            SUM, ROUND, OPERAND, PRECISION, PIECES, BLOCK_M, BLOCK_N, BLOCK_D,
        )  # fmt: skip
    if bank is not None:
        mine = target_factors + (target * (views + 1) + views) * width
        acc, product = _add_tiles(
            acc, product, kept, left, target_stride, start_r, rows, bank, bank_stride, bank_rows,
            tl.maximum(first - count * tiles, 0), last - count * tiles, NOWHERE, dim, factor,
            mine, None, bases, plane, products is not None, IS_NEAR, SUM, ROUND, OPERAND, PRECISION,
            PIECES, BLOCK_M, BLOCK_N, BLOCK_D,
        )  # fmt: skip

    at = (split * tl.num_programs(1) + target) * rows + r
    if products is not None:
        tl.store(products + at, product, mask=r < rows)
    for i in tl.static_range(PIECES):
        c = i * BLOCK_D + d
        inside = (r < rows)[:, None] & (c < dim)[None, :]
        tl.store(sums + at[:, None] * dim + c[None, :], acc[i], mask=inside)


@triton.jit
def _add_tiles(
    acc, product, kept, left, left_stride, start_r, rows, right, right_stride, rights, first, last,
    own, dim, factor, mine, theirs, bases, plane, WANT_PRODUCT: tl.constexpr, IS_NEAR: tl.constexpr,
    SUM: tl.constexpr, ROUND: tl.constexpr, OPERAND: tl.constexpr, PRECISION: tl.constexpr,
    PIECES: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Adds the pull between rows r and some tiles of others, as anchors with factors `mine` and as
    candidates of anchors with factors `theirs`; if far, their shifts lie a plane further."""
    r = start_r + tl.arange(0, BLOCK_M)
    of_r = tl.zeros((BLOCK_M,), SUM)
    if mine is not None:
        of_r = tl.load(mine + r)
    same = start_r + own  # where the rows' own clips begin among the others
    low, high = same // BLOCK_N, tl.cdiv(same + BLOCK_M, BLOCK_N)
    if not IS_NEAR:
        low, high = first, last
    partial = (last * BLOCK_N > rights).to(tl.int32)
    low, high, plain, masked = _split_tiles(first, last, partial, low, high)
    if IS_NEAR:
        for n in range(plain):
            tile = _nth_tile(n, first, last, low, high, False)
            acc, product = _add_tile(
                acc, product, kept, left, left_stride, start_r, rows, right, right_stride, rights,
                tile * BLOCK_N, own, dim, factor, of_r, mine, theirs, bases, plane, False,
                WANT_PRODUCT, IS_NEAR, SUM, ROUND, OPERAND, PRECISION, PIECES, BLOCK_M, BLOCK_N,
                BLOCK_D,
            )  # fmt: skip
    for n in range(masked):
        tile = _nth_tile(n, first, last, low, high, True)
        acc, product = _add_tile(
            acc, product, kept, left, left_stride, start_r, rows, right, right_stride, rights,
            tile * BLOCK_N, own, dim, factor, of_r, mine, theirs, bases, plane, True, WANT_PRODUCT,
            IS_NEAR, SUM, ROUND, OPERAND, PRECISION, PIECES, BLOCK_M, BLOCK_N, BLOCK_D,
        )  # fmt: skip
    return acc, product


@triton.jit
def _add_tile(
    acc, product, kept, left, left_stride, start_r, rows, right, right_stride, rights, start, own,
    dim, factor, of_r, mine, theirs, bases, plane, MASKED: tl.constexpr, WANT_PRODUCT: tl.constexpr,
    IS_NEAR: tl.constexpr, SUM: tl.constexpr, ROUND: tl.constexpr, OPERAND: tl.constexpr,
    PRECISION: tl.constexpr, PIECES: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Adds the pull between rows r and a tile of others."""
    d = tl.arange(0, BLOCK_D)
    r, c = start_r + tl.arange(0, BLOCK_M), start + tl.arange(0, BLOCK_N)
    s = tl.zeros((BLOCK_M, BLOCK_N), SUM)
    if PIECES == 1:
        met = _load_tile(right, right_stride, start, rights, d, dim, MASKED, OPERAND, BLOCK_N)
        s = tl.dot(kept, tl.trans(met), s, PRECISION, out_dtype=SUM)
    else:
        s = products_in_pieces(
            left, left_stride, r, rows, right, right_stride, c, rights, dim, s,
            OPERAND, PRECISION, BLOCK_D,
        )  # fmt: skip
    if theirs is not None:
        of_c = tl.load(theirs + c)
    if IS_NEAR:
        weight = tl.exp2(s * factor)
        if theirs is None:
            weight *= of_r[:, None]
        elif mine is not None:
            weight *= of_r[:, None] + of_c[None, :]
        else:
            weight *= of_c[None, :]
    else:
        weight = tl.zeros((BLOCK_M, BLOCK_N), SUM)
        if mine is not None:
            shift = tl.load(mine + plane + r)  # again for each tile: registers are few
            weight += tl.exp2((s - shift[:, None]) * factor + of_r[:, None])
    if MASKED:
        # Past the last row a weight is any number: times a row of zeros it might be NaN.
        keep = _not_own(BLOCK_M, BLOCK_N, start_r + own - start)
        keep = keep & (tl.arange(0, BLOCK_N) < rights - start)[None, :]
        weight = tl.where(keep, weight, 0)
    if WANT_PRODUCT:
        if IS_NEAR:
            product += tl.sum(weight * s, 1)
        else:
            product += tl.sum(weight * (s - tl.load(bases + r)[:, None]), 1)
    if theirs is not None and not IS_NEAR:
        of_theirs = tl.exp2((s - tl.load(theirs + plane + c)[None, :]) * factor + of_c[None, :])
        weight += tl.where(keep, of_theirs, 0)
    rounded = weight.to(ROUND).to(OPERAND)
    grown = ()
    for i in tl.static_range(PIECES):
        if PIECES > 1:
            met = load_rows(right, right_stride, c, c < rights, i * BLOCK_D + d, dim, OPERAND)
        grown = grown + (tl.dot(rounded, met, acc[i], PRECISION, out_dtype=SUM),)
    return grown, product


@triton.jit
def _pull(weights, excesses, anchor, key, views, batch, b, exist):
    """w (1 - p) of the key, for anchors b."""
    pair = anchor * views + key
    excess = tl.load(excesses + pair * batch + b, mask=exist, other=0)
    return tl.load(weights + pair) / (1 + tl.exp(-excess))


@triton.jit
def _far_product(
    product, targets, others, target, r, own, exist, clips, dim, stride, weights, excesses, bases,
    views, batch, SUM: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Adds, for anchors r of one view, each key's gradient times its similarity less the base."""
    base = tl.load(bases + r, mask=exist, other=0)
    for key in range(views):
        if key != target:
            pull = _pull(weights, excesses, target, key, views, batch, r, exist)
            similarity = _dot_rows(
                targets + target * batch * stride, stride, r,
                others + tl.full((), key, tl.int64) * clips * dim, dim, own + r, exist, dim, SUM,
                BLOCK_D,
            )  # fmt: skip
            product -= tl.where(exist, pull * (similarity - base), 0)
    return product


@triton.jit(do_not_specialize=["rows", "clips", "batch", "views", "own", "splits"])
def gradients(
    targets,  # (., R, D), contiguous but for the stride of rows
    others,  # (P, N, D), contiguous
    temperature,  # ()
    largest,  # (): norm of a row
    upstream,  # (): the gradient of the loss
    weights,  # (P, P)
    excesses,  # (P, P, B)
    factors,  # (2, P, P + 1, width), as `anchor_factors` made it
    sums,  # (S, ., R, D), as `gradient_sums` made it, and the next
    parts,  # (S, ., R) or None
    gradient,  # (., R, D): made here, as is the next
    products,  # (., programs): of logits and gradients, some anchors' sum; if parts are given
    rows,
    clips,
    batch,
    dim,
    target_stride,
    width,  # of the factors
    views,
    own,  # row r of the targets is of clip own + r of the others
    splits,
    AS_ANCHORS: tl.constexpr,  # of keys among the others; this and the next both false: the bank
    AS_KEYS: tl.constexpr,  # of anchors among the others
    SUM: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One program takes BLOCK_B rows: adds up the splits, and pulls at the keys."""
    r = tl.program_id(0).to(tl.int64) * BLOCK_B + tl.arange(0, BLOCK_B)
    target = tl.program_id(1).to(tl.int64)
    divisor = tl.load(temperature)
    scale = tl.load(upstream).to(SUM) / batch / divisor
    exist = r < rows
    meet = exist & (r + own >= 0) & (r + own < clips)
    product = tl.zeros((BLOCK_B,), SUM)
    for start in range(0, dim, BLOCK_D):
        d = start + tl.arange(0, BLOCK_D)
        acc = tl.zeros((BLOCK_B, BLOCK_D), SUM)
        for split in range(splits):
            part = sums + (split * tl.num_programs(1) + target) * rows * dim
            acc += load_rows(part, dim, r, exist, d, dim, SUM)
        acc = acc / SCALE
        if AS_ANCHORS or AS_KEYS:
            for other in range(views):
                if other != target:
                    pull = tl.zeros((BLOCK_B,), SUM)
                    if AS_ANCHORS:
                        pull += _pull(weights, excesses, target, other, views, batch, r, meet)
                    if AS_KEYS:
                        pull += _pull(weights, excesses, other, target, views, batch, r + own, meet)
                    keys = others + tl.full((), other, tl.int64) * clips * dim
                    key = load_rows(keys, dim, r + own, meet, d, dim, SUM)
                    acc -= tl.where(meet, pull, 0)[:, None] * key
        acc = acc * scale
        made = acc.to(gradient.dtype.element_ty)
        at = (target * rows + r)[:, None] * dim + d[None, :]
        tl.store(gradient + at, made, mask=exist[:, None] & (d < dim)[None, :])
        if parts is not None:
            row = load_rows(
                targets + target * rows * target_stride, target_stride, r, exist, d, dim, SUM
            )
            product += tl.sum(row * acc, 1)
    if parts is not None:
        part = tl.zeros((BLOCK_B,), SUM)
        for split in range(splits):
            at = (split * tl.num_programs(1) + target) * rows + r
            part += tl.load(parts + at, mask=exist, other=0)
        part = part / SCALE
        if not _is_near(largest, LOG2_E / divisor):
            bases = factors + (views * (views + 1) + target * (views + 1) + views) * width
            part = _far_product(
                part, targets, others, target, r, own, meet, clips, dim, target_stride, weights,
                excesses, bases, views, batch, SUM, BLOCK_D,
            )  # fmt: skip
            product = part * scale
        elif AS_KEYS:  # both rows of a logit between two views have it in theirs, one of the bank's
            product = (product + part * scale) / 2
        tl.store(products + target * tl.num_programs(0) + tl.program_id(0), tl.sum(product, 0))
