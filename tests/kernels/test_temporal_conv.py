"""msclr::temporal_conv and its gradient equal their formulas, on every path of the CPU's code."""

from __future__ import annotations

import ctypes
import math
from pathlib import Path

import pytest
import torch

from msclr import kernels
from msclr.kernels._backend import instruction_set
from msclr.kernels._segments import rows_in
from msclr.kernels.temporal_conv import reference
from tests.needs import needs_operators

pytestmark = needs_operators

FORWARD = ("y", "statistics")
BACKWARD = ("e", "statistics", "dweight", "dbias")
EPS = {dtype: torch.finfo(dtype).eps for dtype in (torch.float32, torch.float64)}


@pytest.fixture(params=["portable", "avx2", "avx512"])
def isa(request):
    """Each instruction set that this processor has."""
    before = instruction_set()
    try:
        instruction_set(request.param)
    except ValueError as error:
        pytest.skip(str(error))
    yield request.param
    instruction_set(before)


def choose(algorithm):
    library = ctypes.CDLL(str(Path(kernels.__file__).parent / "_C.so"))
    library.msclr_temporal_conv_algorithm(ctypes.c_char_p(algorithm.encode()))


@pytest.fixture(params=["direct", "spectral"])
def algorithm(request):
    """Each algorithm, on any shape: the rule would leave small ones to the first."""
    choose(request.param)
    yield request.param
    choose("fastest")


@pytest.fixture
def poisoned():
    """Memory that has just been allocated holds huge numbers, of glibc's making."""
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except OSError:
        pytest.skip("not glibc")
    perturb, mmap_threshold = -6, -3  # memory of mmap would be zeros
    mallopt(mmap_threshold, 1 << 25)
    mallopt(perturb, 0x80)  # new memory holds its complement: 3.4e38
    yield
    mallopt(perturb, 0)


