"""Tests of the compiled InfoNCE alone: exports, checks, threads, memory, training."""

from __future__ import annotations

import sys

import pytest
import torch
import torch.nn.functional as F

from benchmarks.machine import peak_extra_bytes
from msclr import kernels
from msclr.kernels.info_nce.operator import Arguments
from msclr.methods.queue import Queue
from tests.kernels.contract import CONTRACTS, results_of
from tests.kernels.info_nce_inputs import AIMCLR, leaves
from tests.needs import needs_operators


@needs_operators
def test_an_exponential_is_right_to_its_last_digits():
    y = torch.linspace(0, 12, 10_001)  # logits 0 of the key and -y of the bank's only row
    queries, keys, bank = y.view(1, -1, 1), torch.zeros(10_001, 1), -torch.ones(1, 1)
    loss = kernels.info_nce(queries, keys, bank, 1.0, backend="cpu").loss[0].double()
    exact = y.double().neg().exp().log1p()
    assert ((loss - exact).abs() < 2**-23 * (1.5 + y) * exact).all()  # y in bits: rounded as well


@pytest.mark.unsanitized
@needs_operators
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_given_positives_compile_and_export(backend):
    queries, keys, bank, _ = leaves(2, 3)

    class Loss(torch.nn.Module):
        def forward(self, queries, rows):
            return kernels.info_nce(queries, keys, bank, positives=rows, backend=backend).loss

    rows = torch.randint(-1, len(bank), (len(keys), 3))
    expected = Loss()(queries, rows)
    compiled = torch.compile(Loss(), fullgraph=True, backend="aot_eager")(queries, rows)
    exported = torch.export.export(Loss(), (queries, rows)).module()(queries, rows)
    torch.testing.assert_close(compiled, expected)
    torch.testing.assert_close(exported, expected)


@pytest.mark.unsanitized
@needs_operators
def test_a_python_temperature_compiles_too():
    queries, keys, bank, _ = leaves(dtype=torch.float32)

    def loss(queries):
        return kernels.info_nce(queries, keys, bank, 0.2).loss

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(queries), loss(queries))


@needs_operators
def test_the_bank_may_change_before_backward_unless_it_wants_a_gradient():
    queries, keys, bank, _ = (t.detach() for t in leaves(2, 3))
    queries.requires_grad_()
    (expected,) = torch.autograd.grad(kernels.info_nce(queries, keys, bank).loss.sum(), queries)
    loss = kernels.info_nce(queries, keys, bank, backend="cpu").loss.sum()
    bank.zero_()
    torch.testing.assert_close(torch.autograd.grad(loss, queries)[0], expected)

    loss = kernels.info_nce(queries, keys, bank.requires_grad_(), backend="cpu").loss.sum()
    with torch.no_grad():
        bank.fill_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@needs_operators
def test_a_call_past_the_checks_of_python_stays_within_its_memory():
    queries, keys, bank, temperature = good = tuple(t.detach() for t in leaves(2, 3))
    rows = torch.zeros(3, 1, dtype=torch.int64)
    for name, arguments in [
        ("queries", (queries[0], keys, bank, temperature)),
        ("keys", (queries, keys[1:], bank, temperature)),
        ("bank", (queries, keys, bank[:, 1:], temperature)),
        ("temperature", (queries, keys, bank, torch.ones(2))),
        ("teacher", (*good, 2)),
        ("top_k", (*good, None, 8)),
        ("positives", (*good, None, 0, rows[1:])),
        ("positives", (*good, None, 0, rows.int())),
        ("positives", (*good, None, 0, rows + 7)),
        ("positives", (*good, None, 0, rows - 2)),
    ]:
        with pytest.raises(RuntimeError, match=f"{name} must"):
            torch.ops.msclr.info_nce(*arguments)
    out = torch.ops.msclr.info_nce(*good, 0, 1)
    grads, kept = [torch.ones(2, 3)] * 3, out[3:]
    backward = torch.ops.msclr.info_nce_backward
    for i, wrong in enumerate([*grads, *kept]):
        changed = [*grads, *kept]
        changed[i] = wrong[..., 1:]
        with pytest.raises(RuntimeError, match="must be"):
            backward(*changed[:3], *good, 0, 1, None, False, *changed[3:], *[True] * 4)


