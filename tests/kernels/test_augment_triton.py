"""augment in Triton: numbers on a GPU or in the interpreter, and the program as compiled.

Without a GPU test_triton_interpreted.py runs the tests of numbers.
"""

from __future__ import annotations

import pytest
import torch

from tests.kernels.contract import CONTRACTS, arguments_of

pytest.importorskip("triton")
from msclr.kernels.augment import triton_launch  # noqa: E402
from msclr.kernels.augment.amounts import amounts_of  # noqa: E402
from tests.kernels.ahead_of_time import SHARED_BYTES, compile_launches  # noqa: E402
from tests.kernels.interpreter import DEVICE, compiled, numbers  # noqa: E402


def given(case):
    return arguments_of(CONTRACTS["augment"], case, torch.float32, DEVICE)


@numbers
def test_a_clips_number_may_differ_from_its_row():
    all_clips = given("extreme, joint")
    index, numbers, epochs = (t[3:5] for t in all_clips[1:4])  # clips 2 and 1
    part = all_clips.clips[1:3].contiguous(), index - 1, numbers, epochs, *all_clips[4:]
    whole = triton_launch.forward(*all_clips)
    assert torch.equal(triton_launch.forward(*part), whole[3:5])


@numbers
def test_a_row_that_is_not_there_is_nan_and_nothing_is_read():
    index = torch.tensor([1, -1, 6, 0], device=DEVICE)
    for view in ("none", "extreme"):
        clips, _, numbers, epochs, *rest = given(f"{view}, joint")
        found = triton_launch.forward(clips, index, numbers[:4], epochs[:4], *rest)
        assert found[1:3].isnan().all() and found[[0, 3]].isfinite().all()


@compiled
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize(("view", "stream"), [(1, 1), (2, 0), (2, 2)])
def test_the_program_keeps_to_its_registers(capability, view, stream):
    x, index, joints = torch.zeros(4, 2, 50, 25, 3), torch.arange(4), torch.arange(25)
    arguments = x, index, index, index, 3, 0, view, joints, stream, joints, False, torch.float32
    arguments += (tuple(amounts_of(None, 50)),)
    (program,) = compile_launches(capability, lambda: triton_launch.forward(*arguments))
    assert program.stack == 0, "it spills"
    assert program.shared <= SHARED_BYTES[capability]
