"""The training step that is measured: all contestants compute the same; what is counted."""

from __future__ import annotations

import re

import pytest
import torch

from benchmarks import options, plain_aimclr, runner, step, tables
from benchmarks.counting import COMPOSED, Counter, counted
from msclr.nn import STGCN

SIZES = {"query": "kinectv2_25", "key": "smplx_42", "B": 2, "M": 2, "T": 8, "width": 16, "D": 16}
SIZES |= {"Q": 4}
COLUMN = torch.ones(3, 1)
FORMS = [f"{form}{order}" for form in ("padded", "exact") for order in step.ORDERS]


@pytest.fixture(scope="module")
def clips():
    torch.manual_seed(2)
    return [x.double() for x in step.batch(SIZES)]


@pytest.fixture(scope="module")
def ours(clips):
    return {p: step.gradients("ours", SIZES, clips, p) for p in ("paper", "none")}


@pytest.mark.parametrize("name", FORMS)
def test_a_plain_step_is_ours_in_float64(name, clips, ours):
    found = step.gradients(name, SIZES, clips)
    wanted = ours["paper" if name.startswith("padded") else "none"]
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


def test_a_form_that_computes_something_else_gets_no_figure(clips, monkeypatch):
    monkeypatch.setattr(plain_aimclr, "dropped", torch.ones_like)
    with pytest.raises(RuntimeError, match="padded computes something else than ours"):
        step.same(SIZES, clips)


@pytest.mark.parametrize("name", ["ours", "exact"])
def test_a_step_moves_both_encoders_and_the_queue(name, monkeypatch):
    made = []
    build = step.contestant
    monkeypatch.setattr(step, "contestant", lambda *a: made.append(build(*a)) or made[0])
    run = step.step_of(name, SIZES, step.batch(SIZES))
    state = made[0].state_dict()  # with the queue's pointer, which is no tensor
    before = {key: value.clone() for key, value in state.items() if torch.is_tensor(value)}
    run()
    run()  # the key encoder follows from the second step on
    after = made[0].state_dict()
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    assert all(any(key.startswith(part) for key in moved) for part in ("query", "key", "queue"))
    assert all(p.grad is None for p in made[0].parameters())


def test_compiled_contestants_have_no_counts_and_a_separate_file(monkeypatch):
    monkeypatch.setattr(step.torch, "compile", lambda model: model)
    monkeypatch.setattr(step, "_in_a_process", lambda *_: 7)
    monkeypatch.setattr(step, "same", lambda *_: None)
    monkeypatch.setattr(step, "counted", lambda _: {"operator_calls": 5, "bytes_moved": 6})
    args, _ = options.parsed(step, ["--clips", "2", "--frames", "8", "--compile"])
    assert re.fullmatch("step-cpu-float32-(tuned|plain)-compiled", runner.file_name(step, args))
    case = step.cases(args)[0]
    assert set(case.contestants) == {"ours", *FORMS, *(f"{form}_compiled" for form in FORMS)}
    part = next(step.parts(case, args))
    calls = part.more["operator_calls"]
    assert {name for name, count in calls.items() if count is None} == {
        f"{form}_compiled" for form in FORMS
    }
    times = {name: {"median": 2.0, "p20": 1.0, "p80": 3.0} for name in case.contestants}
    head, *rows = tables.step({"rows": [{**case.sizes, **part.more, "seconds": times}]})
    assert [row[1] for row in rows] == list(case.contestants) and {len(r) for r in rows} == {7}
    assert rows[-1][2:] == ["2000.0 (1000.0 to 3000.0)", "1.00x", "0", "—", "—"]


def test_peak_memory_is_that_of_a_new_process():
    found = step._in_a_process("exact", SIZES)
    assert 10**5 < found < 10**9


def test_operators_and_bytes_are_those_worked_out_by_hand():
    x, w = torch.randn(4, 8, requires_grad=True), torch.randn(8, 3)
    with Counter() as found:
        (x @ w).relu().sum().backward()
    assert found.calls == {
        "aten::mm": 2,
        "aten::relu": 1,
        "aten::sum": 1,
        "aten::ones_like": 1,
        "aten::threshold_backward": 1,
    }
    products = (4 * 8 + 8 * 3 + 4 * 3) + (4 * 3 + 3 * 8 + 4 * 8)
    # The gradient of the sum is one number, repeated by strides of 0.
    rest = (12 + 12) + (12 + 1) + (1 + 1) + (1 + 12 + 12)
    assert found.bytes == 4 * (products + rest)


@pytest.mark.parametrize(
    ("run", "calls", "numbers"),
    [
        (lambda x: x.t().view(3, 2, 2).transpose(0, 1)[0], 0, 0),
        (lambda x: torch.empty_like(x), 0, 0),
        (lambda x: x.add_(1), 1, 24),
        (lambda x: x.zero_(), 1, 12),
        (lambda x: x.copy_(COLUMN), 1, 15),
        (lambda x: torch._foreach_add_([x, x[0]], 1), 1, 2 * (12 + 4)),
        (lambda x: torch.square(x), 1, 24),
    ],
    ids=["views", "allocation", "in place", "fill", "copy", "foreach", "new"],
)
def test_what_counts_and_how_much_of_it(run, calls, numbers):
    x = torch.randn(3, 4).t().contiguous().t()
    assert counted(lambda: run(x)) == {"operator_calls": calls, "bytes_moved": 4 * numbers}


def test_a_composed_operator_is_counted_by_its_parts():
    encoder = STGCN(["kinectv2_25"], 4, 8)
    with Counter() as found:
        encoder(torch.randn(2, 3, 8, 25, 1)).sum().backward()
    parts = {name for name in found.calls if name.startswith("msclr::")}
    assert parts >= {"msclr::temporal_conv", "msclr::temporal_conv_backward"}
    assert not parts & {op._schema.name for op in COMPOSED}
    assert found.calls["msclr::temporal_conv"] == len(encoder.blocks)


def test_every_composed_operator_is_known():
    declared = {
        module
        for file in (tables.ROOT / "kernels").glob("*/operator.py")
        for module in re.findall(r'composed="([\w.]+)"', file.read_text())
    }
    assert declared == {run.__module__ for run in COMPOSED.values()}
