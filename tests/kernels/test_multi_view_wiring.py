"""The compiled multi-view InfoNCE as an op: opcheck, compile, export, memory, threads, misuse."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F

from msclr import kernels
from msclr.kernels.multi_view import reference

pytestmark = pytest.mark.skipif(
    bool(kernels.backends()["cpu"]), reason=f"no compiled operators: {kernels.backends()['cpu']}"
)


def inputs(views=2, clips=5, dim=4, bank=3, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        rows = F.normalize(torch.randn(shape, generator=generator), dim=-1)
        return rows.to(dtype).requires_grad_()

    return draw(views, clips, dim), torch.tensor(0.2, requires_grad=True), draw(bank, dim)


@pytest.mark.parametrize("all_views", [False, True])
@pytest.mark.parametrize("with_others", [False, True])
def test_opcheck_holds(with_others, all_views):
    views, temperature, bank = inputs()
    candidates = inputs(clips=9, seed=1)[0] if with_others else None
    rest = (candidates, 4, bank) if with_others else (None, 0, None)
    arguments = views, temperature, [0, 1, 1, 0], *rest, all_views
    torch.library.opcheck(torch.ops.msclr.multi_view_info_nce, arguments)


# Own clips within one block of candidates, and across several.
@pytest.mark.parametrize(("clips", "first", "others"), [(3, 2, 7), (3, 0, 3), (150, 37, 300)])
@pytest.mark.parametrize("pairs", [[(0, 1)], [(1, 0), (0, 1), (0, 1)]])
@pytest.mark.parametrize("negatives", ["view", "batch"])
def test_candidates_of_all_clips_are_the_reference(negatives, pairs, clips, first, others):
    views, temperature, bank = inputs(clips=clips, dtype=torch.float64)
    candidates = inputs(clips=others, dtype=torch.float64, seed=1)[0]
    leaves = views, temperature, candidates, bank

    flat = [view for pair in pairs for view in pair]

    def run(function):
        loss, *_ = function(views, temperature, flat, candidates, first, bank, negatives == "batch")
        return loss, *torch.autograd.grad(loss, leaves)

    ours = torch.ops.msclr.multi_view_info_nce
    torch.testing.assert_close(run(ours), run(reference.multi_view_info_nce))


@pytest.mark.parametrize("wanted", range(3), ids=["views", "temperature", "bank"])
def test_one_gradient_alone_is_that_of_all(wanted):
    tensors = inputs(clips=70)
    loss = kernels.multi_view_info_nce(tensors[0], tensors[1], bank=tensors[2])
    together = torch.autograd.grad(loss, tensors)[wanted]
    alone = [t.detach() for t in tensors]
    leaf = alone[wanted].requires_grad_()
    loss = kernels.multi_view_info_nce(alone[0], alone[1], bank=alone[2])
    assert torch.equal(torch.autograd.grad(loss, leaf)[0], together)


def test_the_op_is_one_node_for_compile_and_export():
    class Loss(torch.nn.Module):
        def forward(self, views, temperature, bank):
            return 2 * kernels.multi_view_info_nce(views, temperature, bank=bank)

    tensors = inputs()
    expected = Loss()(*tensors)
    compiled = torch.compile(Loss(), fullgraph=True, backend="aot_eager")(*tensors)
    torch.testing.assert_close(compiled, expected)
    gradients = [torch.autograd.grad(loss, tensors) for loss in (compiled, expected)]
    torch.testing.assert_close(*gradients)
    program = torch.export.export(Loss(), tuple(t.detach() for t in tensors))
    names = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert sum("msclr.multi_view_info_nce" in name for name in names) == 1


@pytest.mark.parametrize("backend", [None, "cpu", "reference"])
def test_a_plain_number_as_temperature_compiles(backend):
    views, *_ = inputs()
    run = torch.compile(kernels.multi_view_info_nce, fullgraph=True, backend="aot_eager")
    expected = kernels.multi_view_info_nce(views, 0.1)
    torch.testing.assert_close(run(views, 0.1, backend=backend), expected)


def test_the_op_may_be_used_twice_in_one_graph():
    views, temperature, bank = inputs(dtype=torch.float64)

    def twice(backend):
        once = kernels.multi_view_info_nce(views, temperature, bank=bank, backend=backend)
        again = kernels.multi_view_info_nce(
            views * once, temperature, negatives="batch", backend=backend
        )
        return torch.autograd.grad(once * again, (views, temperature, bank))

    torch.testing.assert_close(twice("cpu"), twice("reference"))


@pytest.mark.parametrize("negatives", ["view", "batch"])
def test_results_do_not_depend_on_threads(negatives):
    tensors = inputs(views=3, clips=400, bank=900)

    def run(threads):
        torch.set_num_threads(threads)
        loss = kernels.multi_view_info_nce(
            tensors[0], tensors[1], bank=tensors[2], negatives=negatives
        )
        return loss, *torch.autograd.grad(loss, tensors)

    before = torch.get_num_threads()
    try:
        results = [run(threads) for threads in (1, 2, 2, 5)]
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], result, strict=True))


def test_two_python_threads_get_what_one_gets():
    cases = [inputs(views=3, clips=90, seed=seed) for seed in range(8)]

    def run(case):
        return kernels.multi_view_info_nce(case[0], case[1], bank=case[2]).detach()

    alone = [run(case) for case in cases]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(run, cases))
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("negatives", ["view", "batch"])
def test_memory_is_free_of_the_square_of_the_batch(negatives):
    machine = pytest.importorskip("benchmarks.machine")
    views, temperature, _ = inputs(clips=4096, dim=16)  # (B, B) would take 64 MB

    def run():
        loss = kernels.multi_view_info_nce(views, temperature, negatives=negatives, backend="cpu")
        torch.autograd.grad(loss, (views, temperature))

    run()
    assert machine.peak_extra_bytes(run, torch.device("cpu")) < 16e6


@pytest.mark.parametrize(
    ("name", "place", "value"),
    [
        ("temperature", 1, torch.tensor(0.0)),
        ("temperature", 1, torch.ones(2)),
        ("pairs", 2, []),
        ("pairs", 2, [0]),
        ("pairs", 2, [0, 2]),
        ("pairs", 2, [1, 1]),
        ("candidates", 3, torch.zeros(2, 9, 3)),
        ("first", 4, 1),
        ("bank", 5, torch.zeros(3, 3)),
    ],
)
def test_the_bare_op_names_what_does_not_fit(name, place, value):
    arguments = [*inputs()[:2], [0, 1], None, 0, None, False]
    torch.ops.msclr.multi_view_info_nce(*arguments)
    arguments[place] = value
    with pytest.raises(RuntimeError, match=name):
        torch.ops.msclr.multi_view_info_nce(*arguments)
