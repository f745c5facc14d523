"""The Triton programs of the masked graph convolution; triton_launch.py launches them.

As on the CPU the graph comes first: the few neighbours of a joint are added up where they are read,
and the sum z goes to the tensor cores at once. Nothing of the size of K activations exists.

    z_k[t,w] = sum_v A[k,v,w] x[t,v]            y[t,w] = sum_k W_k z_k[t,w] + b_k sum_v A[k,v,w]
    dx: the same operation on the gradient g, with A and every W_k transposed
    dW_k = sum_t,w g[t,w] z_k[t,w]^T            db_k = sum_v,w A[k,v,w] sum_t g[t,w]
    dA[k,v,w] = sum_t (W_k x[t,v] + b_k) . g[t,w]

Neighbours stand in lists, made anew for each call without asking the device for anything: per
layout, partition and joint w the j-th neighbour is source[j, w] (-1 past the last) and its entry
value[j, w]; `total` is the sum of the entries of w, `longest` the length of the longest list.

Types: SUM is what sums are kept in, OPERAND what products are fed with. There are no atomics: every
sum has a fixed order. Arithmetic begins with `.to(SUM)`, as Triton's interpreter has no bfloat16.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def list_neighbours(
    adjacency,  # (L, K, V, V), contiguous
    support,  # the same in bool, or None
    joint_counts,  # (L,) or None
    source,  # (L, K, V, V) int32; this and the next three are made here
    value,  # (L, K, V, V)
    total,  # (L, K, V)
    longest,  # (L, K) int32
    partitions,
    joints,
    TRANSPOSED: tl.constexpr,  # lists of the joints w that a joint v goes to
    BLOCK_V: tl.constexpr,
    BLOCK_W: tl.constexpr,
):
    """One program lists the neighbours of one layout and partition."""
    graph = tl.program_id(0)
    count = joints
    if joint_counts is not None:
        count = tl.minimum(tl.load(joint_counts + graph // partitions).to(tl.int32), joints)
    base = graph * joints * joints
    v = tl.arange(0, BLOCK_V)[:, None]
    most = 0
    for start in range(0, joints, BLOCK_W):
        w = start + tl.arange(0, BLOCK_W)[None, :]
        linked = (v < count) & (w < count)  # what stands beyond is not even read
        at = base + (w * joints + v if TRANSPOSED else v * joints + w)
        entry = tl.load(adjacency + at, mask=linked, other=0).to(value.dtype.element_ty)
        if support is not None:
            linked = linked & (tl.load(support + at, mask=linked, other=0) != 0)
        linked = linked & (entry != 0)  # true of NaN
        place = tl.cumsum(linked.to(tl.int32), 0) - 1
        degree = tl.sum(linked.to(tl.int32), 0)[None, :]
        unused = (v >= degree) & (v < joints) & (w < joints)
        tl.store(source + base + place * joints + w, v + tl.zeros_like(w), mask=linked)
        tl.store(value + base + place * joints + w, entry, mask=linked)
        tl.store(source + base + v * joints + w, tl.full(unused.shape, -1, tl.int32), mask=unused)
        sums = tl.sum(tl.where(linked, entry, 0), 0)[None, :]
        tl.store(total + graph * joints + w, sums, mask=w < joints)
        most = tl.maximum(most, tl.max(degree))
    tl.store(longest + graph, most)


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
def _rounded(numbers, like, OPERAND: tl.constexpr):
    """Numbers as a product takes them: of the precision of a tensor's elements."""
    return numbers.to(like.dtype.element_ty).to(OPERAND)


@triton.jit
def _aggregate(
    rows,  # (BLOCK_M,) pointers to the frame of each row
    stride,  # between joints
    c,  # (BLOCK_C,) channels
    inside,  # (BLOCK_C,) whether they exist
    real,  # (BLOCK_M,) whether the row's joint does
    source,
    value,
    first,  # (BLOCK_M,) where the list of each row begins
    most,  # neighbours at most
    joints,
    z,  # (BLOCK_M, BLOCK_C) zeros
):
    """The neighbours of each row, weighted and added up."""
    for j in range(most):
        v = tl.load(source + (first + j * joints), mask=real, other=-1)
        linked = v >= 0
        a = tl.load(value + (first + j * joints), mask=linked, other=0)
        at = (rows + v.to(tl.int64) * stride)[:, None] + c[None, :]
        near = tl.load(at, mask=linked[:, None] & inside[None, :], other=0)
        z += a[:, None] * near.to(z.dtype)
    return z


