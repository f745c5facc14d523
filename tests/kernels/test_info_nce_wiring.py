"""The compiled InfoNCE as an op: opcheck, gradients, compile, export, threads, memory."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.machine import peak_extra_bytes
from msclr import kernels
from msclr.methods.queue import Queue

pytestmark = pytest.mark.skipif(
    bool(kernels.backends()["cpu"]), reason=f"no compiled operators: {kernels.backends()['cpu']}"
)

AIMCLR = {"teacher": 0, "top_k": 1, "positives": "mined"}
LARGE = {"views": 3, "batch": 30, "dim": 37, "bank": 250}  # several tiles of queries and of bank


def inputs(views=2, batch=3, dim=5, bank=7, dtype=torch.float64, seed=0):
    """Normalised queries, keys, bank and a temperature, all of which want gradients."""
    g = torch.Generator().manual_seed(seed)
    shapes = [(views, batch, dim), (batch, dim), (bank, dim)]
    tensors = [
        F.normalize(torch.randn(s, generator=g, dtype=torch.float64), dim=-1) for s in shapes
    ]
    tensors.append(torch.tensor(0.2))
    return [t.to(dtype).requires_grad_() for t in tensors]


def gradients(tensors, backend, **options):
    """Of a sum in which every output of every query has a weight of its own."""
    out = kernels.info_nce(*tensors, backend=backend, **options)
    outputs = [o for o in out[:3] if o is not None]
    weights = torch.linspace(-1, 1, outputs[0].numel() * len(outputs), dtype=outputs[0].dtype)
    total = (torch.stack(outputs) * weights.view(len(outputs), *outputs[0].shape)).sum()
    return torch.autograd.grad(total, [t for t in tensors if t.requires_grad])


@pytest.mark.parametrize(
    "options",
    [(None, 0, None, False), (0, 2, None, True), (1, 0, torch.tensor([[0], [3], [-1]]), False)],
    ids=["plain", "mined", "rows"],
)
@pytest.mark.parametrize("with_bank", [False, True])
def test_opcheck_holds(options, with_bank):
    teacher, top_k, rows, mined = options
    queries, keys, bank, temperature = inputs(dtype=torch.float32)
    if not with_bank:
        bank, top_k, rows, mined = None, 0, None, False
    arguments = queries, keys, bank, temperature, teacher, top_k, rows, mined
    torch.library.opcheck(torch.ops.msclr.info_nce, arguments)


@pytest.mark.parametrize("positives", [None, "mined", "rows"])
@pytest.mark.parametrize("teacher", [None, 1])
def test_every_gradient_of_many_queries_and_a_long_bank(teacher, positives):
    tensors = inputs(**LARGE)
    if positives == "rows":
        positives = torch.arange(60).view(30, 2) % 50 * 5 - 1  # some of several clips, some of none
    options = {"teacher": teacher, "top_k": 3, "positives": positives}
    found, expected = (gradients(tensors, b, **options) for b in ("cpu", "reference"))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("wanted", range(4))
def test_a_gradient_may_be_wanted_alone(wanted):
    tensors = [t.detach().requires_grad_(i == wanted) for i, t in enumerate(inputs())]
    found, expected = (gradients(tensors, b, **AIMCLR) for b in ("cpu", "reference"))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("dtype", "limit"),
    # In float32 lse is rounded between forward and backward. Worst so far: 1.11, of the keys'.
    [(torch.bfloat16, 1.1), (torch.float16, 1.1), (torch.float32, 1.3)],
)
def test_gradients_are_no_further_from_float64_than_those_of_pytorch(dtype, limit):
    tensors = [t.detach().to(dtype).requires_grad_() for t in inputs(**LARGE)]
    options = {"teacher": 0, "positives": torch.arange(30)[:, None]}
    exact = gradients([t.detach().double().requires_grad_() for t in tensors], "cpu", **options)

    def errors(backend):
        found = gradients(tensors, backend, **options)
        assert all(g.dtype == dtype for g in found)
        pairs = zip(found[:3], exact[:3], strict=True)
        return [(g.double() - e).square().mean().sqrt() for g, e in pairs]

    for ours, theirs in zip(errors("cpu"), errors("reference"), strict=True):
        assert ours <= limit * theirs


def test_an_exponential_is_right_to_its_last_digits():
    y = torch.linspace(0, 12, 10_001)  # logits 0 of the key and -y of the bank's only row
    queries, keys, bank = y.view(1, -1, 1), torch.zeros(10_001, 1), -torch.ones(1, 1)
    loss = kernels.info_nce(queries, keys, bank, 1.0, backend="cpu").loss[0].double()
    exact = y.double().neg().exp().log1p()
    assert ((loss - exact).abs() < 2**-23 * (1.5 + y) * exact).all()  # y in bits: rounded as well


class Loss(nn.Module):
    def forward(self, queries, keys, bank, temperature):
        out = kernels.info_nce(queries, keys, bank, temperature, **AIMCLR)
        return (out.loss + out.distribution).mean() + 0 * out.top_k.sum()


def test_the_op_is_one_node_for_compile_and_export():
    tensors = inputs(dtype=torch.float32)
    expected = Loss()(*tensors)
    compiled = torch.compile(Loss(), fullgraph=True, backend="aot_eager")(*tensors)
    torch.testing.assert_close(compiled, expected)
    found = [torch.autograd.grad(loss, tensors) for loss in (compiled, expected)]
    torch.testing.assert_close(*found)
    program = torch.export.export(Loss(), tuple(t.detach() for t in tensors))
    names = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert sum("msclr.info_nce" in name for name in names) == 1


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_given_positives_compile_and_export(backend):
    queries, keys, bank, _ = inputs()

    class Loss(torch.nn.Module):
        def forward(self, queries, rows):
            return kernels.info_nce(queries, keys, bank, positives=rows, backend=backend).loss

    rows = torch.randint(-1, len(bank), (len(keys), 3))
    expected = Loss()(queries, rows)
    compiled = torch.compile(Loss(), fullgraph=True, backend="aot_eager")(queries, rows)
    exported = torch.export.export(Loss(), (queries, rows)).module()(queries, rows)
    torch.testing.assert_close(compiled, expected)
    torch.testing.assert_close(exported, expected)


def test_a_python_temperature_compiles_too():
    queries, keys, bank, _ = inputs(dtype=torch.float32)

    def loss(queries):
        return kernels.info_nce(queries, keys, bank, 0.2).loss

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(queries), loss(queries))


def test_the_op_may_be_used_twice_in_one_graph():
    def twice(backend):
        queries, keys, bank, temperature = tensors = inputs()
        first = kernels.info_nce(queries, keys, bank, temperature, backend=backend).loss  # (P, B)
        again = queries * first[..., None]
        second = kernels.info_nce(again, keys, bank, temperature, backend=backend).loss
        return torch.autograd.grad(second.sum(), tensors)

    torch.testing.assert_close(twice("cpu"), twice("reference"))


def test_autocast_changes_nothing():
    tensors = inputs(dtype=torch.float32)
    plain = gradients(tensors, "cpu", **AIMCLR)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(gradients(tensors, "cpu", **AIMCLR), plain, rtol=0, atol=0)


def test_the_bank_may_change_before_backward_unless_it_wants_a_gradient():
    queries, keys, bank, _ = (t.detach() for t in inputs())
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


def test_a_call_past_the_checks_of_python_stays_within_its_memory():
    queries, keys, bank, temperature = good = tuple(t.detach() for t in inputs())
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
    grads, kept = [torch.ones(2, 3)] * 3, out[2:]
    backward = torch.ops.msclr.info_nce_backward
    for i, wrong in enumerate([*grads, *kept]):
        changed = [*grads, *kept]
        changed[i] = wrong[..., 1:]
        with pytest.raises(RuntimeError, match="must be"):
            backward(*changed[:3], *good, 0, 1, None, False, *changed[3:], *[True] * 4)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_a_temperature_that_left_the_positive_numbers_is_named(value):
    queries, keys, bank, _ = inputs()
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


def everything(tensors):
    out = kernels.info_nce(*tensors, **AIMCLR, backend="cpu")
    return [*(o.detach() for o in out), *gradients(tensors, "cpu", **AIMCLR)]


def test_many_queries_give_the_same_bits_on_any_number_of_threads():
    tensors = inputs(3, 50, 24, 500, torch.float32)
    one, two, three, again = (on_threads(n, lambda: everything(tensors)) for n in (1, 2, 3, 3))
    for others in (two, three, again):
        assert all(torch.equal(a, b) for a, b in zip(one, others, strict=True))


def test_few_queries_share_the_bank_among_the_threads():
    tensors = inputs(1, 3, 24, 2000, torch.float32)
    one, three, again = (on_threads(n, lambda: everything(tensors)) for n in (1, 3, 3))
    assert all(torch.equal(a, b) for a, b in zip(three, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(three, one, strict=True)), "it was not cut"
    torch.testing.assert_close(three, one)


def test_of_rows_alike_in_every_part_of_the_bank_the_lowest_come_first():
    queries, keys, _, _ = inputs(1, 1, 8)
    bank = queries[0].detach().expand(1000, 8)
    top = on_threads(3, lambda: kernels.info_nce(queries, keys, bank, top_k=5, backend="cpu").top_k)
    assert top.flatten().tolist() == [0, 1, 2, 3, 4]


def test_two_python_threads_get_what_one_gets():
    cases = [inputs(3, 20, 16, 300, torch.float32, seed) for seed in range(8)]
    alone = [everything(case) for case in cases]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(everything, cases))
    for a, b in zip(alone, together, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_the_bank():
    queries, keys, bank, _ = (t.detach() for t in inputs(3, 64, 32, 50_000, torch.float32))
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


def test_two_hundred_steps_of_training_follow_the_reference():
    exact = train("reference", torch.float64)
    assert exact[-20:].mean() < exact[:20].mean() - 1, "it learns"
    torch.testing.assert_close(train("cpu", torch.float64), exact, rtol=1e-12, atol=0)
    off = [(train(backend, torch.float32) - exact).abs() for backend in ("cpu", "reference")]
    ours, theirs = (torch.stack([d[:20].max(), d[-20:].max()]) for d in off)
    assert (ours <= 3 * theirs).all() and ours[1] < 1e-5, f"rounding has grown to {ours}, {theirs}"
