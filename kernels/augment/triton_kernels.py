"""The Triton program of augmented batches; triton_launch.py launches it.

A program makes BLOCK_T frames of BLOCK_V joints of one body. What is drawn is in reference.py; a
program draws its clip's few numbers itself and the noise of the joints it reads, so that nothing
but clips is read. Blur and motion are one product with a banded matrix over time: row t holds the
weights of the frames around t (less those of t for motion), whose ends are repeated as they are
read. A bone reads its parent joint as well, noise and all.
"""

from __future__ import annotations

import triton
import triton.language as tl

NORMAL = tl.constexpr(1)  # views
EXTREME = tl.constexpr(2)
MOTION = tl.constexpr(1)  # streams
BONE = tl.constexpr(2)
TAPS = tl.constexpr(15)
REACH = tl.constexpr(7)
LEAST_BLUR = tl.constexpr(0.1)
ONE_DEGREE = tl.constexpr(1 / 45)  # of 45
FIRST_NOISE_BLOCK = tl.constexpr(16)
PER_WORD = tl.constexpr(2.0**-24)
LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def _upper(word):
    """The upper 24 bits, a float32 that has them all."""
    return (word >> 8).to(tl.int32).to(tl.float32)


@triton.jit
def _uniform(word):
    return _upper(word) * PER_WORD


@triton.jit
def _below(word, n):
    return ((word.to(tl.uint64) * n) >> 32).to(tl.int32)


@triton.jit
def _cos_sin(t):
    """Of t pi/4, t in -1..1: polynomials of least largest relative error (4e-8 and 3e-9)."""
    z = t * t
    s = (-3.5950452e-05 * z + 0.002490001032) * z - 0.08074543625
    s = s * z + 0.7853981853
    c = (-0.0003190200368 * z + 0.01585020125) * z - 0.3084244132
    return c * z + 1.0, s * t


@triton.jit
def _turned(t, quarter):
    """Cosine and sine of t pi/4, t in -1..1, and of so many quarter turns more."""
    c, s = _cos_sin(t)
    swapped = (quarter & 1) != 0
    cosine, sine = tl.where(swapped, s, c), tl.where(swapped, c, s)
    cosine = tl.where(((quarter + 1) & 2) != 0, -cosine, cosine)
    return cosine, tl.where((quarter & 2) != 0, -sine, sine)


@triton.jit
def _angle(t):
    """Cosine and sine of t pi/4, t not negative."""
    quarter = ((t + 1.0) * 0.5).to(tl.int32)
    return _turned(t - 2.0 * quarter.to(tl.float32), quarter)


@triton.jit
def _turn(word):
    """Cosine and sine of 2 pi word / 2^32, of which the upper 24 bits count."""
    angle = (word >> 8).to(tl.int32)
    quarter = (angle + (1 << 21)) >> 22
    return _turned((angle - (quarter << 22)).to(tl.float32) * 2.0**-21, quarter)


@triton.jit
def _radius(word):
    """sqrt(-2 ln u), u = (word / 2^8 + 1) / 2^24, exact to a few ulp for u next to 1 as well."""
    bits = (_upper(word) + 1.0).to(tl.int32, bitcast=True)
    e = (bits - 0x3F3504F3) >> 23  # u = 2^(e - 24) (1 + f), f in sqrt(1/2)-1 .. sqrt(2)-1
    f = (bits - (e << 23)).to(tl.float32, bitcast=True) - 1.0
    p = 0.08734843135 * f - 0.1430752128
    p = p * f + 0.1491797417
    p = p * f - 0.1657050848
    p = p * f + 0.1996207237
    p = p * f - 0.2500175536
    p = p * f + 0.3333395123
    p = p * f - 0.4999999106
    return tl.sqrt_rn(-2.0 * ((e - 24).to(tl.float32) * LN_2 + (p * (f * f) + f)))


@triton.jit
def _any(x, n, BLOCK: tl.constexpr):
    """Whether any of n numbers is not 0; reads no further than needed."""
    i = 0
    found = 0
    while (found == 0) & (i < n):
        at = i + tl.arange(0, BLOCK)
        part = tl.load(x + at, mask=at < n, other=0).to(tl.float32)
        found = tl.max((part != 0).to(tl.int32), axis=0)
        i += BLOCK
    return found


@triton.jit
def _off(word, most):
    return 2 * most * _uniform(word) - most


@triton.jit
def _shear(xy, xz, yx, yz, zx, zy, most, PLANAR: tl.constexpr):
    """The off-diagonal words of a matrix, row by row; of planar joints the score is kept."""
    a, b = _off(xy, most), _off(yx, most)
    if PLANAR:
        return 1.0, a, 0.0, b, 1.0, 0.0, 0.0, 0.0, 1.0
    c, d, e, f = _off(xz, most), _off(yz, most), _off(zx, most), _off(zy, most)
    return 1.0, a, c, b, 1.0, d, e, f, 1.0


