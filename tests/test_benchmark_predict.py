"""Predicted times: what is counted of a step, and what is made of it."""

from __future__ import annotations

import pytest
import torch

from benchmarks import predict
from benchmarks.counting import Call, Counter
from msclr.kernels import info_nce, masked_graph_conv

SIZES = {"query": "kinectv2_25", "key": "kinectv2_25", "M": 1, "T": 8, "width": 4, "D": 16, "Q": 64}


def test_a_step_of_many_clips_follows_from_steps_of_few():
    """Every operator's bytes and operations grow by the same amount with each clip."""
    assert predict.calls("ours", SIZES | {"B": 7}) == predict._counted("ours", SIZES | {"B": 7})


def test_a_call_takes_the_longest_of_bytes_operations_and_launches():
    calls = [
        Call("aten::add", int(3 * predict.MEMORY_RATE), 0),
        Call("aten::mm", 0, int(2 * predict.MATRIX_RATE)),
        Call("aten::relu", 8, 0),
        Call("msclr::temporal_conv_backward", 8, 0),
    ]
    found = predict.predicted(calls)
    launches = (1 + predict.KERNELS_OF_OURS) * predict.KERNEL
    assert found["captured"] == pytest.approx(3 + 2 + launches)
    assert found["byte_limit"] == pytest.approx(3)
    assert found["host"] == pytest.approx(3 * predict.HOST + predict.HOST_BACKWARD)
    assert found["eager"] == found["captured"], "the device is the slower"
    assert predict.predicted(calls[2:] * 100)["eager"] == pytest.approx(100 * (6e-6 + 120e-6))


def test_operations_are_those_of_the_products():
    n, c_in, c_out, frames, joints, k = 2, 3, 5, 7, 11, 2
    x, weight = torch.randn(n, c_in, frames, joints), torch.randn(k * c_out, c_in)
    with Counter() as found:
        masked_graph_conv(x, weight, None, torch.randn(k, joints, joints))
        torch.randn(4, 6) @ torch.randn(6, 8)
        info_nce(torch.randn(3, 4, 6), torch.randn(4, 6), torch.randn(9, 6))
    operations = {call.operator: call.operations for call in found.each if call.operations}
    assert operations == {
        "msclr::graph_conv": 2 * n * frames * joints * k * c_out * c_in,
        "aten::mm": 2 * 4 * 6 * 8,
        "msclr::info_nce": 4 * 3 * 4 * 6 * 10,
    }
