"""The Triton programs of InfoNCE against a bank; triton_launch.py launches them.

As on the CPU (csrc/info_nce/cpu.cpp) it is attention whose values are its keys. With
s_j = q.k_j / T over the key and the bank's rows, each query keeps lse = log sum_j exp(s_j) and its
mean mu = sum_j softmax(s)_j k_j:

    loss = lse - q.pos / T     T dq = mu - pos         pos: the mean of the positives
    D    = lse - q.mu_t / T    T dq = mu - mu_t        mu_t: the teacher view's mean, a constant
    T dk_j = sum over queries of softmax(s)_j u - [k_j is a positive] q / their number
             u = q; in the teacher's row less the sum over views of q, as far as D is concerned

The P B queries are counted view by view. `stream` goes over the bank, cut into splits so that all
multiprocessors have work; `combine` puts the splits and the key together; `finish` compares.
Queries then have their gradient without the bank; only a gradient of the bank takes a second pass.

Weights are exp((similarity - the largest) / T): the difference is taken before it is scaled, and so
stays exact however small T is. Products are fed with weights rounded to ROUND. So a mean is divided
by the sum of the rounded weights (`mass`), which keeps it a mean, while lse is made from the sum of
the exact ones (`total`).

Types: SUM is what sums are kept in, OPERAND what products are fed with (the interpreter has no
bfloat16, so there it is float32, of numbers rounded to bfloat16). There are no atomics: every sum
has a fixed order."""

from __future__ import annotations

import triton
import triton.language as tl

from msclr.kernels._triton import LOG2_E, load_rows, products_in_pieces

LARGEST_INT = tl.constexpr(2**31 - 1)


@triton.jit
def load_row(base, row, columns, dim, SUM: tl.constexpr):
    """One row of a contiguous matrix, and 0 past its end."""
    return tl.load(base + row.to(tl.int64) * dim + columns, mask=columns < dim, other=0).to(SUM)


