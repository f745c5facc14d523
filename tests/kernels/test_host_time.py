"""What an operator in Triton takes of its host's time, besides launches: lists, plans and scratch.

On a GPU a step launches some hundred programs of 10 to 100 microseconds, and must not wait for the
host between them. Function calls are counted, as times differ from machine to machine.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module

import pytest
import torch

from msclr.kernels._backend import interpreted
from msclr.kernels._cases import converted
from msclr.kernels.block import cases as block_cases
from msclr.kernels.graph_conv import cases as graph_cases

pytest.importorskip("triton")
from triton.runtime import driver  # noqa: E402
from triton.runtime.jit import JITFunction  # noqa: E402

from tests.kernels.ahead_of_time import _AbsentGPU  # noqa: E402

pytestmark = pytest.mark.skipif(interpreted(), reason="nothing is launched there")


@pytest.fixture(autouse=True)
def no_launches(monkeypatch):
    monkeypatch.setattr(JITFunction, "run", lambda *_, **__: None)
    before = driver._active
    driver.set_active(_AbsentGPU(90))
    yield
    driver._active = before


def graph_conv():
    given = converted(graph_cases.make(2, 64, 64, 10, 25, 3), torch.bfloat16)
    given = given._replace(x=given.x.contiguous(memory_format=torch.channels_last))
    return given, lambda y: (torch.empty_like(y), *given, *[True] * 4)


def info_nce():
    queries, keys, bank = (torch.zeros(s, dtype=torch.bfloat16)
                           for s in [(3, 16, 128), (16, 128), (512, 128)])  # fmt: skip
    given = queries, keys, bank, torch.tensor(0.07, dtype=torch.float64), 0, 1, None, True
    return given, lambda loss, distribution, lse, *kept: (
        loss, distribution, lse, *given, *kept, True, True, False, False
    )  # fmt: skip


def stgcn_block():
    given = converted(block_cases.make(16, 16, [2, 10, 25], dropout=0.5), torch.float32)
    given = given._replace(x=given.x.bfloat16())
    return given, lambda y, moments, *kept: (torch.empty_like(y), *given, y, *kept, *[True] * 9)


@pytest.mark.parametrize(
    ("make", "folder", "forward", "backward"),  # calls, of which four fifths were counted
    [
        (graph_conv, "graph_conv", 95, 240),
        (info_nce, "info_nce", 130, 110),
        (stgcn_block, "block", 290, 510),  # five operators, and eight
    ],
    ids=["graph_conv", "info_nce", "stgcn_block"],
)
def test_the_host_has_little_to_do(make, folder, forward, backward):
    launch = import_module(f"msclr.kernels.{folder}.triton_launch")
    given, of_results = make()
    results = launch.forward(*given)
    of_backward = of_results(*results) if isinstance(results, tuple) else of_results(results)
    assert calls_in(lambda: launch.forward(*given)) <= forward
    assert calls_in(lambda: launch.backward(*of_backward)) <= backward


def calls_in(run: Callable[[], object]) -> int:
    """How many functions are called, the second time: of Python and of C, half a microsecond each
    on a processor of today, allocations two."""
    run()
    count = 0

    def note(frame, event, argument):
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(None)
    return count
