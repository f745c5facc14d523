"""The CUDA graph convolution through its operator, on a GPU."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from msclr.kernels import masked_graph_conv
from tests.kernels.cuda_on_cpu.driver import GRADIENTS
from tests.kernels.graph_conv_cuda_inputs import (
    CASES,
    DTYPES,
    ON_A_GPU,
    arguments,
    by_pytorch,
    check,
    rounding_errors,
    upstream,
)


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