@needs_operators
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_a_temperature_that_left_the_positive_numbers_is_named(value):
    queries, keys, bank, _ = leaves(2, 3)
    with pytest.raises(ValueError, match="temperature must be positive"):
        kernels.info_nce(queries, keys, bank, torch.tensor(value), backend="cpu")
    with pytest.raises(RuntimeError, match="temperature must be positive"):  # compiled code's way
        torch.ops.msclr.info_nce(queries, keys, bank, torch.tensor(value))


def on_threads(count, run):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        return run()
    finally:
        torch.set_num_threads(before)


def everything(threads, *sizes):
    """Results and gradients of AimCLR's use on so many threads."""
    *tensors, temperature = leaves(*sizes, dtype=torch.float32)
    given = Arguments(*tensors, temperature, 0, 1, None, True)
    return on_threads(threads, lambda: results_of(CONTRACTS["info_nce"], "cpu", given))


@needs_operators
def test_many_queries_give_the_same_bits_on_any_number_of_threads():
    one, *others = (everything(n, 3, 50, 24, 500) for n in (1, 2, 3))
    assert all(torch.equal(one[name], other[name]) for other in others for name in one)


@needs_operators
def test_few_queries_share_the_bank_among_the_threads():
    one, three, again = (everything(n, 1, 3, 24, 2000) for n in (1, 3, 3))
    assert all(torch.equal(three[name], again[name]) for name in three)
    assert not all(torch.equal(three[name], one[name]) for name in one), "it was not cut"
    torch.testing.assert_close(three, one)


@needs_operators
def test_of_rows_alike_in_every_part_of_the_bank_the_lowest_come_first():
    queries, keys, _, _ = leaves(1, 1, 8)
    bank = queries[0].detach().expand(1000, 8)
    top = on_threads(3, lambda: kernels.info_nce(queries, keys, bank, top_k=5, backend="cpu").top_k)
    assert top.flatten().tolist() == [0, 1, 2, 3, 4]


@needs_operators
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_the_bank():
    queries, keys, bank, _ = (t.detach() for t in leaves(3, 64, 32, 50_000, dtype=torch.float32))
    queries.requires_grad_()

    def step():
        out = kernels.info_nce(queries, keys, bank, **AIMCLR, backend="cpu")
        (out.loss + out.distribution).sum().backward()

    step()
    matrix = queries.shape[0] * queries.shape[1] * len(bank) * 4
    assert peak_extra_bytes(step, torch.device("cpu")) < 0.1 * matrix


def train(backend, dtype, steps=200):
    """The losses of a small MoCo with mining: a linear encoder of clips in noise."""
    g = torch.Generator().manual_seed(0)
    centres = torch.randn(64, 12, generator=g)
    query = torch.randn(12, 8, generator=g).to(dtype) / 3
    key = query.clone()
    query.requires_grad_()
    queue = Queue(64, 8)
    queue.keys = F.normalize(torch.randn(64, 8, generator=g), dim=1).to(dtype)
    losses = []
    for _ in range(steps):
        clips = centres[torch.randint(64, (16,), generator=g)]
        views = (clips + torch.randn(4, 16, 12, generator=g)).to(dtype)
        key = 0.99 * key + 0.01 * query.detach()
        keys = F.normalize(views[0] @ key, dim=-1)
        queries = F.normalize(views[1:] @ query, dim=-1)
        out = kernels.info_nce(queries, keys, queue.keys, 0.1, **AIMCLR, backend=backend)
        loss = (out.loss[0] + 0.5 * (out.distribution[1] + out.distribution[2])).mean()
        (gradient,) = torch.autograd.grad(loss, query)
        with torch.no_grad():
            query -= 0.05 * gradient
        queue.enqueue(keys)
        losses.append(loss.item())
    return torch.tensor(losses, dtype=torch.float64)


@needs_operators
def test_two_hundred_steps_of_training_follow_the_reference():
    exact = train("reference", torch.float64)
    assert exact[-20:].mean() < exact[:20].mean() - 1, "it learns"
    torch.testing.assert_close(train("cpu", torch.float64), exact, rtol=1e-12, atol=0)
    off = [(train(backend, torch.float32) - exact).abs() for backend in ("cpu", "reference")]
    ours, theirs = (torch.stack([d[:20].max(), d[-20:].max()]) for d in off)
    assert (ours <= 3 * theirs).all() and ours[1] < 1e-5, f"rounding has grown to {ours}, {theirs}"
