"""The CUDA kernels of masked_graph_conv against the reference in float64.

Where there is no GPU they run as C++ (cuda_on_cpu/), and the built library is looked into; where
there is one, the same cases run on it through the operator."""

from __future__ import annotations

import shutil
from itertools import product

import pytest
import torch
from torch import Tensor

from msclr.kernels import masked_graph_conv
from msclr.kernels.graph_conv.operator import masked_graph_conv as masked_graph_conv_operator
from tests.kernels.cuda_on_cpu.driver import (
    GRADIENTS,
    ORDERS,
    SOURCES,
    CudaOnCpu,
    Misuse,
    compile_driver,
)
from tests.kernels.graph_conv_cuda_inputs import (
    ALL_DTYPES,
    CASES,
    DTYPES,
    arguments,
    by_pytorch,
    check,
    exact,
    rounding_errors,
    upstream,
)


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
def test_parameters_may_have_another_type(library, dtype, parameters):
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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bits_are_no_further_from_float64_than_pytorch(library, dtype):
    inputs = arguments(2, 64, 64, 10, 25, 3, None, dtype)
    grad = upstream(inputs)
    ours = rounding_errors(run(CudaOnCpu(library), grad, inputs), grad, inputs)
    theirs = rounding_errors(by_pytorch(grad, inputs), grad, inputs)
    for name in ours:
        assert ours[name] <= 1.1 * theirs[name], name
