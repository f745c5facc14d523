"""The Triton programs of multi-view InfoNCE, forward; triton_launch.py launches them.

With s the similarity of two rows, an anchor (view i, clip b) and its key (view j, clip b) have

    excess = log sum exp(s / T) over the anchor's negatives for that key, less s / T at the key
    loss = softplus(excess)
    d loss / d(s / T) = p = exp((s - shift) / T - log_sum) at each negative
                        -1 / (1 + exp(-excess)) at the key

with a shift near the largest similarity and log_sum = log sum exp((s - shift) / T) over negatives
and key. Excess, shift and log_sum are kept: a log-sum-exp of 1e4 would lose digits in float32.

The negatives of one clip's anchor are those of a view, or of all, or of the bank, which counts as
one more view, number P. So `region_sums` adds up exp(s / T) over every view that an anchor meets,
and `losses` puts views together. A tile of similarities between two views is, transposed, that of
the other direction: it is made once, and its columns summed as well as its rows.

triton_backward.py has the programs of the backward pass.

Where all |s / T| log2(e) are at most NEAR, exp(s / T) itself is far from overflow and underflow,
and a sum of 2^31 of them too. Rows and columns, anchors and candidates then share one exponential,
and need no largest similarity. Otherwise each has its own, and s is taken less the largest before
it is scaled. Which holds is found from the largest norm, on the device.

Types: SUM is what sums are kept in, OPERAND what products are fed with (the interpreter has no
bfloat16, so there it is float32, of numbers rounded to bfloat16). Every sum has a fixed order.
"""

from __future__ import annotations

import triton
import triton.language as tl

from msclr.kernels._triton import LOG2_E, load_rows, products_in_pieces

NEAR = tl.constexpr(96.0)
NOWHERE = tl.constexpr(-(2**30))  # "own" of rows that are views of no clip
REGION = tl.constexpr(8)  # numbers that make one


@triton.jit
def _zero_if_infinite(top):
    """What to subtract from similarities of which `top` is the largest, if there are any."""
    return tl.where(top == float("-inf"), 0.0, top)


@triton.jit
def _join(top, total, other_top, other_total, factor):
    """The sum of two sums, each of 2^((s - its top) factor)."""
    joint = tl.maximum(top, other_top)
    base = _zero_if_infinite(joint)
    total = total * tl.exp2((top - base) * factor)
    return joint, total + other_total * tl.exp2((other_top - base) * factor)


@triton.jit
def _is_near(largest, factor):
    """Whether no similarity can be large; false where a row is NaN."""
    norm = tl.load(largest)
    return norm * norm * factor <= NEAR