@triton.jit
def _basic(seed, clip, epoch, purpose, pad, most, PLANAR: tl.constexpr):
    """The crop's first frame, the shear, and the word that says whether to flip."""
    a0, a1, a2, a3 = tl.philox(seed, 0, clip, epoch, purpose)
    b0, b1, b2, b3 = tl.philox(seed, 1, clip, epoch, purpose)
    return _below(a0, 2 * pad + 1) - pad, _shear(a1, a2, a3, b0, b1, b2, most, PLANAR), b3


@triton.jit
def _store(at, known, x, y, z, exist):
    """Coordinates of joints; NaN where the row is not known."""
    nan = float("nan")
    tl.store(at, tl.where(known, x, nan).to(at.dtype.element_ty), mask=exist)
    tl.store(at + 1, tl.where(known, y, nan).to(at.dtype.element_ty), mask=exist)
    tl.store(at + 2, tl.where(known, z, nan).to(at.dtype.element_ty), mask=exist)


@triton.jit
def _rotation(main, x, y, z, most, PLANAR: tl.constexpr):
    """R_x R_y R_z, row by row, of the words of three angles: up to ``most``, of 45 degrees, about
    one axis."""
    axis, others = _below(main, 3), tl.minimum(most, ONE_DEGREE)
    cx, sx = _angle(_uniform(x) * tl.where(axis == 0, most, others))
    cy, sy = _angle(_uniform(y) * tl.where(axis == 1, most, others))
    cz, sz = _angle(_uniform(z) * tl.where(axis == 2, most, others))
    a, b, c = cy * cz, -cy * sz, sy
    d, e, f = cx * sz + sx * sy * cz, cx * cz - sx * sy * sz, -sx * cy
    if PLANAR:
        return a, b, 0.0, d, e, 0.0, 0.0, 0.0, 1.0
    return a, b, c, d, e, f, sx * sz - cx * sy * cz, sx * cz + cx * sy * sz, cx * cy


@triton.jit
def _apply(matrix, x, y, z):
    return (
        matrix[0] * x + matrix[1] * y + matrix[2] * z,
        matrix[3] * x + matrix[4] * y + matrix[5] * z,
        matrix[6] * x + matrix[7] * y + matrix[8] * z,
    )


@triton.jit
def _normals(seed, block, clip, epoch, purpose):
    """A normal number for each coordinate of the joints of blocks."""
    w0, w1, w2, w3 = tl.philox(seed, block, clip, epoch, purpose)
    x, y = _turn(w1)
    z, _ = _turn(w3)
    radius = _radius(w0)
    return radius * x, radius * y, _radius(w2) * z


@triton.jit
def _joints(
    body, m, t, v, frames, joints, flip, start, flipped, shear, rotation, sd,
    seed, clip, epoch, purpose,
    VIEW: tl.constexpr, PLANAR: tl.constexpr,
):  # fmt: skip
    """Coordinates of joints v of body m in frames t, up to the noise: x, y, z."""
    exist = (v < joints)[None, :]
    from_t, from_v = t + start, v
    from_t = tl.where(from_t < 0, -1 - from_t, from_t)
    from_t = tl.where(from_t >= frames, 2 * frames - 1 - from_t, from_t)
    exist = exist & (from_t >= 0)[:, None]  # a frame past the last one may mirror to none
    if VIEW == EXTREME:
        mirrored = tl.load(flip + v, mask=v < joints, other=0).to(tl.int32)
        from_v = tl.where(flipped, mirrored, v)
    at = body + (from_t[:, None] * joints + from_v[None, :]) * 3
    x = tl.load(at, mask=exist, other=0).to(tl.float32)
    y = tl.load(at + 1, mask=exist, other=0).to(tl.float32)
    z = tl.load(at + 2, mask=exist, other=0).to(tl.float32)
    if VIEW >= NORMAL:
        x, y, z = _apply(shear, x, y, z)
    if VIEW == EXTREME:
        x, y, z = _apply(rotation, x, y, z)
        if sd > 0:
            block = FIRST_NOISE_BLOCK + (m * frames + t[:, None]) * joints + v[None, :]
            noise_x, noise_y, noise_z = _normals(seed, block, clip, epoch, purpose)
            x += sd * noise_x
            y += sd * noise_y
            if not PLANAR:
                z += sd * noise_z
    return x, y, z


@triton.jit
def _weights(t, source, blurred, word, spread, shift):
    """Those of frames ``source`` in frames t + shift: a Gaussian of sd 0.1 .. 0.1 + spread."""
    sd = LEAST_BLUR + tl.maximum(spread, 0.0) * _uniform(word)
    every = tl.arange(0, 16) - REACH
    total = tl.sum(tl.where(every <= REACH, tl.exp(-every * every / (2 * sd * sd)), 0.0), axis=0)
    offset = source[None, :] - t[:, None] - shift
    near = (offset >= -REACH) & (offset <= REACH)
    gaussian = tl.exp(-offset * offset / (2 * sd * sd)) / total
    return tl.where(near, tl.where(blurred, gaussian, (offset == 0).to(tl.float32)), 0.0)


