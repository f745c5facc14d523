"""masked_graph_conv in Triton: numbers on a GPU or in the interpreter, and programs as compiled.

Without a GPU the tests of numbers, these and those of test_graph_conv.py, run in a process of their
own: Triton reads TRITON_INTERPRET when a program is defined.
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from msclr.kernels import backends, masked_graph_conv
from msclr.kernels._backend import interpreted
from msclr.kernels.graph_conv import reference
from msclr.kernels.graph_conv.operator import Arguments

triton = pytest.importorskip("triton")
from msclr.kernels.graph_conv import triton_launch  # noqa: E402
from tests.kernels.ahead_of_time import SHARED_BYTES, compile_launches  # noqa: E402
from tests.kernels.interpreter import passed_in_the_interpreter  # noqa: E402

DEVICE = "cpu" if interpreted() else "cuda"
HERE = Path(__file__).parent

numbers = pytest.mark.skipif(bool(backends()["triton"]), reason=backends()["triton"])
on_a_gpu = pytest.mark.skipif(
    bool(backends()["triton"]) or interpreted(), reason="needs a GPU: the interpreter shows nothing"
)
compiled = pytest.mark.skipif(interpreted(), reason="the interpreter compiles nothing")


@pytest.mark.skipif(not backends()["triton"], reason="the tests of numbers run in this process")
def test_the_numbers_are_right_in_the_interpreter():
    files = [HERE / name for name in ("test_graph_conv.py", "test_graph_conv_triton.py")]
    assert passed_in_the_interpreter(*files, "-k", "triton") >= 60


# n, c_in, c_out, frames, v, k, joints of each layout (None: one layout, all joints real)
CASES = {
    "one joint": (2, 3, 2, 3, 1, 1, None),
    "two joints, odd channels": (1, 5, 7, 1, 2, 2, None),
    "17 joints, tiles with two frames and more": (1, 3, 16, 9, 17, 3, None),
    "25 joints, channels in two blocks": (1, 33, 35, 2, 25, 3, None),
    "five partitions": (2, 2, 3, 2, 9, 5, None),
    "six partitions, one at a time": (1, 2, 3, 1, 4, 6, None),
    "more than 64 joints": (1, 2, 3, 2, 67, 1, None),
    "128 joints": (1, 1, 1, 1, 128, 1, None),
    "mixed layouts": (3, 3, 4, 3, 43, 2, (25, 43)),
    "mixed layouts, one without joints": (4, 3, 4, 2, 5, 2, (5, 0, 3)),
}


def arguments(n, c_in, c_out, frames, v, k, counts, parameters=None, dtype=torch.float32, seed=0):
    """x, weight, bias, adjacency and grad, and what goes with them by name; NaN where masked."""
    g = torch.Generator().manual_seed(seed)
    adjacency_shape = (*([len(counts)] if counts else []), k, v, v)
    shapes = (n, c_in, frames, v), (k * c_out, c_in), (k * c_out,), adjacency_shape
    dtypes = dtype, *[parameters or dtype] * 3
    x, weight, bias, adjacency = (
        torch.randn(shape, generator=g).to(d) for shape, d in zip(shapes, dtypes, strict=True)
    )
    support = torch.rand(adjacency_shape, generator=g) < 3 / v
    adjacency = adjacency * support
    x = x.contiguous(memory_format=torch.channels_last)
    grad = torch.randn(n, c_out, frames, v, generator=g).to(dtype)
    options = {"support": support}
    if counts:
        index = torch.arange(n) % len(counts)
        options |= {"layout_index": index, "joint_counts": torch.tensor(counts)}
        for layout, count in enumerate(counts):
            x[index == layout, :, :, count:] = torch.nan
            grad[index == layout, :, :, count:] = torch.nan
            adjacency[layout, :, count:] = torch.nan
            adjacency[layout, :, :, count:] = torch.nan
    return [x, weight, bias, adjacency, grad], options


def found_by(run, tensors, options, device="cpu", dtype=None):
    """y and the gradients of x, weight, bias and adjacency, on the CPU."""
    *leaves, grad = (t.detach().to(device, dtype) for t in tensors)
    options = {name: option.to(device) for name, option in options.items()}
    leaves = [leaf.requires_grad_() for leaf in leaves]
    y = run(*leaves, **options)
    return [t.detach().cpu() for t in (y, *torch.autograd.grad(y, leaves, grad))]


def graph_conv(*tensors, **options):
    return masked_graph_conv(*tensors, **options, backend="triton")


def exact(tensors, options):
    """The reference in float64, without what stands in masked joints."""
    tensors = [t.double().nan_to_num() for t in tensors]
    y, dx, *rest = found_by(reference.masked_graph_conv, tensors, options)
    return y, dx, *rest


def assert_near(found, expected, relative):
    for name, a, b in zip(("y", "dx", "dW", "db", "dA"), found, expected, strict=True):
        assert (a.double() - b).abs().max() <= relative * b.abs().max(), name


@numbers
@pytest.mark.parametrize("name", CASES)
def test_value_and_gradients_are_those_of_the_reference(name):
    tensors, options = arguments(*CASES[name])
    assert_near(found_by(graph_conv, tensors, options, DEVICE), exact(tensors, options), 1e-5)


@numbers
def test_float64_is_summed_in_float64():
    tensors, options = arguments(*CASES["mixed layouts, one without joints"], dtype=torch.float64)
    assert_near(found_by(graph_conv, tensors, options, DEVICE), exact(tensors, options), 1e-13)


@numbers
def test_nan_in_an_entry_of_real_joints_is_kept():
    tensors, options = arguments(*CASES["17 joints, tiles with two frames and more"])
    x, weight, bias, adjacency, grad = tensors
    adjacency[1, 3, 8] = torch.nan
    options["support"][1, 3, 8] = True
    y, dx, *_ = found_by(graph_conv, (x, weight, bias, adjacency, grad), options, DEVICE)
    assert (y.isnan() == (torch.arange(17) == 8)).all()
    assert (dx.isnan() == (torch.arange(17) == 3)).all()


@numbers
@pytest.mark.parametrize("name", ["five partitions", "mixed layouts, one without joints"])
def test_without_a_support_the_gradient_of_the_adjacency_is_whole(name):
    tensors, options = arguments(*CASES[name])
    del options["support"]
    found, expected = found_by(graph_conv, tensors, options, DEVICE), exact(tensors, options)
    assert_near(found, expected, 1e-5)
    assert (found[4][tensors[3] == 0] != 0).any()


@numbers
def test_any_order_in_memory_gives_the_same():
    (x, weight, bias, adjacency, grad), options = arguments(
        *CASES["mixed layouts, one without joints"]
    )
    expected = found_by(graph_conv, (x, weight, bias, adjacency, grad), options, DEVICE)
    strided = (
        torch.cat([x, x], 3)[..., : x.shape[3]].to(DEVICE),
        weight.T.contiguous().to(DEVICE).T,
        bias.repeat_interleave(2).to(DEVICE)[::2],
        adjacency.mT.contiguous().to(DEVICE).mT,
        grad.permute(3, 2, 1, 0).contiguous().to(DEVICE).permute(3, 2, 1, 0),
    )
    found = found_by(graph_conv, strided, options, DEVICE)
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)


@pytest.fixture
def bfloat16_to_nearest(monkeypatch):
    """The interpreter cuts bits off where a GPU rounds."""
    if not interpreted():
        return
    from triton.runtime import interpreter

    convert = interpreter._convert_float

    def nearest(data, given, wanted, mode):
        if (given, wanted) != (triton.language.float32, triton.language.bfloat16):
            return convert(data, given, wanted, mode)
        rounded = torch.from_numpy(data.copy()).bfloat16()
        return rounded.view(torch.int16).numpy().view("uint16")

    monkeypatch.setattr(interpreter, "_convert_float", nearest)


@numbers
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_no_further_from_float64_than_pytorch(dtype, bfloat16_to_nearest):
    tensors, options = arguments(2, 16, 16, 3, 17, 2, None, dtype=dtype)
    expected = exact(tensors, options)
    ours = found_by(graph_conv, tensors, options, DEVICE)
    pytorch = found_by(reference.masked_graph_conv, tensors, options, DEVICE)
    for a, b, truth in zip(ours, pytorch, expected, strict=True):
        assert a.dtype == dtype
        assert rms(a - truth) <= 1.1 * rms(b - truth)


@contextmanager
def float32_products(precision):
    """Within, PyTorch is told to multiply float32 by "ieee" or "tf32"."""
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = precision
    try:
        yield
    finally:
        matmul.fp32_precision = before


def rms(numbers):
    return numbers.double().square().mean().sqrt()


@numbers
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_parameters_may_be_wider_than_x(dtype):
    tensors, options = arguments(2, 3, 4, 2, 5, 2, (5, 3), parameters=torch.float32, dtype=dtype)
    found = found_by(graph_conv, tensors, options, DEVICE)
    assert found[0].dtype == dtype
    assert_near(found, exact(tensors, options), 4 * torch.finfo(dtype).eps)


@numbers
@pytest.mark.parametrize("parameters", [torch.float32, torch.bfloat16])
def test_gradients_have_the_dtypes_of_what_they_are_of(parameters):
    """Seen from outside autograd, which would mend them."""
    tensors, options = arguments(1, 3, 4, 1, 5, 1, None, parameters, torch.bfloat16)
    found = backward(tensors, options, [True] * 4)
    assert [g.dtype for g in found] == [torch.bfloat16, *[parameters] * 3]


@numbers
def test_masked_joints_are_0_beside_weights_that_are_not_finite():
    tensors, options = arguments(*CASES["mixed layouts, one without joints"])
    tensors[1][0, 0] = torch.inf
    y, dx, *_ = found_by(graph_conv, tensors, options, DEVICE)
    for sample, count in enumerate((5, 0, 3, 5)):
        assert not y[sample, ..., count:].any() and not dx[sample, ..., count:].any()


@numbers
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_statistics_are_those_of_the_stored_result(dtype):
    (*tensors, _), options = arguments(*CASES["mixed layouts"], dtype=dtype)
    tensors = [t.to(DEVICE) for t in tensors]
    options = {name: option.to(DEVICE) for name, option in options.items()}
    y, statistics = triton_launch.forward_with_statistics(Arguments(*tensors, **options))
    assert torch.equal(y, graph_conv(*tensors, **options))
    wide = y.double()  # 0 in masked joints
    expected = torch.stack([wide.sum((0, 2, 3)), wide.square().sum((0, 2, 3))])
    precision = 1e-12 if dtype == torch.float64 else 1e-5
    size = torch.stack([wide.abs().sum((0, 2, 3)), expected[1]])
    assert statistics.dtype == (dtype if dtype == torch.float64 else torch.float32)
    assert ((statistics.double() - expected).abs() <= precision * size).all()


@numbers
def test_scratch_memory_may_hold_anything(monkeypatch):
    tensors, options = arguments(*CASES["mixed layouts, one without joints"])
    clean = found_by(graph_conv, tensors, options, DEVICE)
    empty, dirtied = torch.empty, []

    def dirty(*size, **how):
        tensor = empty(*size, **how)
        dirtied.append(tensor.shape)
        return tensor.fill_(torch.nan if tensor.is_floating_point() else 1)

    monkeypatch.setattr(torch, "empty", dirty)
    found = found_by(graph_conv, tensors, options, DEVICE)
    assert len(dirtied) >= 10
    for a, b in zip(found, clean, strict=True):
        assert torch.equal(a, b)


def backward(tensors, options, wanted):
    x, weight, bias, adjacency, grad = (t if t is None else t.to(DEVICE) for t in tensors)
    named = (options.get(name) for name in ("layout_index", "joint_counts", "support"))
    options = [option if option is None else option.to(DEVICE) for option in named]
    run = torch.ops.msclr.graph_conv_triton_backward
    return run(grad, x, weight, bias, adjacency, *options, *wanted)


@numbers
def test_gradients_that_nobody_wants_are_empty():
    tensors, options = arguments(*CASES["two joints, odd channels"])
    whole = backward(tensors, options, [True] * 4)
    for i in range(4):
        wanted = [i == j for j in range(4)]
        found = backward(tensors, options, wanted)
        assert [g.numel() > 0 for g in found] == wanted
        assert torch.equal(found[i], whole[i])
    without_bias = [*tensors[:2], None, *tensors[3:]]
    assert backward(without_bias, options, [True] * 4)[2].numel() == 0


@numbers
def test_no_samples_give_no_result_and_gradients_of_0():
    tensors, options = arguments(0, 3, 4, 2, 5, 2, (5, 3))
    y, dx, *of_parameters = found_by(graph_conv, tensors, options, DEVICE)
    assert y.shape == (0, 4, 2, 5) and dx.shape == (0, 3, 2, 5)
    assert not any(d.any() for d in of_parameters)


@numbers
def test_a_layout_that_does_not_exist_has_no_joints():
    """No public call gets there on the CPU; on a GPU nobody looks before the launch."""
    tensors, options = arguments(*CASES["mixed layouts"])
    tensors = [t.nan_to_num() for t in tensors]
    options["layout_index"] = torch.tensor([0, 7, -1])
    moved = [t.to(DEVICE) for t in tensors[:4]]
    named = [options[n].to(DEVICE) for n in ("layout_index", "joint_counts", "support")]
    y = torch.ops.msclr.graph_conv_triton(*moved, *named)
    dx, dweight, *_ = backward(tensors, options, [True] * 4)
    assert y[0].any() and not y[1:].any() and dx[0].any() and not dx[1:].any()
    options["layout_index"] = torch.zeros(1, dtype=torch.int64)
    of_the_first = [t[:1] if i in (0, 4) else t for i, t in enumerate(tensors)]
    torch.testing.assert_close(dweight, backward(of_the_first, options, [True] * 4)[1])


@numbers
def test_a_dtype_without_products_is_refused():
    (x, *rest, _), _ = arguments(*CASES["one joint"])
    with pytest.raises(ValueError, match=r"^x must be one of .*, got torch.float8_e5m2"):
        graph_conv(*(t.to(DEVICE) for t in (x.to(torch.float8_e5m2), *rest)))


@numbers
def test_opcheck_holds():
    tensors, options = arguments(*CASES["two joints, odd channels"])
    leaves = [t.to(DEVICE).requires_grad_() for t in tensors[:4]]
    torch.library.opcheck(
        torch.ops.msclr.graph_conv_triton,
        (*leaves, None, None, options["support"].to(DEVICE)),
        test_utils=("test_schema", "test_autograd_registration", "test_faketensor"),
    )


@on_a_gpu
def test_twice_gives_the_same_bits():
    tensors, options = arguments(64, 64, 64, 50, 43, 3, (25, 43), dtype=torch.bfloat16)
    first, second = (found_by(graph_conv, tensors, options, DEVICE) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)


@on_a_gpu
def test_the_encoders_shapes_on_a_gpu():
    for c_in, c_out in ((3, 16), (16, 16), (32, 64), (64, 64), (64, 256)):
        tensors, options = arguments(8, c_in, c_out, 13, 25, 3, None)
        assert_near(found_by(graph_conv, tensors, options, DEVICE), exact(tensors, options), 1e-5)


@on_a_gpu
def test_tf32_is_used_where_pytorch_is_told_to():
    tensors, options = arguments(8, 64, 64, 13, 25, 3, None)
    expected = exact(tensors, options)
    with float32_products("tf32"):
        found = found_by(graph_conv, tensors, options, DEVICE)
    assert_near(found, expected, 4e-3)
    assert (found[0] - expected[0]).abs().max() > 1e-5 * expected[0].abs().max()


@on_a_gpu
def test_more_than_2_to_the_31_elements():
    (x, weight, bias, adjacency, _), _ = arguments(1, 1, 16, 64, 64, 1, None, dtype=torch.bfloat16)
    x, *parameters = (t.to(DEVICE) for t in (x, weight, bias, adjacency))
    y = graph_conv(x.expand(40_000, -1, -1, -1), *parameters)
    assert y.numel() > 2**31
    assert torch.equal(y[-1], graph_conv(x, *parameters)[0])


PRECISIONS = {
    "bf16": (torch.bfloat16, "ieee"),
    "fp16": (torch.float16, "ieee"),
    "tf32": (torch.float32, "tf32"),
    "fp32": (torch.float32, "ieee"),
}


def programs_of(capability, precision, c_in, c_out, v):
    """What forward with statistics and backward launch, compiled."""
    dtype, of_float32 = PRECISIONS[precision]
    tensors, options = arguments(2, c_in, c_out, 50, v, 3, None, torch.float32, dtype)
    x, weight, bias, adjacency, grad = tensors
    grad = grad.contiguous(memory_format=torch.channels_last)
    graph = None, None, options["support"]

    def call():
        triton_launch.forward_with_statistics(Arguments(x, weight, bias, adjacency, *graph))
        triton_launch.backward(grad, x, weight, bias, adjacency, *graph, *[True] * 4)

    with float32_products(of_float32):
        return compile_launches(capability, call)


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
    products = [p for p in found if p.name != "list_neighbours"]
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
    x, weight, bias, adjacency, _ = arguments(2, 64, 64, 50, 25, 3, None, dtype=torch.bfloat16)[0]
    found = compile_launches(
        90, lambda: triton_launch.forward(x, weight, bias, adjacency, None, None, None)
    )
    assert [spills(program) for program in found] == [False, True]


@compiled
def test_sizes_of_1_compile():
    """Triton makes a constant of every argument that is 1."""
    tensors, _ = arguments(1, 1, 1, 1, 1, 1, None)
    x, weight, bias, adjacency, grad = tensors

    def call():
        triton_launch.forward_with_statistics(Arguments(x, weight, bias, adjacency))
        triton_launch.backward(grad, x, weight, bias, adjacency, *[None] * 3, *[True] * 4)

    assert len(compile_launches(90, call)) == 7
