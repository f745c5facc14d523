"""The Triton programs of the graph convolution over packed rows; triton_launch.py launches them.

    h[f,w] = sum_k W_k z_k[f,w] + b_k total_k[w]     z_k[f,w] = sum_v A[k,v,w] x[f,v]
    dx: the same operation on the gradient g, with A and every W_k transposed
    dW_k = sum_f,w g[f,w] z_k[f,w]^T                 db_k = sum_f,w total_k[w] g[f,w]
    dA[k,v,w] = sum_f (W_k x[f,v] + b_k) . g[f,w]    total_k[w] = sum_v A[k,v,w]

The gradient of the norm that follows, g = alpha d + beta h + gamma, is made where it is read, and h
has its sums taken where it is written. Without lists of neighbours every joint has itself alone.

SUM is what sums are kept in, OPERAND what products are fed with. There are no atomics: every sum
has a fixed order.
"""

from __future__ import annotations

import triton
import triton.language as tl

from msclr.kernels._triton_rows import (
    COLUMNS,
    GRAPH,
    JOINTS,
    OWN_ROW,
    PARITY,
    READ_ROW,
    as_operand,
    entry_of,
    normed_rows,
    own_rows,
    read_rows,
    rows_of_tile,
    rows_there,
    store_sums,
)
from msclr.kernels.graph_conv.triton_neighbours import entries_of


@triton.jit
def plain_rows(x, row, exists, c, channels, SUM: tl.constexpr):
    inside = exists[:, None] & (c < channels)[None, :]
    return tl.load(x + row[:, None] * channels + c[None, :], mask=inside, other=0).to(SUM)