@triton.jit(do_not_specialize=["held", "seed", "purpose", "pad"])
def augment(
    clips,  # (N, M, T, V, 3)
    index,  # (B,)
    numbers,  # (B,)
    epochs,  # (B,)
    flip,  # (V,) or None
    parents,  # (V,) or None
    out,  # (B, M, T, V, 3)
    held,  # N
    bodies,
    frames,
    joints,
    seed,
    purpose,
    pad,  # frames
    shear_most,
    rotation_most,  # of 45 degrees
    noise_sd,
    blur_spread,  # of its standard deviations; negative: off
    flip_often,
    zero_often,
    VIEW: tl.constexpr,
    STREAM: tl.constexpr,
    PLANAR: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_S: tl.constexpr,  # frames that those of a tile are blurred from
    BLOCK_V: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    b, m = tl.program_id(0) // bodies, tl.program_id(0) % bodies
    first = tl.program_id(1) * BLOCK_T
    t = first + tl.arange(0, BLOCK_T)
    v = tl.program_id(2) * BLOCK_V + tl.arange(0, BLOCK_V)
    row = tl.load(index + b)
    known = (row >= 0) & (row < held)  # a row that is not there is made NaN
    size = frames * joints * 3
    body = clips + (tl.where(known, row, 0) * bodies + m) * size
    clip, epoch = tl.load(numbers + b).to(tl.int32), tl.load(epochs + b).to(tl.int32)
    purpose = purpose.to(tl.int32)

    start, flipped, sd = 0, False, 0.0
    shear, rotation = (1.0,), (1.0,)
    if VIEW >= NORMAL:
        start, shear, flip_word = _basic(seed, clip, epoch, purpose, pad, shear_most, PLANAR)
    if VIEW == EXTREME:
        c0, c1, c2, c3 = tl.philox(seed, 2, clip, epoch, purpose)
        d0, d1, d2, d3 = tl.philox(seed, 3, clip, epoch, purpose)
        e0, _, _, _ = tl.philox(seed, 4, clip, epoch, purpose)
        flipped = _uniform(flip_word) < flip_often
        rotation = _rotation(c0, c1, c2, c3, rotation_most, PLANAR)
        if _uniform(d0) < 0.5:
            sd = tl.where(_any(body, size, BLOCK_N) != 0, noise_sd, 0.0)

    # The frames to read: a blur's ends are the first and last frame, again and again.
    read = t
    if VIEW == EXTREME:
        source = first - REACH + tl.arange(0, BLOCK_S)
        read = tl.minimum(tl.maximum(source, 0), frames - 1)
    x, y, z = _joints(
        body, m, read, v, frames, joints, flip, start, flipped, shear, rotation, sd,
        seed, clip, epoch, purpose, VIEW, PLANAR,
    )  # fmt: skip
    if STREAM == BONE:
        parent = tl.load(parents + v, mask=v < joints, other=0).to(tl.int32)
        parent_x, parent_y, parent_z = _joints(
            body, m, read, parent, frames, joints, flip, start, flipped, shear, rotation, sd,
            seed, clip, epoch, purpose, VIEW, PLANAR,
        )  # fmt: skip
        x -= parent_x
        y -= parent_y
        if not PLANAR:
            z -= parent_z
    if VIEW == EXTREME:
        blurred = (_uniform(d1) < 0.5) & (blur_spread >= 0)
        weights = _weights(t, source, blurred, d2, blur_spread, 0)  # (BLOCK_T, BLOCK_S)
        moves = weights
        if STREAM == MOTION:
            moves = _weights(t, source, blurred, d2, blur_spread, 1) - weights
        axis = tl.where(_uniform(d3) < zero_often, _below(e0, 2 if PLANAR else 3), -1)
        x = tl.dot(moves, tl.where(axis == 0, 0.0, x), input_precision="ieee")
        y = tl.dot(moves, tl.where(axis == 1, 0.0, y), input_precision="ieee")
        z = tl.dot(weights if PLANAR else moves, tl.where(axis == 2, 0.0, z),
                   input_precision="ieee")  # fmt: skip
    elif STREAM == MOTION:
        next_x, next_y, next_z = _joints(
            body, m, tl.minimum(t + 1, frames - 1), v, frames, joints, flip, start, flipped, shear,
            rotation, sd, seed, clip, epoch, purpose, VIEW, PLANAR,
        )  # fmt: skip
        x, y = next_x - x, next_y - y
        if not PLANAR:
            z = next_z - z
    if STREAM == MOTION:
        moving = (t < frames - 1)[:, None]
        x, y = tl.where(moving, x, 0.0), tl.where(moving, y, 0.0)
        if not PLANAR:
            z = tl.where(moving, z, 0.0)

    exist = (t < frames)[:, None] & (v < joints)[None, :]
    at = out + tl.program_id(0).to(tl.int64) * size + (t[:, None] * joints + v[None, :]) * 3
    _store(at, known, x, y, z, exist)
