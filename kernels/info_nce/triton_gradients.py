"""The backward programs of InfoNCE against a bank; triton_kernels.py has the formulas."""

from __future__ import annotations

import triton
import triton.language as tl

from msclr.kernels._triton import LOG2_E, load_rows, products_in_pieces
from msclr.kernels.info_nce.triton_kernels import load_row, new_positives


@triton.jit
def _upstream(r, view, grad_loss, grad_distribution, grad_log_sum_exp, teacher, SUM: tl.constexpr):
    """What comes down to a query: for its loss, for its distribution, and for all three outputs."""
    of_loss = tl.load(grad_loss + r).to(SUM)
    of_distribution = tl.zeros((), SUM)
    if grad_distribution is not None:
        of_distribution = tl.load(grad_distribution + r).to(SUM)
        of_distribution = tl.where(view == teacher, 0.0, of_distribution)
    return of_loss, of_distribution, of_loss + of_distribution + tl.load(grad_log_sum_exp + r)


@triton.jit(do_not_specialize=["batch"])
def query_gradient(
    grad_loss,  # (P, B)
    grad_distribution,  # (P, B) or None
    grad_log_sum_exp,  # (P, B)
    queries,  # (P, B, D), contiguous
    temperature,  # ()
    mean,  # (P, B, D)
    positive,  # (B, D)
    gradient,  # (P, B, D): made here, as is the next
    product,  # (P, B): of each query with its gradient
    batch,
    dim,
    teacher,
    SUM: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One program makes the gradient of one query."""
    r = tl.program_id(0).to(tl.int64)
    d = tl.arange(0, BLOCK_D)
    of_loss, of_distribution, of_all = _upstream(
        r, r // batch, grad_loss, grad_distribution, grad_log_sum_exp, teacher, SUM
    )
    row = of_all * load_row(mean, r, d, dim, SUM)
    row -= of_loss * load_row(positive, r % batch, d, dim, SUM)
    if grad_distribution is not None:
        row -= of_distribution * load_row(mean, teacher * batch + r % batch, d, dim, SUM)
    row = row / tl.load(temperature)
    tl.store(gradient + r * dim + d, row.to(gradient.dtype.element_ty), mask=d < dim)
    tl.store(product + r, tl.sum(load_row(queries, r, d, dim, SUM) * row, 0))


@triton.jit
def _weight_of_key(q, key, most, divisor):
    """exp(logit - the largest) of a query's key."""
    return tl.exp((tl.sum(q * key, 0) - most) / divisor)


@triton.jit(do_not_specialize=["views", "batch", "bank_rows", "entries"])
def pulls(
    grad_loss,  # (P, B)
    grad_distribution,  # (P, B) or None
    grad_log_sum_exp,  # (P, B)
    queries,  # (P, B, D), contiguous
    keys,  # (B, D), contiguous
    temperature,  # ()
    positives,  # as in `finish`
    most,  # (P, B): the largest similarity
    log_sum,  # (P, B): log_sum_exp less the largest logit
    pull,  # (P, B, D): u / T of each query over its sum of weights; made here, as the next three
    clip_pull,  # (B, D): what each positive of a clip gets for being one
    rows,  # (B, entries) int32: the bank rows that are positives, each once, or -1
    key_gradient,  # (B, D)
    views,
    batch,
    dim,
    bank_rows,
    entries,
    of_a_view,
    clip_stride,
    view_stride,
    teacher,
    SUM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_E: tl.constexpr,
):
    """One program makes what pulls at the bank for one clip's views, and its key's gradient."""
    clip = tl.program_id(0).to(tl.int64)
    d = tl.arange(0, BLOCK_D)
    divisor = tl.load(temperature)
    count = 1
    if positives is not None:
        for start in range(0, entries, BLOCK_E):
            e = start + tl.arange(0, BLOCK_E)
            row = new_positives(
                clip, e, positives, entries, of_a_view, clip_stride, view_stride, bank_rows,
                BLOCK_E,
            )  # fmt: skip
            tl.store(rows + clip * entries + e, row.to(tl.int32), mask=e < entries)
            count += tl.sum((row >= 0).to(tl.int32), 0)

    key = load_row(keys, clip, d, dim, SUM)
    own = tl.zeros((BLOCK_D,), SUM)  # of the clip
    at_key = tl.zeros((BLOCK_D,), SUM)
    towards_teacher = tl.zeros((BLOCK_D,), SUM)
    for view in range(views):
        r = view * batch + clip
        of_loss, of_distribution, of_all = _upstream(
            r, view, grad_loss, grad_distribution, grad_log_sum_exp, teacher, SUM
        )
        q = load_row(queries, r, d, dim, SUM)
        own -= of_loss / divisor * q
        towards_teacher += of_distribution / divisor * q
        u = of_all / divisor * tl.exp(-tl.load(log_sum + r)) * q
        at_key += _weight_of_key(q, key, tl.load(most + r), divisor) * u
        tl.store(pull + r * dim + d, u.to(pull.dtype.element_ty), mask=d < dim)
    own = own / count
    tl.store(clip_pull + clip * dim + d, own.to(clip_pull.dtype.element_ty), mask=d < dim)

    if grad_distribution is not None:
        r = teacher * batch + clip
        _, _, of_all = _upstream(
            r, teacher, grad_loss, grad_distribution, grad_log_sum_exp, teacher, SUM
        )
        q = load_row(queries, r, d, dim, SUM)
        share = tl.exp(-tl.load(log_sum + r))
        u = (of_all / divisor * q - towards_teacher) * share
        at_key -= _weight_of_key(q, key, tl.load(most + r), divisor) * share * towards_teacher
        tl.store(pull + r * dim + d, u.to(pull.dtype.element_ty), mask=d < dim)
    made = own + at_key
    tl.store(key_gradient + clip * dim + d, made.to(key_gradient.dtype.element_ty), mask=d < dim)


@triton.jit(do_not_specialize=["rows", "batch", "entries"])
def bank_gradient(
    queries,  # (R, D), contiguous
    bank,  # (Q, D)
    temperature,  # ()
    most,  # (R,): the largest similarity
    pull,  # (R, D); this and the next two as `pulls` made them
    clip_pull,  # (B, D)
    positives,  # (B, entries) or None
    gradient,  # (Q, D), contiguous: made here
    rows,
    batch,
    bank_rows,
    dim,
    bank_stride,
    entries,
    SUM: tl.constexpr,
    OPERAND: tl.constexpr,  # of the similarities
    PRECISION: tl.constexpr,
    PULL_ROUND: tl.constexpr,  # of the product with the pulls; these three
    PULL_OPERAND: tl.constexpr,
    PULL_PRECISION: tl.constexpr,
    PIECES: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One program makes the gradient of BLOCK_N rows, from weights computed again, BLOCK_M
    queries at a time."""
    j = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    d = tl.arange(0, BLOCK_D)
    factor = LOG2_E / tl.load(temperature)
    acc = ()
    for _ in tl.static_range(PIECES):
        acc = acc + (tl.zeros((BLOCK_N, BLOCK_D), SUM),)
    if PIECES == 1:
        k = load_rows(bank, bank_stride, j, j < bank_rows, d, dim, OPERAND)

    for start in range(0, rows, BLOCK_M):
        r = start + tl.arange(0, BLOCK_M)
        s = tl.zeros((BLOCK_N, BLOCK_M), SUM)
        if PIECES == 1:
            q = load_rows(queries, dim, r, r < rows, d, dim, OPERAND)
            s = tl.dot(k, tl.trans(q), s, PRECISION, out_dtype=SUM)
        else:
            s = products_in_pieces(
                bank, bank_stride, j, bank_rows, queries, dim, r, rows, dim, s,
                OPERAND, PRECISION, BLOCK_D,
            )  # fmt: skip
        shift = tl.load(most + r, mask=r < rows, other=float("inf"))  # weights of 0 past the last
        weight = tl.exp2((s - shift[None, :]) * factor).to(PULL_ROUND).to(PULL_OPERAND)
        grown = ()
        for i in tl.static_range(PIECES):
            u = load_rows(pull, dim, r, r < rows, i * BLOCK_D + d, dim, PULL_OPERAND)
            grown = grown + (tl.dot(weight, u, acc[i], PULL_PRECISION, out_dtype=SUM),)
        acc = grown

    if positives is not None:
        for start in range(0, batch * entries, BLOCK_M):
            e = start + tl.arange(0, BLOCK_M)
            row = tl.load(positives + e, mask=e < batch * entries, other=-1)
            is_one = row[None, :] == j[:, None]
            if tl.max(tl.max(is_one.to(tl.int32), 1), 0) > 0:
                grown = ()
                for i in tl.static_range(PIECES):
                    c = i * BLOCK_D + d
                    u = load_rows(
                        clip_pull, dim, e // entries, e < batch * entries, c, dim, PULL_OPERAND
                    )
                    added = tl.dot(
                        is_one.to(PULL_OPERAND), u, acc[i], PULL_PRECISION, out_dtype=SUM
                    )
                    grown = grown + (added,)
                acc = grown

    for i in tl.static_range(PIECES):
        c = i * BLOCK_D + d
        inside = (j < bank_rows)[:, None] & (c < dim)[None, :]
        made = acc[i].to(gradient.dtype.element_ty)
        tl.store(gradient + j[:, None] * dim + c[None, :], made, mask=inside)
