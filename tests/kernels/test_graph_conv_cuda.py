"""The CUDA kernels of masked_graph_conv against the reference in float64.

Where there is no GPU they run as C++ (cuda_on_cpu/), and the built library is looked into; where
there is one, the same cases run on it through the operator.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import defaultdict
from importlib import util
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor

import msclr.kernels
from msclr.kernels import backends, masked_graph_conv
from msclr.kernels.graph_conv import reference
from msclr.kernels.graph_conv.operator import masked_graph_conv as masked_graph_conv_operator
from tests.kernels.cuda_on_cpu.driver import (
    GRADIENTS,
    ORDERS,
    SOURCES,
    CudaOnCpu,
    Misuse,
    compile_driver,
)

DTYPES = (torch.bfloat16, torch.float16)
ALL_DTYPES = (*DTYPES, torch.float32, torch.float64)  # of parameters
ON_A_GPU = pytest.mark.skipif(bool(backends()["cuda"]), reason=backends()["cuda"] or "")

# n, c_in, c_out, frames, v, k, joints of each layout (None: one layout, all joints real)
CASES = {
    "one joint": (5, 8, 8, 3, 1, 1, None),
    "two joints, odd channels": (2, 3, 5, 7, 2, 2, None),
    "17 joints": (2, 16, 24, 9, 17, 3, None),
    "25 joints, first layer": (2, 3, 64, 6, 25, 3, None),
    "25 joints, weight stays": (2, 64, 72, 6, 25, 3, None),
    "25 joints, weight streams": (1, 160, 8, 11, 25, 3, None),
    "five partitions in two groups": (2, 33, 65, 1, 43, 5, None),
    "five partitions, weight streams": (2, 136, 64, 2, 25, 5, None),
    "64 joints": (1, 8, 16, 3, 64, 2, None),
    "128 joints": (2, 8, 8, 1, 128, 2, None),
    "mixed layouts": (7, 16, 8, 9, 43, 3, (25, 43, 17)),
    "mixed layouts, one without joints": (4, 8, 70, 3, 5, 2, (5, 0, 3)),
    "mixed layouts, odd channels": (5, 5, 7, 4, 87, 3, (87, 42)),
}


def arguments(n, c_in, c_out, frames, v, k, counts, dtype, parameters=None, dense=False, seed=0):
    """The operator's arguments, with NaN wherever a joint is masked."""
    g = torch.Generator().manual_seed(seed)
    adjacency_shape = (*([len(counts)] if counts else []), k, v, v)
    x = torch.randn(n, c_in, frames, v, generator=g).to(dtype)
    weight = torch.randn(k * c_out, c_in, generator=g).to(parameters or dtype)
    bias = torch.randn(k * c_out, generator=g).to(parameters or dtype)
    adjacency = torch.randn(adjacency_shape, generator=g).to(parameters or dtype)
    support = None if dense else torch.rand(adjacency_shape, generator=g) < 3 / v
    if support is not None:
        adjacency *= support
    index = counted = None
    if counts:
        index, counted = torch.arange(n) % len(counts), torch.tensor(counts, dtype=torch.int32)
        for sample, layout in enumerate(index.tolist()):
            x[sample, ..., counts[layout] :] = float("nan")
        for layout, count in enumerate(counts):
            adjacency[layout, :, count:] = adjacency[layout, ..., count:] = float("nan")
    x = x.contiguous(memory_format=torch.channels_last)
    return [x, weight, bias, adjacency, index, counted, support]


def exact(grad: Tensor, inputs: list, absolute: bool = False) -> dict[str, Tensor]:
    """y and the gradients in float64; or their bounds, with absolute values of all numbers."""

    def number(t):
        if t is None or not t.is_floating_point():
            return t
        return t.detach().double().abs() if absolute else t.detach().double()

    leaves = [None if t is None else number(t).requires_grad_() for t in inputs[:4]]
    y = reference.masked_graph_conv(*leaves, *inputs[4:])
    found = torch.autograd.grad(y, [t for t in leaves if t is not None], number(grad))
    names = [name for name, t in zip(GRADIENTS, leaves, strict=True) if t is not None]
    return {"y": y.detach(), **dict(zip(names, found, strict=True))}