@triton.jit
def _aggregate(
    given, other, norm, adjacency, source, graph, most, first_row, own, exists, joints,
    c, channels, z, total, TRANSPOSED: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    """z and the neighbours of each row, weighted; total and their entries."""
    for j in range(most):
        v, a, linked = entries_of(adjacency, source, graph, j, own, joints, exists, TRANSPOSED, SUM)
        if other is None:
            near = plain_rows(given, first_row + v, linked, c, channels, SUM)
        else:
            near = normed_rows(given, other, norm, first_row + v, linked, c, channels, SUM)
        z += tl.where(linked, a, 0)[:, None] * near
        total += tl.where(linked, a, 0)
    return z, total


@triton.jit
def convolve(
    given,  # (R, C_read): x, or d
    other,  # None, or h
    norm,  # None, or (3, C_read)
    weight,
    bias,  # (K, C_made) or None
    adjacency,
    source,  # None: every joint has itself alone
    longest,
    table,
    counts,  # None, or (L,): samples that are there
    made,  # (R', C_made)
    sums,  # None, or (tiles, 2, C_made): of made as it is stored, and of its squares
    addend,  # None, or (R', C_made): added where gate > 0, or where there is no gate everywhere
    gate,
    channels_read,
    channels_made,
    w_k,
    w_read,
    w_made,
    K: tl.constexpr,
    STRIDE: tl.constexpr,  # between frames read (forward) or made (backward)
    BACKWARD: tl.constexpr,
    ENTRIES: tl.constexpr,
    SUM: tl.constexpr,
    OPERAND: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """One program makes BLOCK_M rows times BLOCK_N channels."""
    blocks = tl.cdiv(channels_made, BLOCK_N)
    tile = tl.program_id(0) // blocks
    o = tl.program_id(0) % blocks * BLOCK_N + tl.arange(0, BLOCK_N)
    segment, entry = entry_of(table, tile, ENTRIES)
    sample, frame, joint, there, exists = rows_of_tile(entry, counts, tile, BLOCK_M)
    joints = tl.load(entry + JOINTS)
    reads = there & (tl.load(entry + PARITY) == 0)
    read_frame = frame if BACKWARD else frame * STRIDE
    first_row = read_rows(entry, sample, read_frame, 0)
    graphs = tl.load(entry + GRAPH) * K

    acc = tl.zeros((BLOCK_M, BLOCK_N), SUM)
    for k in range(K):
        total = tl.zeros((BLOCK_M,), SUM)
        for start in range(0, channels_read, BLOCK_C):
            c = start + tl.arange(0, BLOCK_C)
            if source is None:
                if other is None:
                    z = plain_rows(given, first_row + joint, reads, c, channels_read, SUM)
                else:
                    z = normed_rows(
                        given, other, norm, first_row + joint, reads, c, channels_read, SUM
                    )
                total = tl.full((BLOCK_M,), 1, SUM)
            else:
                z, total = _aggregate(
                    given, other, norm, adjacency, source, graphs + k * joints * joints,
                    tl.load(longest + segment * K + k), first_row, joint, reads, joints,
                    c, channels_read, tl.zeros((BLOCK_M, BLOCK_C), SUM),
                    tl.zeros((BLOCK_M,), SUM), BACKWARD, SUM,
                )  # fmt: skip
            factor_at = weight + k * w_k + c[:, None] * w_read + o[None, :] * w_made
            within = (c < channels_read)[:, None] & (o < channels_made)[None, :]
            factor = as_operand(tl.load(factor_at, mask=within, other=0), given, OPERAND)
            acc = tl.dot(as_operand(z, given, OPERAND), factor, acc, PRECISION, out_dtype=SUM)
        if bias is not None:
            shift = tl.load(bias + k * channels_made + o, mask=o < channels_made, other=0)
            acc += total[:, None] * shift.to(SUM)[None, :]

    row = own_rows(entry, sample, frame, joint, STRIDE if BACKWARD else 1)
    inside = exists[:, None] & (o < channels_made)[None, :]
    at = row[:, None] * channels_made + o[None, :]
    known = there[:, None] & (o < channels_made)[None, :]
    if addend is not None:
        more = tl.load(addend + at, mask=known, other=0).to(SUM)
        if gate is not None:
            closed = tl.load(gate + at, mask=known, other=0).to(SUM) <= 0  # not where it is NaN
            more = tl.where(closed, 0, more)
        acc += more
    if counts is not None:
        acc = tl.where(there[:, None], acc, 0)
    stored = acc.to(made.dtype.element_ty)
    if sums is not None:
        seen = tl.where(there[:, None], stored.to(SUM), 0)
        store_sums(sums, tile, o, channels_made, seen, seen * seen)
    tl.store(made + at, stored, mask=inside)


@triton.jit(do_not_specialize=["tiles", "size"])
def weight_gradient(
    d,  # (R', C_out); this and the next two make g
    h,
    norm,
    x,  # (R, C_in)
    adjacency,
    source,
    longest,
    table,
    counts,  # None, or (L,)
    sums,  # (splits, K C_out C_in + K C_out): of the weight, and of the bias
    channels_in,
    channels_out,
    tiles,
    size,  # K C_out C_in
    K: tl.constexpr,
    GROUP: tl.constexpr,  # partitions that a program does at once, of what it reads once
    STRIDE: tl.constexpr,
    ENTRIES: tl.constexpr,
    SUM: tl.constexpr,
    OPERAND: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_O: tl.constexpr,
):
    """A program adds up its share of the tiles, for a block of channels and GROUP partitions."""
    split = tl.program_id(0)
    blocks = tl.cdiv(channels_in, BLOCK_C)
    c = tl.program_id(1) % blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    o = tl.program_id(1) // blocks * BLOCK_O + tl.arange(0, BLOCK_O)
    first_k = tl.program_id(2) * GROUP
    acc = ()
    of_bias = ()
    for _ in tl.static_range(GROUP):
        acc = acc + (tl.zeros((BLOCK_O, BLOCK_C), SUM),)
        of_bias = of_bias + (tl.zeros((BLOCK_O,), SUM),)
    for tile in range(split, tiles, tl.num_programs(0)):
        segment, entry = entry_of(table, tile, ENTRIES)
        sample, frame, joint, exists, has = rows_of_tile(entry, counts, tile, BLOCK_M)
        joints = tl.load(entry + JOINTS)
        first_row = read_rows(entry, sample, frame * STRIDE, 0)
        row = own_rows(entry, sample, frame, joint, 1)
        g = normed_rows(d, h, norm, row, exists, o, channels_out, SUM)
        turned = tl.trans(as_operand(g, x, OPERAND))
        grown = ()
        summed = ()
        for i in tl.static_range(GROUP):
            if source is None:
                z = plain_rows(x, first_row + joint, exists, c, channels_in, SUM)
                total = tl.full((BLOCK_M,), 1, SUM)
            else:
                graph = tl.load(entry + GRAPH) * K + (first_k + i) * joints * joints
                z, total = _aggregate(
                    x, None, None, adjacency, source, graph,
                    tl.load(longest + segment * K + first_k + i), first_row, joint, exists, joints,
                    c, channels_in, tl.zeros((BLOCK_M, BLOCK_C), SUM),
                    tl.zeros((BLOCK_M,), SUM), False, SUM,
                )  # fmt: skip
            z = as_operand(z, x, OPERAND)
            grown = grown + (tl.dot(turned, z, acc[i], PRECISION, out_dtype=SUM),)
            summed = summed + (of_bias[i] + tl.sum(total[:, None] * g, 0),)
        acc = grown
        of_bias = summed
    for i in tl.static_range(GROUP):
        own = sums + split.to(tl.int64) * (size + K * channels_out)
        at = ((first_k + i) * channels_out + o)[:, None] * channels_in + c[None, :]
        inside = (o < channels_out)[:, None] & (c < channels_in)[None, :]
        tl.store(own + at, acc[i], mask=inside)
        once = (o < channels_out) & (tl.program_id(1) % blocks == 0)
        tl.store(own + size + (first_k + i) * channels_out + o, of_bias[i], mask=once)


@triton.jit
def joint_gradients(
    d,
    h,
    norm,
    x,
    weight,
    bias,  # (K, C_out) or None
    table,
    counts,  # None, or (L,)
    links,  # (blocks, splits, segments, K, BLOCK_R, BLOCK_R): dA in parts
    channels_in,
    channels_out,
    w_k,
    w_o,
    w_c,
    K: tl.constexpr,
    SUM: tl.constexpr,
    OPERAND: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_O: tl.constexpr,
):
    """dA, all of it whatever the support, of one segment and partition, for a block of channels.

    A program adds up its share of tiles of as many whole frames as fit BLOCK_R rows: a row is the
    same joint in all. The product (W_k x + b_k) g^T of a tile links each of its frames with the
    others as well; what does not link a frame with itself is never stored.
    """
    split = tl.program_id(0)
    k = tl.program_id(1) % K
    blocks = tl.cdiv(channels_in, BLOCK_C)
    c = tl.program_id(2) % blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    o = tl.program_id(2) // blocks * BLOCK_O + tl.arange(0, BLOCK_O)
    entry = table + tl.program_id(1) // K * COLUMNS
    joints = tl.load(entry + JOINTS)
    rows = rows_there(entry, counts)
    row = tl.arange(0, BLOCK_R)
    used = BLOCK_R // joints * joints
    within = (c < channels_in)[:, None] & (o < channels_out)[None, :]
    factor_at = weight + k * w_k + c[:, None] * w_c + o[None, :] * w_o
    factor = as_operand(tl.load(factor_at, mask=within, other=0), x, OPERAND)
    if bias is not None:  # is for one of the blocks that share output channels
        once = (o < channels_out) & (tl.program_id(2) % blocks == 0)
        shift = tl.load(bias + k * channels_out + o, mask=once, other=0).to(SUM)
    acc = tl.zeros((BLOCK_R, BLOCK_R), SUM)
    for tile in range(split, tl.cdiv(rows, used), tl.num_programs(0)):
        at = tile * used + row
        exists = (row < used) & (at < rows)
        own = (tl.load(entry + OWN_ROW) + at).to(tl.int64)
        g = normed_rows(d, h, norm, own, exists, o, channels_out, SUM)
        read = (tl.load(entry + READ_ROW) + at).to(tl.int64)
        near = as_operand(plain_rows(x, read, exists, c, channels_in, SUM), x, OPERAND)
        made = tl.dot(near, factor, None, PRECISION, out_dtype=SUM)
        if bias is not None:
            made += shift[None, :]
        made = as_operand(made, x, OPERAND)
        turned = tl.trans(as_operand(g, x, OPERAND))
        acc = tl.dot(made, turned, acc, PRECISION, out_dtype=SUM)
    part = (tl.program_id(2) * tl.num_programs(0) + split).to(tl.int64)
    part = part * tl.num_programs(1) + tl.program_id(1)
    frame = tl.where(row < used, row // joints, -1)
    same = (frame[:, None] == frame[None, :]) & (frame >= 0)[:, None]
    from_row = (part * BLOCK_R + row)[:, None]
    tl.store(links + from_row * BLOCK_R + row[None, :], acc, mask=same)
