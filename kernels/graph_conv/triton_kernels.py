"""The Triton programs of the masked graph convolution; triton_launch.py launches them.

As on the CPU the graph comes first: the few neighbours of a joint are added up where they are read,
and the sum z goes to the tensor cores at once. Nothing of the size of K activations exists.

    z_k[t,w] = sum_v A[k,v,w] x[t,v]            y[t,w] = sum_k W_k z_k[t,w] + b_k total_k[w]
    dx: the same operation on the gradient g, with A and every W_k transposed
    dW_k = sum_t,w g[t,w] z_k[t,w]^T            db_k = sum_t,w total_k[w] g[t,w]
    dA[k,v,w] = sum_t (W_k x[t,v] + b_k) . g[t,w]

Lists of neighbours are those of triton_neighbours.py; total_k[w] is the sum of the entries of w.

Types: SUM is what sums are kept in, OPERAND what products are fed with. There are no atomics: every
sum has a fixed order. Arithmetic begins with `.to(SUM)`, as Triton's interpreter has no bfloat16.
"""

from __future__ import annotations

import triton
import triton.language as tl

from msclr.kernels._triton_rows import as_operand
from msclr.kernels.graph_conv.triton_neighbours import entries_of


@triton.jit
def _layout_of(sample, layout_index, joint_counts, layouts, joints):
    """A sample's layout and its real joints; a layout that does not exist has none."""
    layout = 0
    count = joints
    if layout_index is not None:
        index = tl.load(layout_index + sample).to(tl.int32)
        known = (index >= 0) & (index < layouts)
        layout = tl.where(known, index, 0)
        count = tl.where(known, tl.load(joint_counts + layout).to(tl.int32), 0)
    return layout, count


@triton.jit
def _aggregate(
    rows,  # (BLOCK_M,) pointers to the frame of each row
    stride,  # between joints
    c,  # (BLOCK_C,) channels
    inside,  # (BLOCK_C,) whether they exist
    real,  # (BLOCK_M,) whether the row's joint does
    adjacency,
    source,
    graph,  # where that of the rows begins
    most,  # neighbours at most
    own,  # (BLOCK_M,) joints
    joints,
    z,  # (BLOCK_M, BLOCK_C) zeros
    total,  # (BLOCK_M,) zeros
    TRANSPOSED: tl.constexpr,
):
    """The neighbours of each row, weighted and added up, and the sum of their entries."""
    for j in range(most):
        v, a, linked = entries_of(
            adjacency, source, graph, j, own, joints, real, TRANSPOSED, z.dtype
        )
        at = (rows + v.to(tl.int64) * stride)[:, None] + c[None, :]
        near = tl.load(at, mask=linked[:, None] & inside[None, :], other=0)
        a = tl.where(linked, a, 0)
        z += a[:, None] * near.to(z.dtype)
        total += a
    return z, total