def upstream(inputs: list, seed: int = 1) -> Tensor:
    """A gradient of y; where joints are masked it is not 0."""
    x, weight, _, adjacency = inputs[:4]
    shape = (x.shape[0], weight.shape[0] // adjacency.shape[-3], *x.shape[2:])
    grad = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(x)
    return grad.contiguous(memory_format=torch.channels_last)


def check(found: dict[str, Tensor], grad: Tensor, inputs: list) -> None:
    """Every number is within rounding of the exact one: exactly 0 where no term is summed.

    An operand, an intermediate and a result are rounded, each by half of eps at most.
    """
    wanted, bounds = exact(grad, inputs), exact(grad, inputs, absolute=True)
    eps = torch.finfo(inputs[0].dtype).eps
    for name, value in found.items():
        like = inputs[GRADIENTS.index(name)] if name in GRADIENTS else grad
        assert value.dtype == like.dtype and value.shape == wanted[name].shape, name
        error = (value.double() - wanted[name]).abs()
        worst = (error / eps / bounds[name].clamp_min(1e-30)).max().item() if error.numel() else 0.0
        assert worst <= 1.6, f"{name}: {worst:.2f} eps of the sum of absolute values"


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    if not shutil.which("g++"):
        pytest.skip("no g++ to compile the kernels with")
    if not SOURCES.is_dir():
        pytest.skip(f"no sources of the kernels: {SOURCES} is not a folder")
    return compile_driver(tmp_path_factory.mktemp("cuda_on_cpu"))


def run(machine: CudaOnCpu, grad: Tensor, inputs: list) -> dict[str, Tensor]:
    return {"y": machine.forward(*inputs), **machine.backward(grad, *inputs)}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("kind", "found"),
    [
        (1, "out of range"),
        (2, "barrier was reached by only 16 of 32"),
        (3, None),  # without a barrier
        (4, "ballot was reached by only 16"),
        (5, "misaligned"),
        (6, None),  # an asynchronous copy that is not waited for
        (7, None),  # without a barrier before memory is used again
        (8, "out of range"),  # of shared memory
    ],
)
def test_the_machine_finds_faults(library, order, kind, found):
    machine = CudaOnCpu(library, order)
    expected = torch.arange(32.0).flip(0)
    assert torch.equal(machine.reverse(0), expected)
    if found is None:
        assert not torch.equal(machine.reverse(kind), expected)
    else:
        with pytest.raises(Misuse, match=found):
            machine.reverse(kind)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_all_kernels_are_the_formula(library, case, dtype):
    turn = list(CASES).index(case) + DTYPES.index(dtype)
    machine = CudaOnCpu(library, ORDERS[turn % 3], blocks=(1, 2, 7, 40)[turn % 4])
    inputs = arguments(*CASES[case], dtype)
    grad = upstream(inputs)
    check(run(machine, grad, inputs), grad, inputs)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mixed", [False, True])
def test_any_adjacency_without_a_support(library, dtype, mixed):
    counts = (25, 17) if mixed else None
    inputs = arguments(3, 8, 16, 3, 25, 3, counts, dtype, dense=True)
    grad = upstream(inputs)
    check(run(CudaOnCpu(library), grad, inputs), grad, inputs)


def test_what_lies_outside_the_support_is_neither_read_nor_given_a_gradient(library):
    inputs = arguments(2, 8, 8, 3, 17, 3, None, torch.bfloat16)
    grad, support = upstream(inputs), inputs[6]
    clean = run(CudaOnCpu(library), grad, inputs)
    inputs[3] = inputs[3].masked_fill(~support, float("nan"))
    dirty = run(CudaOnCpu(library), grad, inputs)
    assert (clean["adjacency"][~support] == 0).all() and (clean["adjacency"][support] != 0).any()
    assert all(torch.equal(clean[name], dirty[name]) for name in clean)