@triton.jit(do_not_specialize=["rows", "splits"])
def stream(
    queries,  # (R, D), contiguous
    bank,  # (Q, D)
    temperature,  # ()
    largest,  # (S, R): similarity; this and all that follow are made here, for each split
    total,  # (S, R): sum of the weights
    mass,  # (S, R): sum of the rounded weights
    sums,  # (S, R, D): sum of the rounded weights times the bank's rows
    near,  # (S, R, K) or None: the largest similarities, in any order
    near_row,  # (S, R, K) int32 or None: whose they are
    rows,
    bank_rows,
    dim,
    bank_stride,
    splits,
    K: tl.constexpr,
    BLOCK_K: tl.constexpr,
    SUM: tl.constexpr,
    ROUND: tl.constexpr,
    OPERAND: tl.constexpr,
    PRECISION: tl.constexpr,
    PIECES: tl.constexpr,  # of BLOCK_D columns, which cover D
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One program takes BLOCK_M queries over its split of the bank, BLOCK_N rows at a time."""
    split = tl.program_id(1).to(tl.int64)
    r = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    d = tl.arange(0, BLOCK_D)
    factor = LOG2_E / tl.load(temperature)
    tiles = tl.cdiv(bank_rows, BLOCK_N)
    first = (tiles * split // splits).to(tl.int32)
    last = (tiles * (split + 1) // splits).to(tl.int32)

    acc = ()
    for _ in tl.static_range(PIECES):
        acc = acc + (tl.zeros((BLOCK_M, BLOCK_D), SUM),)
    if PIECES == 1:
        q = load_rows(queries, dim, r, r < rows, d, dim, OPERAND)
    most = tl.full((BLOCK_M,), float("-inf"), SUM)
    weight_sum = tl.zeros((BLOCK_M,), SUM)
    rounded_sum = tl.zeros((BLOCK_M,), SUM)
    if near is not None:
        slot = tl.arange(0, BLOCK_K)[None, :] + tl.zeros((BLOCK_M, 1), tl.int32)
        kept = tl.where(slot < K, float("-inf"), float("inf")).to(SUM)
        kept_row = LARGEST_INT - slot
        least = tl.full((BLOCK_M,), float("-inf"), SUM)

    for tile in range(first, last):
        j = tile * BLOCK_N + tl.arange(0, BLOCK_N)
        s = tl.zeros((BLOCK_M, BLOCK_N), SUM)
        if PIECES == 1:
            k = load_rows(bank, bank_stride, j, j < bank_rows, d, dim, OPERAND)
            s = tl.dot(q, tl.trans(k), s, PRECISION, out_dtype=SUM)
        else:
            s = products_in_pieces(
                queries, dim, r, rows, bank, bank_stride, j, bank_rows, dim, s,
                OPERAND, PRECISION, BLOCK_D,
            )  # fmt: skip
        s = tl.where((j < bank_rows)[None, :], s, float("-inf"))
        tile_most = tl.max(s, 1)

        new_most = tl.maximum(most, tile_most)
        weight = tl.exp2((s - new_most[:, None]) * factor)
        rounded = weight.to(ROUND)
        shrink = tl.exp2((most - new_most) * factor)
        weight_sum = weight_sum * shrink + tl.sum(weight, 1)
        rounded_sum = rounded_sum * shrink + tl.sum(rounded.to(SUM), 1)
        grown = ()
        for i in tl.static_range(PIECES):
            if PIECES > 1:
                c = i * BLOCK_D + d
                k = load_rows(bank, bank_stride, j, j < bank_rows, c, dim, OPERAND)
            shrunk = acc[i] * shrink[:, None]
            grown = grown + (tl.dot(rounded.to(OPERAND), k, shrunk, PRECISION, out_dtype=SUM),)
        acc = grown
        most = new_most

        if near is not None:
            for _ in tl.static_range(K):
                if tl.max((tile_most > least).to(tl.int32), 0) > 0:
                    kept, kept_row, least, s, tile_most = _keep_one(
                        kept, kept_row, least, s, tile_most, j
                    )

    at = split * rows + r
    tl.store(largest + at, most, mask=r < rows)
    tl.store(total + at, weight_sum, mask=r < rows)
    tl.store(mass + at, rounded_sum, mask=r < rows)
    for i in tl.static_range(PIECES):
        c = i * BLOCK_D + d
        inside = (r < rows)[:, None] & (c < dim)[None, :]
        tl.store(sums + at[:, None] * dim + c[None, :], acc[i], mask=inside)
    if near is not None:
        inside = (r < rows)[:, None] & (slot < K)
        tl.store(near + at[:, None] * K + slot, kept, mask=inside)
        tl.store(near_row + at[:, None] * K + slot, kept_row, mask=inside)


@triton.jit
def _keep_one(kept, kept_row, least, s, best, j):
    """Each query's largest similarity of a tile goes where the least of those kept was, if larger.

    It leaves the tile. Of equal ones the lower row goes in first, and the higher one goes out.
    """
    row = tl.min(tl.where(s == best[:, None], j[None, :], LARGEST_INT), 1)
    least_row = tl.max(tl.where(kept == least[:, None], kept_row, -1), 1)
    out = (kept_row == least_row[:, None]) & (kept == least[:, None])
    out = out & (best > least)[:, None]
    kept = tl.where(out, best[:, None], kept)
    kept_row = tl.where(out, row[:, None], kept_row)
    s = tl.where(j[None, :] == row[:, None], float("-inf"), s)
    return kept, kept_row, tl.min(kept, 1), s, tl.max(s, 1)


@triton.jit(do_not_specialize=["rows", "batch", "bank_rows", "splits"])
def combine(
    queries,  # (R, D), contiguous
    keys,  # (B, D), contiguous
    temperature,  # ()
    largest,  # (S, R); this and the next five as `stream` made them
    total,
    mass,
    sums,
    near,
    near_row,
    mean,  # (R, D); this and all that follow are made here
    most,  # (R,): the largest similarity
    log_sum,  # (R,): log_sum_exp less the largest logit
    log_sum_exp,  # (R,)
    top_k,  # (R, K) int64
    rows,
    batch,
    dim,
    bank_rows,
    splits,
    K: tl.constexpr,
    SUM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_S: tl.constexpr,  # splits, all at once
    BLOCK_P: tl.constexpr,  # splits at once where each has D numbers
    BLOCK_C: tl.constexpr,  # the nearest rows of all splits
):
    """One program puts together what the splits have of one query, and its key."""
    r = tl.program_id(0).to(tl.int64)
    d = tl.arange(0, BLOCK_D)
    divisor = tl.load(temperature)
    factor = LOG2_E / divisor
    key = load_row(keys, r % batch, d, dim, SUM)
    similarity = tl.sum(load_row(queries, r, d, dim, SUM) * key, 0)

    i = tl.arange(0, BLOCK_S)
    part_most = tl.load(largest + i * rows + r, mask=i < splits, other=float("-inf"))
    all_most = tl.maximum(tl.max(part_most, 0), similarity)
    scale = tl.exp2((part_most - all_most) * factor)
    key_weight = tl.exp2((similarity - all_most) * factor)
    weights = tl.load(total + i * rows + r, mask=i < splits, other=0)
    rounded = tl.load(mass + i * rows + r, mask=i < splits, other=0)
    weight_sum = tl.sum(scale * weights, 0) + key_weight
    rounded_sum = tl.sum(scale * rounded, 0) + key_weight
    tl.store(most + r, all_most)
    tl.store(log_sum + r, tl.log(weight_sum))
    tl.store(log_sum_exp + r, all_most / divisor + tl.log(weight_sum))

    acc = key_weight * key
    for start in range(0, splits, BLOCK_P):
        i = start + tl.arange(0, BLOCK_P)
        part_most = tl.load(largest + i * rows + r, mask=i < splits, other=float("-inf"))
        scale = tl.exp2((part_most - all_most) * factor)
        part = load_rows(sums + r * dim, rows.to(tl.int64) * dim, i, i < splits, d, dim, SUM)
        acc += tl.sum(scale[:, None] * part, 0)
    tl.store(mean + r * dim + d, acc / rounded_sum, mask=d < dim)

    if near is not None:
        c = tl.arange(0, BLOCK_C)
        at = (c // K * rows + r) * K + c % K
        candidate = tl.load(near + at, mask=c < splits * K, other=float("-inf"))
        candidate_row = tl.load(near_row + at, mask=c < splits * K, other=LARGEST_INT)
        for place in range(K):
            best = tl.max(candidate, 0)
            row = tl.min(tl.where(candidate == best, candidate_row, LARGEST_INT), 0)
            # A query of NaN is near to none; it gets some row, one that exists.
            tl.store(top_k + r * K + place, tl.minimum(row, bank_rows - 1).to(tl.int64))
            candidate = tl.where(candidate_row == row, float("-inf"), candidate)


@triton.jit
def _positives(clip, e, positives, entries, of_a_view, clip_stride, view_stride, bank_rows):
    """The bank rows at places e of a clip's list; -1 past its end, and where there is none."""
    at = positives + clip * clip_stride + (e // of_a_view) * view_stride + e % of_a_view
    row = tl.load(at, mask=e < entries, other=-1)
    return tl.where((row >= 0) & (row < bank_rows), row, -1)


@triton.jit
def new_positives(
    clip, e, positives, entries, of_a_view, clip_stride, view_stride, bank_rows,
    BLOCK_E: tl.constexpr,
):  # fmt: skip
    """The same, and -1 too where the row is in the list before."""
    row = _positives(clip, e, positives, entries, of_a_view, clip_stride, view_stride, bank_rows)
    repeats = tl.zeros((BLOCK_E,), tl.int32)
    for start in range(0, entries, BLOCK_E):
        e2 = start + tl.arange(0, BLOCK_E)
        other = _positives(
            clip, e2, positives, entries, of_a_view, clip_stride, view_stride, bank_rows
        )
        same = (row[:, None] == other[None, :]) & (e2[None, :] < e[:, None])
        repeats += tl.sum(same.to(tl.int32), 1)
    return tl.where(repeats > 0, -1, row)


@triton.jit(do_not_specialize=["views", "batch", "bank_rows", "entries"])
def finish(
    queries,  # (P, B, D), contiguous
    keys,  # (B, D), contiguous
    bank,  # (Q, D)
    temperature,  # ()
    positives,  # of clip b, view v, the i-th: v * view_stride + b * clip_stride + i; or None
    mean,  # (P, B, D)
    most,  # (P, B)
    log_sum,  # (P, B)
    positive,  # (B, D): made here, as are the next two
    loss,  # (P, B)
    distribution,  # (P, B) or None
    views,
    batch,
    dim,
    bank_rows,
    bank_stride,
    entries,  # of a clip's list of positives
    of_a_view,
    clip_stride,
    view_stride,
    teacher,
    SUM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_E: tl.constexpr,
):
    """One program compares the views of one clip with its positives and with the teacher."""
    clip = tl.program_id(0).to(tl.int64)
    d = tl.arange(0, BLOCK_D)
    divisor = tl.load(temperature)
    near = load_row(keys, clip, d, dim, SUM)
    if positives is not None:
        count = 1
        for start in range(0, entries, BLOCK_E):
            e = start + tl.arange(0, BLOCK_E)
            row = new_positives(
                clip, e, positives, entries, of_a_view, clip_stride, view_stride, bank_rows,
                BLOCK_E,
            )  # fmt: skip
            near += tl.sum(load_rows(bank, bank_stride, row, row >= 0, d, dim, SUM), 0)
            count += tl.sum((row >= 0).to(tl.int32), 0)
        near = near / count.to(SUM)
    tl.store(positive + clip * dim + d, near, mask=d < dim)
    if distribution is not None:
        expected = load_row(mean, teacher * batch + clip, d, dim, SUM)
    for view in range(views):
        r = view * batch + clip
        q = load_row(queries, r, d, dim, SUM)
        query_most = tl.load(most + r)
        query_log_sum = tl.load(log_sum + r)
        tl.store(loss + r, query_log_sum + (query_most - tl.sum(q * near, 0)) / divisor)
        if distribution is not None:
            below = query_log_sum + (query_most - tl.sum(q * expected, 0)) / divisor
            tl.store(distribution + r, tl.where(view == teacher, 0.0, below))
