"""msclr::temporal_conv and its gradient equal their formulas, on every path of the CPU's code."""

from __future__ import annotations

import math

import pytest
import torch

from msclr.kernels import backends
from msclr.kernels._backend import instruction_set
from msclr.kernels.temporal_conv import operator, reference

pytestmark = pytest.mark.skipif(
    bool(backends()["cpu"]), reason=f"no compiled operators: {backends()['cpu']}"
)

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


@pytest.fixture(params=[1, 2, 4])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def arguments(segments, c_in, c_out, stride, dtype=torch.float32, parameters=torch.float32, seed=0):
    """Those of the forward pass, and d and the coefficients of the backward pass."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape, dtype=parameters):
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    triples = list(reference.triples(segments))
    rows = sum(n * t * v for n, t, v in triples)
    out_rows = sum(n * reference.frames_out(t, stride) * v for n, t, v in triples)
    weight = draw(c_out, c_in, 9) / math.sqrt(9 * c_in)
    forward = (draw(rows, c_in, dtype=dtype), draw(c_in), draw(c_in), weight, draw(c_out))
    return forward, (draw(out_rows, c_out, dtype=dtype), draw(3, c_out))


def run(forward, backward, segments, stride):
    """All results of both operators."""
    x, scale, shift, weight, bias = forward
    y, statistics = torch.ops.msclr.temporal_conv(*forward, segments, stride)
    d, coefficients = backward
    gradients = torch.ops.msclr.temporal_conv_backward(
        d, y, coefficients, x, scale, shift, weight, segments, stride, True, True
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
    size = expected.abs().amax(dim=-1, keepdim=True) if name == "statistics" else expected.abs().max()
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


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("segments", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("channels", [(16, 16), (3, 17), (5, 1), (64, 40)], ids=str)
def test_both_are_their_formulas(segments, channels, stride):
    assert_right(segments, *channels, stride)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("segments", SHAPES.values(), ids=SHAPES)
def test_wide_ones_are_their_formulas(segments, stride, isa):
    assert_right(segments, 136, 100, stride)


@pytest.mark.parametrize("stride", [1, 2])
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
def test_every_dtype_and_instruction_set(channels, stride, dtype, parameters, isa):
    assert_right([2, 13, 5, 1, 22, 2], *channels, stride, dtype, parameters)
