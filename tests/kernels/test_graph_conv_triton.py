"""masked_graph_conv in Triton: numbers on a GPU or in the interpreter, and programs as compiled.

Without a GPU test_triton_interpreted.py runs the tests of numbers.
"""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch

from msclr.kernels import backends, masked_graph_conv
from msclr.kernels._backend import interpreted
from msclr.kernels._cases import converted
from msclr.kernels.graph_conv.cases import make
from tests.kernels.contract import CONTRACTS, arguments_of, error_of, in_float64, results_of

triton = pytest.importorskip("triton")
from msclr.kernels.graph_conv import triton_launch  # noqa: E402
from tests.kernels.ahead_of_time import SHARED_BYTES, compile_launches  # noqa: E402
from tests.kernels.interpreter import DEVICE, compiled, numbers  # noqa: E402

on_a_gpu = pytest.mark.skipif(
    bool(backends()["triton"]) or interpreted(), reason="needs a GPU: the interpreter shows nothing"
)


CONTRACT = CONTRACTS["graph_conv"]


def case(name, dtype=torch.float32):
    return arguments_of(CONTRACT, name, dtype, DEVICE)


def shaped(*sizes, dtype=torch.float32, device="cpu", parameters=None, **options):
    """Arguments of any sizes; the parameters in another dtype where one is given."""
    given = converted(make(*sizes, **options), dtype, device)
    wide = {n: getattr(given, n).to(parameters or dtype) for n in ("weight", "bias", "adjacency")}
    return given._replace(**wide)


def gradient_like_y(given):
    n, _, t, v = given.x.shape
    channels = len(given.weight) // given.adjacency.shape[-3]
    numbers = torch.randn(n, channels, t, v, generator=torch.Generator().manual_seed(0))
    return numbers.to(given.x).contiguous(memory_format=torch.channels_last)


def backward(given, wanted=(True,) * 4):
    """The gradients as they come from the operator, seen from outside autograd."""
    run = torch.ops.msclr.graph_conv_triton_backward
    return run(gradient_like_y(given), *given, *wanted)


@numbers
def test_nan_in_an_entry_of_real_joints_is_kept():
    given = case("17 joints, tiles with two frames and more")
    given.adjacency[1, 3, 8] = torch.nan
    given.support[1, 3, 8] = True
    found = results_of(CONTRACT, "triton", given)
    assert (found["result 0"].isnan() == (torch.arange(17) == 8)).all()
    assert (found["x"].isnan() == (torch.arange(17) == 3)).all()


@contextmanager
def float32_products(precision):
    """Inside the block, PyTorch is set to multiply float32 by "ieee" or "tf32"."""
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = precision
    try:
        yield
    finally:
        matmul.fp32_precision = before


@numbers
@pytest.mark.parametrize("parameters", [torch.float32, torch.bfloat16])
def test_gradients_have_the_dtypes_of_what_they_are_of(parameters):
    """Autograd would mend them."""
    given = shaped(1, 3, 4, 1, 5, 1, dtype=torch.bfloat16, parameters=parameters, device=DEVICE)
    assert [g.dtype for g in backward(given)] == [torch.bfloat16, *[parameters] * 3]


@numbers
def test_masked_joints_are_0_under_weights_that_are_not_finite():
    given = case("mixed layouts, one without joints")
    given.weight[0, 0] = torch.inf
    found = results_of(CONTRACT, "triton", given)
    for sample, count in enumerate((5, 0, 3, 5)):
        assert not any(found[name][sample, ..., count:].any() for name in ("result 0", "x"))


@numbers
def test_gradients_that_nobody_wants_are_empty():
    given = case("two joints, odd channels")
    whole = backward(given)
    for i in range(4):
        wanted = [i == j for j in range(4)]
        found = backward(given, wanted)
        assert [g.numel() > 0 for g in found] == wanted
        assert torch.equal(found[i], whole[i])
    assert backward(given._replace(bias=None))[2].numel() == 0


@numbers
def test_a_layout_that_does_not_exist_has_no_joints():
    """No public call gets there on the CPU; on a GPU nobody looks before the launch."""
    given = case("mixed layouts")
    clean = {n: getattr(given, n).nan_to_num() for n in ("x", "adjacency")}
    lost = given._replace(layout_index=torch.tensor([0, 7, -1], device=DEVICE), **clean)
    y, (dx, dweight, *_) = triton_launch.forward(*lost), backward(lost)
    assert y[0].any() and not y[1:].any() and dx[0].any() and not dx[1:].any()
    none = torch.zeros_like(gradient_like_y(lost)[1:])
    grad = torch.cat([gradient_like_y(lost)[:1], none])
    there = lost._replace(layout_index=torch.zeros(3, dtype=torch.int64, device=DEVICE))
    run = torch.ops.msclr.graph_conv_triton_backward
    torch.testing.assert_close(dweight, run(grad, *there, *[True] * 4)[1])