@triton.jit(do_not_specialize=["frames", "layouts"])
def convolve(
    x,
    weight,
    bias,  # (K, C_out) or None
    adjacency,
    source,
    longest,
    layout_index,
    joint_counts,
    y,
    channels_in,
    channels_out,
    frames,
    joints,
    layouts,
    x_n,
    x_t,
    x_v,  # x_c is 1
    w_k,
    w_o,
    w_c,
    y_n,
    y_c,
    y_t,
    y_v,
    TRANSPOSED: tl.constexpr,
    K: tl.constexpr,
    SUM: tl.constexpr,
    OPERAND: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """One program makes BLOCK_M rows (t, w) of one sample times BLOCK_N output channels."""
    blocks = tl.cdiv(channels_out, BLOCK_N)
    tile = tl.program_id(0) // blocks
    o = tl.program_id(0) % blocks * BLOCK_N + tl.arange(0, BLOCK_N)
    tiles = tl.cdiv(frames * joints, BLOCK_M)
    sample = (tile // tiles).to(tl.int64)
    row = tile % tiles * BLOCK_M + tl.arange(0, BLOCK_M)
    t = (row // joints).to(tl.int64)
    w = row % joints
    layout, count = _layout_of(sample, layout_index, joint_counts, layouts, joints)
    exists = row < frames * joints
    real = exists & (w < count)
    rows = x + sample * x_n + t * x_t

    acc = tl.zeros((BLOCK_M, BLOCK_N), SUM)
    for k in range(K):
        graph = layout * K + k
        most = tl.load(longest + graph)
        total = tl.zeros((BLOCK_M,), SUM)
        for start in range(0, channels_in, BLOCK_C):
            c = start + tl.arange(0, BLOCK_C)
            z, total = _aggregate(
                rows, x_v, c, c < channels_in, real, adjacency, source, graph * joints * joints,
                most, w, joints, tl.zeros((BLOCK_M, BLOCK_C), SUM), tl.zeros((BLOCK_M,), SUM),
                TRANSPOSED,
            )  # fmt: skip
            factor_at = weight + k * w_k + c[:, None] * w_c + o[None, :] * w_o
            within = (c < channels_in)[:, None] & (o < channels_out)[None, :]
            factor = as_operand(tl.load(factor_at, mask=within, other=0), x, OPERAND)
            acc = tl.dot(as_operand(z, x, OPERAND), factor, acc, PRECISION, out_dtype=SUM)
        if bias is not None:
            shift = tl.load(bias + k * channels_out + o, mask=o < channels_out, other=0)
            acc += total[:, None] * shift.to(SUM)[None, :]

    made = tl.where(real[:, None], acc, 0).to(y.dtype.element_ty)
    y_rows = y + sample * y_n + t * y_t + w.to(tl.int64) * y_v
    y_at = y_rows[:, None] + o.to(tl.int64)[None, :] * y_c
    tl.store(y_at, made, mask=exists[:, None] & (o < channels_out)[None, :])


@triton.jit(do_not_specialize=["samples", "frames", "layouts", "size"])
def weight_gradient(
    x,
    grad,
    adjacency,
    source,
    longest,
    layout_index,
    joint_counts,
    sums,  # (splits, K C_out C_in + K C_out): of the weight, and of the bias
    channels_in,
    channels_out,
    samples,
    frames,
    joints,
    layouts,
    x_n,
    x_t,
    x_v,
    g_n,
    g_t,
    g_v,
    size,  # K C_out C_in
    K: tl.constexpr,
    GROUP: tl.constexpr,  # partitions that a program does at once, of what it reads once
    SUM: tl.constexpr,
    OPERAND: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_O: tl.constexpr,
):
    """dW and db for a block of channels: a program adds up its share of the tiles."""
    split = tl.program_id(0)
    blocks = tl.cdiv(channels_in, BLOCK_C)
    c = tl.program_id(1) % blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    o = tl.program_id(1) // blocks * BLOCK_O + tl.arange(0, BLOCK_O)
    first_k = tl.program_id(2) * GROUP
    tiles = tl.cdiv(frames * joints, BLOCK_M)
    acc = ()
    of_bias = ()
    for _ in tl.static_range(GROUP):
        acc = acc + (tl.zeros((BLOCK_O, BLOCK_C), SUM),)
        of_bias = of_bias + (tl.zeros((BLOCK_O,), SUM),)
    for tile in range(split, samples * tiles, tl.num_programs(0)):
        sample = (tile // tiles).to(tl.int64)
        row = tile % tiles * BLOCK_M + tl.arange(0, BLOCK_M)
        t = (row // joints).to(tl.int64)
        w = row % joints
        layout, count = _layout_of(sample, layout_index, joint_counts, layouts, joints)
        real = (row < frames * joints) & (w < count)
        rows = x + sample * x_n + t * x_t
        g_rows = grad + sample * g_n + t * g_t + w.to(tl.int64) * g_v
        g_inside = real[:, None] & (o < channels_out)[None, :]
        g = tl.load(g_rows[:, None] + o[None, :], mask=g_inside, other=0)
        turned = tl.trans(as_operand(g, x, OPERAND))
        grown = ()
        summed = ()
        for i in tl.static_range(GROUP):
            graph = layout * K + first_k + i
            z, total = _aggregate(
                rows, x_v, c, c < channels_in, real, adjacency, source, graph * joints * joints,
                tl.load(longest + graph), w, joints, tl.zeros((BLOCK_M, BLOCK_C), SUM),
                tl.zeros((BLOCK_M,), SUM), False,
            )  # fmt: skip
            z = as_operand(z, x, OPERAND)
            grown = grown + (tl.dot(turned, z, acc[i], PRECISION, out_dtype=SUM),)
            summed = summed + (of_bias[i] + tl.sum(total[:, None] * g.to(SUM), 0),)
        acc = grown
        of_bias = summed
    own = sums + split.to(tl.int64) * (size + K * channels_out)
    inside = (o < channels_out)[:, None] & (c < channels_in)[None, :]
    once = (o < channels_out) & (tl.program_id(1) % blocks == 0)
    for i in tl.static_range(GROUP):
        of_k = (first_k + i) * channels_out + o
        tl.store(own + of_k[:, None] * channels_in + c[None, :], acc[i], mask=inside)
        tl.store(own + size + of_k, of_bias[i], mask=once)


@triton.jit(do_not_specialize=["samples", "frames", "layouts"])
def joint_gradients(
    x,
    grad,
    weight,
    bias,  # (K, C_out) or None
    layout_index,
    joint_counts,
    links,  # (blocks, splits, L, K, BLOCK_R, BLOCK_R): dA in parts
    channels_in,
    channels_out,
    samples,
    frames,
    joints,
    layouts,
    x_n,
    x_t,
    x_v,
    g_n,
    g_t,
    g_v,
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
    """dA, all of it whatever the support, of one layout and partition, for a block of channels.

    A program adds up its share of the tiles. A tile is as many whole frames as fit BLOCK_R rows: a
    row is the same joint in all. The product (W_k x + b_k) g^T of a tile links each of its frames
    with the others as well; what does not link a frame with itself is never stored.
    """
    split = tl.program_id(0)
    own_layout = tl.program_id(1) // K
    k = tl.program_id(1) % K
    blocks = tl.cdiv(channels_in, BLOCK_C)
    c = tl.program_id(2) % blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    o = tl.program_id(2) // blocks * BLOCK_O + tl.arange(0, BLOCK_O)
    row = tl.arange(0, BLOCK_R)
    v = row % joints
    together = BLOCK_R // joints
    tiles = tl.cdiv(frames, together)
    within = (c < channels_in)[:, None] & (o < channels_out)[None, :]
    factor_at = weight + k * w_k + c[:, None] * w_c + o[None, :] * w_o
    factor = as_operand(tl.load(factor_at, mask=within, other=0), x, OPERAND)
    if bias is not None:  # is for one of the blocks that share output channels
        once = (o < channels_out) & (tl.program_id(2) % blocks == 0)
        shift = tl.load(bias + k * channels_out + o, mask=once, other=0).to(SUM)
    acc = tl.zeros((BLOCK_R, BLOCK_R), SUM)
    for tile in range(split, samples * tiles, tl.num_programs(0)):
        sample = (tile // tiles).to(tl.int64)
        layout, count = _layout_of(sample, layout_index, joint_counts, layouts, joints)
        t = tile % tiles * together + row // joints
        # A sample of another layout counts as zeros: a branch would keep loads from running ahead.
        real = (row < together * joints) & (t < frames) & (v < count) & (layout == own_layout)
        g_rows = grad + sample * g_n + t.to(tl.int64) * g_t + v.to(tl.int64) * g_v
        g_inside = real[:, None] & (o < channels_out)[None, :]
        g = tl.load(g_rows[:, None] + o[None, :], mask=g_inside, other=0)
        x_rows = x + sample * x_n + t.to(tl.int64) * x_t + v.to(tl.int64) * x_v
        x_inside = real[:, None] & (c < channels_in)[None, :]
        near = tl.load(x_rows[:, None] + c[None, :], mask=x_inside, other=0).to(OPERAND)
        h = tl.dot(near, factor, None, PRECISION, out_dtype=SUM)
        if bias is not None:
            h += shift[None, :]
        h = as_operand(h, x, OPERAND)
        turned = tl.trans(as_operand(g, x, OPERAND))
        acc = tl.dot(h, turned, acc, PRECISION, out_dtype=SUM)
    part = (tl.program_id(2) * tl.num_programs(0) + split).to(tl.int64)
    part = part * tl.num_programs(1) + tl.program_id(1)
    frame = tl.where(row < together * joints, row // joints, -1)
    same = (frame[:, None] == frame[None, :]) & (frame >= 0)[:, None]
    from_row = (part * BLOCK_R + row)[:, None]
    tl.store(links + from_row * BLOCK_R + row[None, :], acc, mask=same)