@triton.jit(do_not_specialize=["frames", "layouts"])
def convolve(
    x,
    weight,
    bias,  # (K, C_out) or None
    source,
    value,
    total,
    longest,
    layout_index,
    joint_counts,
    y,
    statistics,  # (tiles, 2, C_out) or None: sums and sums of squares of y as it is stored
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
        first = graph * joints * joints + w
        most = tl.load(longest + graph)
        for start in range(0, channels_in, BLOCK_C):
            c = start + tl.arange(0, BLOCK_C)
            z = tl.zeros((BLOCK_M, BLOCK_C), SUM)
            z = _aggregate(
                rows, x_v, c, c < channels_in, real, source, value, first, most, joints, z
            )
            factor_at = weight + k * w_k + c[:, None] * w_c + o[None, :] * w_o
            within = (c < channels_in)[:, None] & (o < channels_out)[None, :]
            factor = _rounded(tl.load(factor_at, mask=within, other=0), x, OPERAND)
            acc = tl.dot(_rounded(z, x, OPERAND), factor, acc, PRECISION, out_dtype=SUM)
        if bias is not None:
            share = tl.load(total + graph * joints + w, mask=real, other=0)
            shift = tl.load(bias + k * channels_out + o, mask=o < channels_out, other=0)
            acc += share[:, None] * shift.to(SUM)[None, :]

    made = tl.where(real[:, None], acc, 0).to(y.dtype.element_ty)
    if statistics is not None:
        stored = made.to(SUM)
        own = statistics + tile.to(tl.int64) * 2 * channels_out + o
        tl.store(own, tl.sum(stored, 0), mask=o < channels_out)
        tl.store(own + channels_out, tl.sum(stored * stored, 0), mask=o < channels_out)
    y_rows = y + sample * y_n + t * y_t + w.to(tl.int64) * y_v
    y_at = y_rows[:, None] + o.to(tl.int64)[None, :] * y_c
    tl.store(y_at, made, mask=exists[:, None] & (o < channels_out)[None, :])


@triton.jit(do_not_specialize=["samples", "frames", "layouts"])
def weight_gradient(
    x,
    grad,
    source,
    value,
    longest,
    layout_index,
    joint_counts,
    sums,  # (splits, K, C_out, C_in)
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
    K: tl.constexpr,
    GROUP: tl.constexpr,  # partitions that a program does at once, of what it reads once
    SUM: tl.constexpr,
    OPERAND: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_O: tl.constexpr,
):
    """dW for a block of channels: a program adds up its share of the tiles of BLOCK_M rows."""
    split = tl.program_id(0)
    blocks = tl.cdiv(channels_in, BLOCK_C)
    c = tl.program_id(1) % blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    o = tl.program_id(1) // blocks * BLOCK_O + tl.arange(0, BLOCK_O)
    first_k = tl.program_id(2) * GROUP
    tiles = tl.cdiv(frames * joints, BLOCK_M)
    acc = ()
    for _ in tl.static_range(GROUP):
        acc = acc + (tl.zeros((BLOCK_O, BLOCK_C), SUM),)
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
        g = tl.trans(_rounded(g, x, OPERAND))
        grown = ()
        for i in tl.static_range(GROUP):
            graph = layout * K + first_k + i
            first = graph * joints * joints + w
            most = tl.load(longest + graph)
            z = tl.zeros((BLOCK_M, BLOCK_C), SUM)
            z = _aggregate(
                rows, x_v, c, c < channels_in, real, source, value, first, most, joints, z
            )
            z = _rounded(z, x, OPERAND)
            grown = grown + (tl.dot(g, z, acc[i], PRECISION, out_dtype=SUM),)
        acc = grown
    for i in tl.static_range(GROUP):
        k = (split * K + first_k + i).to(tl.int64)
        own = sums + (k * channels_out + o)[:, None] * channels_in + c[None, :]
        tl.store(own, acc[i], mask=(o < channels_out)[:, None] & (c < channels_in)[None, :])


@triton.jit(do_not_specialize=["samples", "frames", "layouts"])
def joint_gradients(
    x,
    grad,
    weight,
    layout_index,
    joint_counts,
    grad_sums,  # (splits, L, BLOCK_R, C_out) or None: of grad over samples and tiles
    link_sums,  # (blocks, splits, L, K, BLOCK_R, BLOCK_R) or None: of dA without the bias, in part
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
    GROUP: tl.constexpr,
    SUM: tl.constexpr,
    OPERAND: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_O: tl.constexpr,
):
    """What is kept by joint: the sum of grad, and dA, all of it whatever the support.

    A program adds up its share of the tiles of one layout, for a block of channels, in which dA is
    linear. A tile is as many whole frames as fit BLOCK_R rows: a row is the same joint in all. The
    product (x W_k^T) g^T of a tile links each of its frames with the others as well; what does not
    link a frame with itself is never stored.
    """
    split = tl.program_id(0)
    own_layout = tl.program_id(1) % layouts
    first_k = tl.program_id(1) // layouts * GROUP
    blocks = tl.cdiv(channels_in, BLOCK_C)
    c = tl.program_id(2) % blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    o = tl.program_id(2) // blocks * BLOCK_O + tl.arange(0, BLOCK_O)
    row = tl.arange(0, BLOCK_R)
    v = row % joints
    together = BLOCK_R // joints
    tiles = tl.cdiv(frames, together)
    factors = ()
    links = ()
    for i in tl.static_range(GROUP):
        factor_at = weight + (first_k + i) * w_k + c[:, None] * w_c + o[None, :] * w_o
        within = (c < channels_in)[:, None] & (o < channels_out)[None, :]
        factor = _rounded(tl.load(factor_at, mask=within, other=0), x, OPERAND)
        factors = factors + (factor,)
        links = links + (tl.zeros((BLOCK_R, BLOCK_R), SUM),)
    total = tl.zeros((BLOCK_R, BLOCK_O), SUM)
    for tile in range(split, samples * tiles, tl.num_programs(0)):
        sample = (tile // tiles).to(tl.int64)
        layout, count = _layout_of(sample, layout_index, joint_counts, layouts, joints)
        t = tile % tiles * together + row // joints
        # A sample of another layout counts as zeros: a branch would keep loads from running ahead.
        real = (row < together * joints) & (t < frames) & (v < count) & (layout == own_layout)
        g_rows = grad + sample * g_n + t.to(tl.int64) * g_t + v.to(tl.int64) * g_v
        g_inside = real[:, None] & (o < channels_out)[None, :]
        g = tl.load(g_rows[:, None] + o[None, :], mask=g_inside, other=0)
        if grad_sums is not None:
            total += g.to(SUM)
        if link_sums is not None:
            x_rows = x + sample * x_n + t.to(tl.int64) * x_t + v.to(tl.int64) * x_v
            x_inside = real[:, None] & (c < channels_in)[None, :]
            near = tl.load(x_rows[:, None] + c[None, :], mask=x_inside, other=0).to(OPERAND)
            g = tl.trans(_rounded(g, x, OPERAND))
            grown = ()
            for i in tl.static_range(GROUP):
                h = tl.dot(near, factors[i], None, PRECISION, out_dtype=SUM)
                h = _rounded(h, x, OPERAND)
                grown = grown + (tl.dot(h, g, links[i], PRECISION, out_dtype=SUM),)
            links = grown
    part = (split * layouts + own_layout).to(tl.int64)
    if grad_sums is not None:
        once = (tl.program_id(2) % blocks == 0) & (first_k == 0)
        own = grad_sums + (part * BLOCK_R + row)[:, None] * channels_out + o[None, :]
        tl.store(own, total, mask=(o < channels_out)[None, :] & once)
    if link_sums is not None:
        part += tl.program_id(2).to(tl.int64) * tl.num_programs(0) * layouts
        frame = tl.where(row < together * joints, row // joints, -1)
        same = (frame[:, None] == frame[None, :]) & (frame >= 0)[:, None]
        for i in tl.static_range(GROUP):
            from_row = ((part * K + first_k + i) * BLOCK_R + row)[:, None]
            tl.store(link_sums + from_row * BLOCK_R + row[None, :], links[i], mask=same)