@triton.jit
def _load_tile(
    base, stride, start, rows, columns, dim,
    MASKED: tl.constexpr, OPERAND: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Rows from `start` on, 0 past the last one if MASKED.

    Where they lie in the tile takes 32 bits, and is the same for every tile.
    """
    i = tl.arange(0, BLOCK)
    at = base + tl.full((), start, tl.int64) * stride + (i[:, None] * stride + columns[None, :])
    mask = (columns < dim)[None, :]
    if MASKED:
        mask = (i < rows - start)[:, None] & mask
    return tl.load(at, mask=mask, other=0).to(OPERAND)


@triton.jit
def _split_tiles(first, last, partial, low, high):
    """Tiles first..last apart into those that need a mask and those that do not.

    It is low..high that do, and the last one if it is partial. Returns low and high as clipped,
    and how many tiles need none, and how many do.
    """
    end = tl.maximum(last - partial, first)
    low = tl.minimum(tl.maximum(low, first), end)
    high = tl.minimum(tl.maximum(high, low), end)
    plain = end - first - (high - low)
    return low, high, plain, tl.maximum(last - first, 0) - plain


@triton.jit
def _nth_tile(n, first, last, low, high, MASKED: tl.constexpr):
    """The n-th of the tiles that need a mask, or of those that do not."""
    if MASKED:
        return tl.where(n < high - low, low + n, last - 1)
    else:
        return first + n + tl.where(first + n >= low, high - low, 0)


@triton.jit
def _not_own(BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, shift):
    """Where a tile's two rows are of different clips; row 0 lies `shift` clips after column 0.

    In this form places of columns are constants, and take no registers.
    """
    return (tl.arange(0, BLOCK_M) + shift)[:, None] != tl.arange(0, BLOCK_N)[None, :]


@triton.jit(do_not_specialize=["batch", "clips", "own", "slots", "splits"])
def region_sums(
    anchors,  # (P, B, D), contiguous
    others,  # (P, N, D), or the bank (Q, D)
    temperature,  # ()
    largest,  # (): norm of a row
    regions,  # (regions, REGION) int32, see plan
    tops,  # (P, P + 1, S, B): largest similarity; made here for each split, as is the next
    totals,  # (P, P + 1, S, B): sum of 2^((s - top) log2(e) / T)
    batch,
    clips,  # N or Q
    dim,
    stride,  # of the others' rows
    own,  # clip b of the anchors is clip own + b of the others
    slots,  # P + 1
    splits,  # S
    BOTH_WAYS: tl.constexpr,  # whether some regions are
    SUM: tl.constexpr,
    OPERAND: tl.constexpr,
    PRECISION: tl.constexpr,
    PIECES: tl.constexpr,  # of BLOCK_D columns, which cover D
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One program takes some anchors of a view over some rows of another, or of the bank."""
    region = regions + tl.program_id(0) * REGION
    factor = LOG2_E / tl.load(temperature)
    if _is_near(largest, factor):
        _region_sums(
            anchors, others, factor, region, tops, totals, batch, clips, dim, stride, own, slots,
            splits, True, BOTH_WAYS, SUM, OPERAND, PRECISION, PIECES, BLOCK_M, BLOCK_N, BLOCK_D,
        )  # fmt: skip
    else:
        _region_sums(
            anchors, others, factor, region, tops, totals, batch, clips, dim, stride, own, slots,
            splits, False, BOTH_WAYS, SUM, OPERAND, PRECISION, PIECES, BLOCK_M, BLOCK_N // 2,
            BLOCK_D,
        )  # fmt: skip


@triton.jit
def _region_sums(
    anchors, others, factor, region, tops, totals, batch, clips, dim, stride, own, slots, splits,
    IS_NEAR: tl.constexpr, BOTH_WAYS: tl.constexpr, SUM: tl.constexpr, OPERAND: tl.constexpr,
    PRECISION: tl.constexpr, PIECES: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):  # fmt: skip
    """The anchors are columns of a tile: their sums stay in registers, tile upon tile, and are
    made one number only at the end. The others' sums, if wanted, are in memory."""
    view, other = tl.load(region).to(tl.int64), tl.load(region + 1).to(tl.int64)
    first, last = tl.load(region + 2), tl.load(region + 3)
    other_first, other_last = tl.load(region + 4), tl.load(region + 5)
    split, other_split = tl.load(region + 6), tl.load(region + 7)
    left = anchors + view * batch * dim
    # The bank is one matrix, whatever its number among the views.
    right = others + tl.where(other == slots - 1, 0, other) * clips * stride
    to = ((view * slots + other) * splits + split) * batch
    to_other = ((other * slots + view) * splits + other_split) * batch
    d = tl.arange(0, BLOCK_D)

    tiles = tl.cdiv(other_last - other_first, BLOCK_M)
    partial = ((other_last - other_first) % BLOCK_M > 0).to(tl.int32)
    for start in range(first, last, BLOCK_N):
        kept = tl.zeros((BLOCK_N, BLOCK_D), OPERAND)
        if PIECES == 1:
            kept = _load_tile(left, dim, start, last, d, dim, True, OPERAND, BLOCK_N)
        # Rows 8 apart are of one thread: they are added up before they take registers.
        acc = tl.zeros((BLOCK_M // 16, 8, BLOCK_N), SUM)
        total = tl.zeros((BLOCK_N,), SUM)
        top = tl.full((BLOCK_N,), 0.0 if IS_NEAR else float("-inf"), SUM)
        same = start + own - other_first  # where the anchors' own clips begin among the others
        low, high = same // BLOCK_M, tl.cdiv(same + BLOCK_N, BLOCK_M)
        if not IS_NEAR or start + BLOCK_N > last:
            low, high = 0, tiles
        low, high, plain, masked = _split_tiles(0, tiles, partial, low, high)
        if IS_NEAR:
            for n in range(plain):
                acc, top, total = _region_tile(
                    acc, top, total, kept, left, right, factor, tops + to_other, totals + to_other,
                    dim, stride, own, start, last, first,
                    other_first + _nth_tile(n, 0, tiles, low, high, False) * BLOCK_M, other_last,
                    other_split, False, IS_NEAR, BOTH_WAYS, SUM, OPERAND, PRECISION, PIECES,
                    BLOCK_M, BLOCK_N, BLOCK_D,
                )  # fmt: skip
        for n in range(masked):
            acc, top, total = _region_tile(
                acc, top, total, kept, left, right, factor, tops + to_other, totals + to_other,
                dim, stride, own, start, last, first,
                other_first + _nth_tile(n, 0, tiles, low, high, True) * BLOCK_M, other_last,
                other_split, True, IS_NEAR, BOTH_WAYS, SUM, OPERAND, PRECISION, PIECES,
                BLOCK_M, BLOCK_N, BLOCK_D,
            )  # fmt: skip
        if IS_NEAR:
            total = tl.sum(tl.sum(acc, 0), 0)
        b = start + tl.arange(0, BLOCK_N)
        tl.store(tops + to + b, top, mask=b < last)
        tl.store(totals + to + b, total, mask=b < last)
        if BOTH_WAYS:
            tl.debug_barrier()  # the next anchors add to sums that other threads have written


@triton.jit
def _region_tile(
    acc, top, total, kept, left, right, factor, tops, totals, dim, stride, own, start, last, first,
    other_start, other_last, other_split, MASKED: tl.constexpr, IS_NEAR: tl.constexpr,
    BOTH_WAYS: tl.constexpr, SUM: tl.constexpr, OPERAND: tl.constexpr, PRECISION: tl.constexpr,
    PIECES: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Adds a tile to its anchors' sums, and to its other rows' if they have some."""
    b, c = start + tl.arange(0, BLOCK_N), other_start + tl.arange(0, BLOCK_M)
    s = tl.zeros((BLOCK_M, BLOCK_N), SUM)
    if PIECES == 1:
        d = tl.arange(0, BLOCK_D)
        met = _load_tile(right, stride, other_start, other_last, d, dim, MASKED, OPERAND, BLOCK_M)
        s = tl.dot(met, tl.trans(kept), s, PRECISION, out_dtype=SUM)
    else:
        s = products_in_pieces(
            right, stride, c, other_last, left, dim, b, last, dim, s, OPERAND, PRECISION, BLOCK_D
        )
    if MASKED:
        keep = _not_own(BLOCK_M, BLOCK_N, other_start - own - start)
        exist = (tl.arange(0, BLOCK_N) < last - start)[None, :] & (c < other_last)[:, None]
        s = tl.where(keep & exist, s, float("-inf"))
    other_top = tl.zeros((BLOCK_M,), SUM)
    if IS_NEAR:
        weight = tl.exp2(s * factor)
        acc += tl.sum(tl.reshape(weight, (BLOCK_M // 16, 2, 8, BLOCK_N)), 1)
    else:
        new_top = tl.maximum(top, tl.max(s, 0))
        base = _zero_if_infinite(new_top)
        total *= tl.exp2((top - base) * factor)
        total += tl.sum(tl.exp2((s - base[None, :]) * factor), 0)
        top = new_top
    if BOTH_WAYS and other_split >= 0:
        if not IS_NEAR:
            other_top = tl.max(s, 1)
            weight = tl.exp2((s - _zero_if_infinite(other_top)[:, None]) * factor)
        _add_to(
            tops, totals, other_top, tl.sum(weight, 1), c, c < other_last, start > first, factor,
            IS_NEAR,
        )  # fmt: skip
    return acc, top, total


@triton.jit
def _add_to(tops, totals, top, total, at, exist, add, factor, IS_NEAR: tl.constexpr):
    """Adds sums to those in memory, of which there are none yet unless `add`."""
    before = tl.load(totals + at, mask=exist & add, other=0)
    if IS_NEAR:
        total += before
    else:
        top_before = tl.load(tops + at, mask=exist & add, other=float("-inf"))
        top, total = _join(top, total, top_before, before, factor)
    tl.store(tops + at, top, mask=exist)
    tl.store(totals + at, total, mask=exist)


@triton.jit
def _add_splits(top, total, tops, totals, slot, count, splits, batch, b, exist, factor):
    """A sum and those that all splits of one slot hold."""
    for split in range(count):
        at = (slot * splits + split) * batch + b
        other_top = tl.load(tops + at, mask=exist, other=float("-inf"))
        other_total = tl.load(totals + at, mask=exist, other=0)
        top, total = _join(top, total, other_top, other_total, factor)
    return top, total


@triton.jit
def _dot_rows(left, left_stride, i, right, right_stride, j, exist, dim, SUM, BLOCK_D: tl.constexpr):
    """Of each row i of one matrix with row j of another."""
    total = tl.sum(tl.zeros((i.shape[0], BLOCK_D), SUM), 1)
    for start in range(0, dim, BLOCK_D):
        d = start + tl.arange(0, BLOCK_D)
        a = load_rows(left, left_stride, i, exist, d, dim, SUM)
        total += tl.sum(a * load_rows(right, right_stride, j, exist, d, dim, SUM), 1)
    return total


@triton.jit
def _beyond_ramp(x):
    """log(1 + e^x) - max(x, 0), also where that is tiny: of x and -x the same."""
    u = tl.exp(-tl.abs(x))
    near_one = 1 + u
    # What rounding took from 1 + u, its logarithm gets back in proportion.
    return tl.where(
        near_one == 1, u, tl.log(near_one) * (u / tl.where(near_one == 1, 1, near_one - 1))
    )


@triton.jit(do_not_specialize=["batch", "clips", "own", "slots", "splits"])
def losses(
    anchors,  # (P, B, D), contiguous
    others,  # (P, N, D), contiguous
    temperature,  # ()
    weights,  # (P, P): of the pairs in the mean
    counts,  # (P, P + 1) int32: splits that `region_sums` made
    tops,  # (P, P + 1, S, B); this and the next as `region_sums` made them
    totals,
    excesses,  # (P, P, B); this and all that follow are made here
    shifts,  # (P, P, B)
    log_sums,  # (P, P, B)
    parts,  # (P, programs): sum of the losses of some clips
    batch,
    clips,
    dim,
    own,
    slots,
    splits,
    ALL_VIEWS: tl.constexpr,
    SUM: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One program takes some clips' anchors of one view."""
    b = tl.program_id(0).to(tl.int64) * BLOCK_B + tl.arange(0, BLOCK_B)
    view = tl.program_id(1).to(tl.int64)
    views = slots - 1
    divisor = tl.load(temperature)
    factor = LOG2_E / divisor
    exist = b < batch
    shared_top = tl.full((BLOCK_B,), float("-inf"), SUM)
    shared_total = tl.zeros((BLOCK_B,), SUM)
    for other in range(0 if ALL_VIEWS else views, slots):
        slot = view * slots + other
        shared_top, shared_total = _add_splits(
            shared_top, shared_total, tops, totals, slot, tl.load(counts + slot), splits, batch, b,
            exist, factor,
        )  # fmt: skip

    part = tl.zeros((BLOCK_B,), SUM)
    for key in range(views):
        pair = view * views + key
        weight = tl.load(weights + pair)
        excess = tl.zeros((BLOCK_B,), SUM)
        shift = tl.zeros((BLOCK_B,), SUM)
        log_sum = tl.zeros((BLOCK_B,), SUM)
        if weight > 0:
            top, total = shared_top, shared_total
            if not ALL_VIEWS:
                slot = view * slots + key
                top, total = _add_splits(
                    top, total, tops, totals, slot, tl.load(counts + slot), splits, batch, b, exist,
                    factor,
                )  # fmt: skip
            keys = others + tl.full((), key, tl.int64) * clips * dim
            positive = _dot_rows(
                anchors + view * batch * dim, dim, b, keys, dim, own + b, exist, dim, SUM, BLOCK_D
            )
            log_total = tl.log(total)
            excess = (top - positive) / divisor + log_total
            beyond = _beyond_ramp(excess)
            part += weight * (tl.where(excess > 0, excess, 0) + beyond)
            # Where the key is the shift, a loss of almost nothing is the log sum, digit by digit.
            shift = tl.where(excess <= 0, positive, top)
            log_sum = tl.where(excess <= 0, 0, log_total) + beyond
        tl.store(excesses + pair * batch + b, excess, mask=exist)
        tl.store(shifts + pair * batch + b, shift, mask=exist)
        tl.store(log_sums + pair * batch + b, log_sum, mask=exist)
    at = view * tl.num_programs(0) + tl.program_id(0)
    tl.store(parts + at, tl.sum(tl.where(exist, part, 0), 0))