@pytest.mark.parametrize("parameters", ALL_DTYPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_parameters_may_have_a_type_of_their_own(library, dtype, parameters):
    inputs = arguments(2, 8, 16, 3, 5, 3, (5, 3), dtype, parameters)
    grad = upstream(inputs)
    found = run(CudaOnCpu(library), grad, inputs)
    coarser = max(torch.finfo(d).eps for d in (dtype, parameters))
    wanted, bounds = exact(grad, inputs), exact(grad, inputs, absolute=True)
    for name, value in found.items():
        assert value.dtype == (dtype if name in ("y", "x") else parameters)
        assert ((value.double() - wanted[name]).abs() <= 4 * coarser * bounds[name]).all(), name


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("c_in", [8, 3])
@pytest.mark.parametrize("of", ["x", "grad", "parameters"])
def test_any_strides(library, of, c_in, dtype):
    inputs = arguments(3, c_in, 8, 4, 25, 3, (25, 17), dtype)
    grad = upstream(inputs)

    def orders(t):
        return {
            "contiguous": t.contiguous(),
            "joints first": t.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
            "every other frame": t.repeat_interleave(2, dim=2)[:, :, ::2],
            "a slice of channels": torch.cat([t, t], dim=1)[:, : t.shape[1]],
            "shifted by one": torch.cat([t[:, :1], t], dim=1).contiguous(
                memory_format=torch.channels_last
            )[:, 1:],
        }

    if of == "parameters":
        x, weight, bias, adjacency, index, counts, support = inputs
        weight, adjacency, support = (t.mT.contiguous().mT for t in (weight, adjacency, support))
        bias, index = bias.repeat_interleave(2)[::2], index.repeat_interleave(3)[::3]
        inputs = [x, weight, bias, adjacency, index, counts, support]
        return check(run(CudaOnCpu(library), grad, inputs), grad, inputs)
    for name, strided in orders(inputs[0] if of == "x" else grad).items():
        if of == "x":
            inputs[0] = strided
        else:
            grad = strided
        found = run(CudaOnCpu(library), grad, inputs)
        assert found["y"].is_contiguous() == (of == "x" and name == "contiguous")
        check(found, grad, inputs)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_gradient_that_is_one_number_everywhere(library, dtype):
    inputs = arguments(2, 8, 8, 3, 17, 3, None, dtype)
    grad = torch.tensor(1.5, dtype=dtype).expand(2, 8, 3, 17)
    check(run(CudaOnCpu(library), grad, inputs), grad, inputs)


@pytest.mark.parametrize("dtype", DTYPES)
def test_offsets_beyond_32_bits(library, dtype):
    """The second sample, frame or channel lies more than 2^31 elements from the first."""
    inputs = arguments(2, 2, 8, 2, 5, 1, None, dtype)
    small, grad, far = inputs[0], upstream(inputs), (1 << 31) + 64
    for dim, strides in {
        0: (far, 1, 64, 2),
        1: (64, far, 5, 1),
        2: (64, 1, far, 2),
    }.items():
        inputs[0] = torch.empty(far + 256, dtype=dtype).as_strided(small.shape, strides)
        inputs[0].copy_(small)
        assert inputs[0].stride(dim) == far
        check(run(CudaOnCpu(library), grad, inputs), grad, inputs)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", [(0, 3), (2, 0)])
def test_nothing_to_do(library, dtype, sizes):
    n, frames = sizes
    for counts in (None, (5, 3)):
        inputs = arguments(n, 8, 8, frames, 5, 2, counts, dtype)
        machine = CudaOnCpu(library)
        assert machine.forward(*inputs).shape == (n, 8, frames, 5) and machine.launches == 0
        gradients = machine.backward(upstream(inputs), *inputs)
        assert gradients["x"].shape == inputs[0].shape
        assert all((gradients[name] == 0).all() for name in ("weight", "bias", "adjacency"))


@pytest.mark.parametrize("dtype", DTYPES)
def test_without_bias_and_only_what_is_wanted(library, dtype):
    inputs = arguments(2, 8, 8, 3, 17, 3, None, dtype)
    grad, machine = upstream(inputs), CudaOnCpu(library)
    full = machine.backward(grad, *inputs)
    for name in GRADIENTS:
        assert torch.equal(machine.backward(grad, *inputs, wanted=(name,))[name], full[name])
    inputs[2] = None
    check(run(machine, grad, inputs), grad, inputs)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_order_of_threads_and_what_is_masked_change_no_bit(library, dtype):
    inputs = arguments(*CASES["mixed layouts"], dtype)
    grad = upstream(inputs)
    results = [run(CudaOnCpu(library, order), grad, inputs) for order in ORDERS]
    inputs[0], inputs[3] = inputs[0].nan_to_num(1e4), inputs[3].nan_to_num(1e4)
    results.append(run(CudaOnCpu(library), grad, inputs))
    for other, name in product(results[1:], results[0]):
        assert torch.equal(other[name], results[0][name]), name


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("name", "position", "value"),
    [("layout_index", 4, 2), ("layout_index", 4, -1), ("joint_counts", 5, 6)],
)
def test_a_layout_out_of_range_is_named(library, dtype, name, position, value):
    inputs = arguments(3, 8, 8, 3, 5, 2, (5, 3), dtype)
    inputs[position][1] = value
    with pytest.raises(Misuse, match=f"^{name} must lie in"):
        CudaOnCpu(library).forward(*inputs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_other_types_of_activations_are_refused_by_name(library, dtype, monkeypatch):
    inputs = arguments(2, 8, 8, 3, 5, 2, None, dtype)
    grad = upstream(inputs)
    for call in (lambda m: m.forward(*inputs), lambda m: m.backward(grad, *inputs)):
        with pytest.raises(Misuse, match="^x must be float16 or bfloat16"):
            call(CudaOnCpu(library))
    operator = masked_graph_conv_operator
    monkeypatch.setitem(operator._named, ("cuda", "cpu"), operator.backends["reference"])
    with pytest.raises(ValueError, match=f"^x must be bfloat16 or float16 for cuda, got {dtype}"):
        masked_graph_conv(*inputs, backend="cuda")


def rounding_errors(found: dict[str, Tensor], grad: Tensor, inputs: list) -> dict[str, float]:
    wanted = exact(grad, inputs)
    return {
        name: (value.double() - wanted[name]).square().mean().sqrt().item()
        for name, value in found.items()
    }


def by_pytorch(grad: Tensor, inputs: list) -> dict[str, Tensor]:
    """The reference in the very dtype."""
    leaves = [t.detach().requires_grad_() for t in inputs[:4]]
    y = reference.masked_graph_conv(*leaves, *inputs[4:])
    found = torch.autograd.grad(y, leaves, grad)
    return {"y": y.detach(), **dict(zip(GRADIENTS, found, strict=True))}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bits_are_no_further_from_float64_than_pytorch(library, dtype):
    inputs = arguments(2, 64, 64, 10, 25, 3, None, dtype)
    grad = upstream(inputs)
    ours = rounding_errors(run(CudaOnCpu(library), grad, inputs), grad, inputs)
    theirs = rounding_errors(by_pytorch(grad, inputs), grad, inputs)
    for name in ours:
        assert ours[name] <= 1.1 * theirs[name], name


# The built library: what the compiler made of the kernels.

LIBRARY = Path(msclr.kernels.__file__).parent / "_C_cuda.so"
TENSOR_CORE_KERNELS = {
    f"{kernel}<{dtype}>": instructions
    for kernel, instructions in {
        "convolve_tiles": ("HMMA", "LDGSTS", r"LDS\.128", r"STG\.E\.128"),
        "weight_gradient_of_share": ("HMMA", "LDGSTS", "LDSM"),
        "adjacency_gradient_of_share": ("HMMA", "LDGSTS", r"LDS\.128"),
    }.items()
    for dtype in ("BFloat16", "Half")
}


def cuobjdump(*options: str) -> str:
    """Its report on the built library, names of kernels as in the source."""
    if not LIBRARY.is_file():
        if shutil.which("nvcc"):
            pytest.fail(f"{LIBRARY} was not built although there is an nvcc; run make")
        pytest.skip("no CUDA operators were built: there is no nvcc")
    path = shutil.which("cuobjdump")
    if not path and (triton := util.find_spec("triton")):
        path = Path(triton.origin).parent / "backends/nvidia/bin/cuobjdump"
    if not path or not shutil.which("c++filt"):
        pytest.skip("no cuobjdump, which comes with CUDA and with triton, or no c++filt")
    text = subprocess.run([path, *options, LIBRARY], capture_output=True, text=True, check=True)
    names = subprocess.run(["c++filt"], input=text.stdout, capture_output=True, text=True)
    return names.stdout.replace("msclr::gpu::", "")


def test_the_library_is_for_both_architectures_without_spills():
    kernels = defaultdict(set)
    for section in cuobjdump("-res-usage").split("arch = ")[1:]:
        arch = section.split()[0]
        for name, usage in re.findall(r"Function (?:void )?(\S+?)\(.*\n(.*REG:.*)", section):
            numbers = dict(re.findall(r"(\w+):(\d+)", usage))
            assert numbers["STACK"] == numbers["LOCAL"] == "0", f"{name}, {arch}: {usage}"
            assert int(numbers["SHARED"]) <= 1024, "shared memory is asked for at launch"
            kernels[arch].add(name)
    assert kernels["sm_80"] == kernels["sm_90a"]
    assert set(TENSOR_CORE_KERNELS) < kernels["sm_80"]


@pytest.mark.parametrize("arch", ["sm_80", "sm_90a"])
def test_kernels_for_16_bits_use_the_tensor_cores(arch):
    code = {
        section.split("(")[0].removeprefix("void ").strip(): section
        for section in cuobjdump("-sass", "-arch", arch).split("Function : ")[1:]
    }
    for kernel, instructions in TENSOR_CORE_KERNELS.items():
        for instruction in instructions:
            assert re.search(rf"\b{instruction}\b", code[kernel]), f"{kernel}: {instruction}"


# On a GPU, through the operator.


def to_gpu(inputs: list) -> list:
    return [None if t is None else t.cuda() for t in inputs]


def run_on_gpu(grad: Tensor, inputs: list) -> dict[str, Tensor]:
    leaves = [None if t is None else t.detach().requires_grad_() for t in inputs[:4]]
    y = masked_graph_conv(*leaves, *inputs[4:], backend="cuda")
    wanted = {n: t for n, t in zip(GRADIENTS, leaves, strict=True) if t is not None}
    found = torch.autograd.grad(y, list(wanted.values()), grad)
    return {"y": y.detach(), **dict(zip(wanted, found, strict=True))}


GPU_CASES = CASES | {
    "a batch of the paper": (256, 64, 64, 50, 25, 3, None),
    "widest layer, mixed layouts": (64, 256, 256, 13, 42, 3, (25, 42)),
    "40,000 tracks": (40_000, 4, 4, 2, 17, 3, None),
}


@ON_A_GPU
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", GPU_CASES)
def test_the_operator_on_a_gpu(case, dtype):
    inputs = to_gpu(arguments(*GPU_CASES[case], dtype))
    grad = upstream(inputs)
    found = run_on_gpu(grad, inputs)
    check(found, grad, inputs)
    again = run_on_gpu(grad, inputs)
    assert all(torch.equal(found[name], again[name]) for name in found)


@ON_A_GPU
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bits_on_a_gpu_are_no_further_from_float64_than_pytorch(dtype):
    inputs = to_gpu(arguments(64, 64, 128, 25, 25, 3, None, dtype))
    grad = upstream(inputs)
    ours = rounding_errors(run_on_gpu(grad, inputs), grad, inputs)
    theirs = rounding_errors(by_pytorch(grad, inputs), grad, inputs)
    for name in ours:
        assert ours[name] <= 1.1 * theirs[name], name


@ON_A_GPU
def test_the_current_stream_and_graph_capture():
    inputs = to_gpu(arguments(*CASES["mixed layouts"], torch.bfloat16))
    expected = masked_graph_conv(*inputs, backend="cuda")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        y = masked_graph_conv(*inputs, backend="cuda")
    stream.synchronize()
    assert torch.equal(y, expected)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):  # which refuses whatever waits for the device
        y = masked_graph_conv(*inputs, backend="cuda")
    y.zero_()
    graph.replay()
    assert torch.equal(y, expected)