@numbers
def test_a_dtype_without_products_is_refused():
    x, *rest = case("one joint")
    with pytest.raises(ValueError, match=r"^x must be one of .*, got torch.float8_e5m2"):
        masked_graph_conv(x.to(torch.float8_e5m2), *rest, backend="triton")


@on_a_gpu
def test_tf32_is_used_where_pytorch_is_set_to():
    given = shaped(8, 64, 64, 13, 25, device=DEVICE)
    exact = in_float64(CONTRACT, given)
    with float32_products("tf32"):
        found = results_of(CONTRACT, "triton", given)
    assert all(error_of(found[name], exact[name]) <= 4e-3 for name in exact)
    assert error_of(found["result 0"], exact["result 0"]) > 1e-5


@pytest.mark.unsanitized
@on_a_gpu
def test_more_than_2_to_the_31_elements():
    x, *parameters = shaped(1, 1, 16, 64, 64, 1, dtype=torch.bfloat16, device=DEVICE)
    y = triton_launch.forward(x.expand(40_000, -1, -1, -1), *parameters)
    assert y.numel() > 2**31
    assert torch.equal(y[-1], triton_launch.forward(x, *parameters)[0])


PRECISIONS = {
    "bf16": (torch.bfloat16, "ieee"),
    "fp16": (torch.float16, "ieee"),
    "tf32": (torch.float32, "tf32"),
    "fp32": (torch.float32, "ieee"),
}


def programs_of(capability, precision, c_in, c_out, v):
    """What forward and backward launch, compiled."""
    dtype, of_float32 = PRECISIONS[precision]
    given = shaped(2, c_in, c_out, 50, v, dtype=dtype, parameters=torch.float32)

    def call():
        triton_launch.forward(*given)
        triton_launch.backward(gradient_like_y(given), *given, *[True] * 4)

    with float32_products(of_float32):
        return compile_launches(capability, call)


@pytest.mark.unsanitized
@compiled
@pytest.mark.parametrize(
    ("capability", "precision", "c_in", "c_out", "v"),
    [
        (90, "bf16", 3, 16, 25),
        (90, "bf16", 64, 64, 42),
        (90, "bf16", 64, 256, 128),
        (90, "fp16", 16, 16, 25),
        (90, "tf32", 32, 64, 25),
        (90, "fp32", 64, 64, 25),
        (80, "bf16", 16, 16, 25),
        (80, "bf16", 32, 64, 25),
        (80, "fp16", 64, 256, 42),
        (80, "tf32", 64, 64, 128),
        (80, "fp32", 3, 16, 128),
    ],
)
def test_compiled_programs_fit_and_use_tensor_cores(capability, precision, c_in, c_out, v):
    found = programs_of(capability, precision, c_in, c_out, v)
    others = ("list_neighbours", "add_up", "adjacency_gradient")
    products = [p for p in found if p.name not in others]
    assert [p.name for p in products] == [
        "convolve",
        "weight_gradient",
        "joint_gradients",
        "convolve",
    ]
    for program in found:
        assert not spills(program), program.name
        assert program.shared <= SHARED_BYTES[capability], program.name
    for program in products:
        on_tensor_cores = program.count("HGMMA") + program.count("HMMA") > 0
        assert on_tensor_cores == (precision != "fp32"), program.name
    if c_in >= 16 and precision in ("bf16", "fp16"):  # rows are read 16 bytes at a time
        assert products[0].count(r"LDG\.E\.128") and products[1].count(r"LDG\.E\.128")


def spills(program):
    return program.stack > 0 or program.count("LDL") > 0 or program.count("STL") > 0


@compiled
def test_a_program_that_spills_is_caught(monkeypatch):
    few = {"BLOCK_M": 128, "BLOCK_N": 64, "BLOCK_C": 64, "num_warps": 4, "maxnreg": 128}
    monkeypatch.setattr(triton_launch, "_convolve_blocks", lambda *_: few)
    given = shaped(2, 64, 64, 50, 25, dtype=torch.bfloat16)._replace(support=None)
    found = compile_launches(90, lambda: triton_launch.forward(*given))
    assert [spills(program) for program in found] == [False, True]


@pytest.mark.unsanitized
@compiled
def test_sizes_of_1_compile():
    """Triton makes a constant of every argument that is 1."""
    given = shaped(1, 1, 1, 1, 1, 1)._replace(support=None)

    def call():
        triton_launch.forward(*given)
        triton_launch.backward(gradient_like_y(given), *given, *[True] * 4)

    assert len(compile_launches(90, call)) == 9