def arguments(segments, c_in, c_out, stride, dtype=torch.float32, parameters=torch.float32, seed=0):
    """Those of the forward pass, and d and the coefficients of the backward pass."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape, dtype=parameters):
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    rows, out_rows = rows_in(segments), rows_in(segments, stride)
    weight = draw(c_out, c_in, 9) / math.sqrt(9 * c_in)
    forward = (draw(rows, c_in, dtype=dtype), draw(c_in), draw(c_in), weight, draw(c_out))
    return forward, (draw(out_rows, c_out, dtype=dtype), draw(3, c_out))


def run(forward, backward, segments, stride, given_y=None):
    """All results of both operators; the second is given the y of the first, or another."""
    x, scale, shift, weight, bias = forward
    y, statistics = torch.ops.msclr.temporal_conv(*forward, segments, stride)
    d, coefficients = backward
    given_y = y if given_y is None else given_y
    gradients = torch.ops.msclr.temporal_conv_backward(
        d, given_y, coefficients, x, scale, shift, weight, segments, stride, True, True
    )
    return dict(zip(FORWARD, (y, statistics), strict=True)), dict(
        zip(BACKWARD, gradients, strict=True)
    )


def exact(forward, backward, y, segments, stride):
    """The same in float64, from the y that was computed."""
    *_, bias = forward = [t.double() for t in forward]
    d, coefficients = (t.double() for t in backward)
    found = reference.temporal_conv(*forward, segments, stride)
    gradients = reference.temporal_conv_backward(
        d, y.double(), coefficients, *forward[:-1], segments, stride
    )
    return dict(zip(FORWARD, found, strict=True)), dict(zip(BACKWARD, gradients, strict=True))


def assert_right(segments, c_in, c_out, stride, dtype=torch.float32, parameters=torch.float32):
    forward, backward = arguments(segments, c_in, c_out, stride, dtype, parameters)
    found = run(forward, backward, segments, stride)
    wanted = exact(forward, backward, found[0]["y"], segments, stride)
    compute = torch.float64 if dtype == torch.float64 else torch.float32
    # The rounding errors of sums of n numbers grow as the root of n.
    relative = 2 * EPS[compute] * math.sqrt(9 * max(c_in, c_out))
    stored = {"y": dtype, "e": dtype, "dweight": parameters, "dbias": parameters}
    for got, expected in zip(found, wanted, strict=True):
        for name in got:
            rounding = torch.finfo(stored.get(name, torch.float64)).eps
            assert_close(name, got[name], expected[name], relative, rounding)


def assert_close(name, got, expected, relative, rounding=0.0):
    """Within `relative` of the largest number of its kind, and a rounding of its own."""
    assert got.shape == expected.shape, name
    if not expected.numel():
        return
    size = (
        expected.abs().amax(dim=-1, keepdim=True) if name == "statistics" else expected.abs().max()
    )
    error = (got.double() - expected).abs() - rounding * expected.abs()
    assert (error <= relative * size + 1e-30).all(), f"{name}: {float((error / size).max()):.1e}"


SHAPES = {
    "T = 13": [2, 13, 5],
    "T = 50": [1, 50, 3],
    "T = 14": [1, 14, 2],
    "T = 15": [1, 15, 2],
    "T < 9": [2, 5, 4],
    "T = 1": [3, 1, 2],
    "one joint": [3, 20, 1],
    "several": [2, 13, 5, 0, 13, 7, 1, 25, 3, 0, 1, 1, 2, 4, 1],
    "no sample": [0, 13, 5],
    "no segment": [],
    "no frame": [2, 0, 5],
}


strides = pytest.mark.parametrize("stride", [1, 2])
shapes = pytest.mark.parametrize("segments", SHAPES.values(), ids=SHAPES)


@strides
@shapes
@pytest.mark.parametrize("channels", [(16, 16), (3, 17), (5, 1), (64, 40)], ids=str)
def test_both_are_their_formulas(segments, channels, stride, algorithm):
    assert_right(segments, *channels, stride)


@shapes
def test_wide_ones_are_their_formulas(segments, isa, algorithm):
    assert_right(segments, 136, 100, 1)


@pytest.mark.parametrize("segments", [[20, 13, 5], [3, 50, 7, 9, 14, 5], [3, 25, 7]], ids=str)
def test_many_tiles_and_chunks_are_one_result(segments, algorithm):
    assert_right(segments, 16, 48, 1)


@strides
def test_a_clip_of_many_tiles_is_one_result(stride):
    assert_right([2, 40, 25], 64, 80, stride)


@strides
@pytest.mark.parametrize("channels", [(1, 3), (17, 5), (32, 32), (130, 128)], ids=str)
@pytest.mark.parametrize(
    ("dtype", "parameters"),
    [
        (torch.float64, torch.float64),
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.bfloat16),
    ],
    ids=str,
)
def test_every_dtype(channels, stride, dtype, parameters, isa, algorithm):
    assert_right([2, 13, 5, 1, 22, 2], *channels, stride, dtype, parameters)


@pytest.mark.parametrize(("channels", "expected"), [(8, "direct"), (160, "spectral")])
def test_wide_layers_are_spectral(channels, expected):
    segments = [8, 13, 25]
    forward, backward = arguments(segments, channels, channels, 1)
    found = {}
    for name in ("fastest", "direct", "spectral"):
        choose(name)
        results = run(forward, backward, segments, 1, torch.zeros_like(backward[0]))
        found[name] = [results[0]["y"], results[1]["dweight"]]
    choose("fastest")
    for i in range(2):
        assert torch.equal(found["fastest"][i], found[expected][i])
        assert not torch.equal(found["direct"][i], found["spectral"][i])


@strides
def test_nothing_is_read_that_was_not_written(stride, algorithm, poisoned):
    assert_right(SHAPES["several"], 19, 33, stride)
    assert_right(SHAPES["several"], 19, 33, stride, torch.bfloat16)


@strides
def test_threads_change_no_bit(stride, algorithm):
    segments = [40, 13, 9, 3, 50, 7]
    forward, backward = arguments(segments, 40, 24, stride)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            found.append(run(forward, backward, segments, stride))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        for got, expected in zip(other, found[0], strict=True):
            for name in got:
                assert torch.equal(got[name], expected[name]), name


def kinds(tensor):
    """0 where finite, or another number for each of NaN, inf and -inf."""
    numbers = tensor.double().nan_to_num(nan=3.0, posinf=1.0, neginf=2.0)
    return numbers.masked_fill(torch.isfinite(tensor), 0)


@strides
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["x", "d"])
@pytest.mark.parametrize("segments", [[3, 13, 5], [2, 50, 3]], ids=str)
def test_what_is_not_finite_stays_where_it_is_in_pytorch(segments, where, value, stride, algorithm):
    forward, backward = arguments(segments, 20, 24, stride)
    forward[1][7] = 1.0
    spoilt = forward[0] if where == "x" else backward[0]
    _, frames, joints = segments
    # All taps reach frames of the clip: PyTorch's float64 multiplies padding with NaN as well.
    spoilt[frames // 2 // (1 if where == "x" else stride) * joints + 2, 7] = value
    y = torch.zeros_like(backward[0])
    found = run(forward, backward, segments, stride, y)
    wanted = exact(forward, backward, y, segments, stride)
    went_in = where == "d" or value != -math.inf  # the relu makes 0 of it
    assert bool(kinds(found[1]["dweight"]).any()) == went_in
    for got, expected in zip(found, wanted, strict=True):
        for name in got:
            assert torch.equal(kinds(got[name]), kinds(expected[name])), name
            finite = torch.isfinite(expected[name])
            torch.testing.assert_close(
                got[name][finite].double(), expected[name][finite], rtol=1e-4, atol=1e-4
            )


@strides
def test_only_what_is_wanted_is_computed(stride, algorithm):
    segments = [2, 13, 5, 1, 25, 3]
    (x, scale, shift, weight, _), (d, coefficients) = arguments(segments, 24, 40, stride)
    given = (d, torch.zeros_like(d), coefficients, x, scale, shift, weight, segments, stride)
    backward = torch.ops.msclr.temporal_conv_backward
    e, statistics, dweight, dbias = backward(*given, True, True)
    for got, expected in zip(backward(*given, True, False), (e, statistics), strict=False):
        assert torch.equal(got, expected)
    assert all(t.numel() == 0 for t in backward(*given, True, False)[2:])
    for got, expected in zip(backward(*given, False, True)[2:], (dweight, dbias), strict=True):
        assert torch.equal(got, expected)
    assert all(t.numel() == 0 for t in backward(*given, False, True)[:2])


def test_opcheck_holds():
    segments = [2, 13, 5, 1, 25, 3]
    (x, scale, shift, weight, bias), (d, coefficients) = arguments(segments, 24, 40, 1)
    checks = ("test_schema", "test_faketensor")  # there is no autograd
    forward = (x, scale, shift, weight, bias, segments, 1)
    torch.library.opcheck(torch.ops.msclr.temporal_conv.default, forward, test_utils=checks)
    backward = (d, torch.zeros_like(d), coefficients, x, scale, shift, weight, segments, 1)
    op = torch.ops.msclr.temporal_conv_backward.default
    for wanted in ((True, True), (False, True), (True, False)):
        torch.library.opcheck(op, (*backward, *wanted), test_utils=checks)


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("x", {"x": torch.zeros(129, 4)}),
        ("x", {"x": torch.zeros(130, 5)}),
        ("scale", {"scale": torch.zeros(5)}),
        ("shift", {"shift": torch.zeros(4, 1)}),
        ("weight", {"weight": torch.zeros(6, 4, 8)}),
        ("bias", {"bias": torch.zeros(5)}),
        ("segments", {"segments": [2, 13]}),
        ("segments", {"segments": [-2, 13, -5]}),
        ("stride", {"stride": 3}),
    ],
)
def test_a_wrong_argument_is_named(name, changed):
    segments = [2, 13, 5]
    forward, _ = arguments(segments, 4, 6, 1)
    names = ("x", "scale", "shift", "weight", "bias")
    good = dict(zip(names, forward, strict=True)) | {"segments": segments, "stride": 1}
    torch.ops.msclr.temporal_conv(*good.values())
    with pytest.raises(RuntimeError, match=rf"{name} must"):
        torch.ops.msclr.temporal_conv(*(good | changed).values())