@ON_A_GPU
def test_opcheck_holds_on_a_gpu():
    inputs = to_gpu(arguments(3, 8, 16, 3, 5, 3, (5, 3), torch.bfloat16))
    inputs[0], inputs[3] = inputs[0].nan_to_num(), inputs[3].nan_to_num()
    inputs = [t.requires_grad_() if t is not None and t.is_floating_point() else t for t in inputs]
    torch.library.opcheck(torch.ops.msclr.graph_conv, tuple(inputs))


@ON_A_GPU
def test_offsets_beyond_32_bits_on_a_gpu():
    joints, channels, frames = 2, 8, 1 << 20
    n = (1 << 32) // (joints * channels * frames) + 1  # y and x pass 2^32 elements
    if torch.cuda.mem_get_info()[0] < 5 * n * joints * channels * frames:
        pytest.skip("too little free memory on this GPU")
    one = arguments(1, channels, channels, 64, joints, 1, None, torch.bfloat16)
    x = torch.zeros((n, frames, joints, channels), dtype=torch.bfloat16, device="cuda")
    x = x.permute(0, 3, 1, 2)
    x[-1, :, -64:] = one[0][0].cuda()
    y = masked_graph_conv(x, *to_gpu(one[1:]), backend="cuda")
    expected = masked_graph_conv(*to_gpu(one), backend="cuda")
    assert torch.equal(y[-1:, :, -64:], expected)
