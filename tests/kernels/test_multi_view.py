"""multi_view_info_nce equals its formula in plain loops."""

from __future__ import annotations

import math
import sys
from functools import partial
from itertools import permutations, product

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.machine import peak_extra_bytes
from msclr import kernels
from tests.kernels.multi_view_inputs import (
    AT_HUGE_LOGITS,
    BACKENDS,
    arguments,
    errors_at_huge_logits,
)
from tests.needs import needs_operators


@pytest.fixture(scope="module", params=BACKENDS)
def multi_view_info_nce(request):
    if problem := kernels.backends()[request.param]:
        pytest.skip(problem)
    return partial(kernels.multi_view_info_nce, backend=request.param)


def by_loops(views, temperature, bank=None, pairs=None, negatives="view"):
    """The formula of the docstring in Python numbers, and the gradients of views and bank."""
    dim, tables = views.shape[-1], [views.tolist(), [[] if bank is None else bank.tolist()]]
    gradients = [[[[0.0] * dim for _ in rows] for rows in table] for table in tables]
    clips = range(views.shape[1])
    anchors = list(product(pairs or list(permutations(range(len(views)), 2)), clips))
    losses = []
    for (i, j), b in anchors:
        key_views = [j] if negatives == "view" else range(len(views))
        places = [(0, j, b)]  # the positive first
        places += [(0, v, c) for v in key_views for c in clips if c != b]
        places += [(1, 0, q) for q in range(len(tables[1][0]))]
        anchor = tables[0][i][b]
        logits = [
            math.fsum(x * y for x, y in zip(anchor, tables[t][v][c], strict=True)) / temperature
            for t, v, c in places
        ]
        top = max(logits)
        log_sum_exp = top + math.log(math.fsum(math.exp(s - top) for s in logits))
        losses.append(log_sum_exp - logits[0])
        for (t, v, c), s in zip(places, logits, strict=True):
            g = (math.exp(s - log_sum_exp) - ((t, v, c) == places[0])) / temperature / len(anchors)
            for d in range(dim):
                gradients[0][i][b][d] += g * tables[t][v][c][d]
                gradients[t][v][c][d] += g * anchor[d]
    loss = torch.tensor(math.fsum(losses) / len(losses), dtype=torch.float64)
    of_views, of_bank = (torch.tensor(g, dtype=torch.float64) for g in gradients)
    return loss, of_views, None if bank is None else of_bank[0].reshape(bank.shape)


def with_gradients(run, views, temperature, bank=None, **options):
    """Loss, and gradients of views and bank."""
    leaves = [None if t is None else t.detach().requires_grad_() for t in (views, bank)]
    loss = run(leaves[0], temperature, bank=leaves[1], **options)
    found = torch.autograd.grad(loss, [t for t in leaves if t is not None])
    return loss.detach(), found[0], found[1] if bank is not None else None


def assert_is_the_formula(run, views, temperature=0.07, bank=None, **options):
    expected = by_loops(views, temperature, bank, **options)
    torch.testing.assert_close(with_gradients(run, views, temperature, bank, **options), expected)


@pytest.mark.parametrize("with_bank", [False, True])
@pytest.mark.parametrize(
    "pairs", [None, [(0, 1)], [(2, 0), (0, 2), (1, 2)], [(0, 1), (0, 1), (1, 2)]]
)
@pytest.mark.parametrize("negatives", ["view", "batch"])
def test_loss_and_gradients_are_the_formula(multi_view_info_nce, negatives, pairs, with_bank):
    views, bank = arguments()
    options = {"bank": bank if with_bank else None, "pairs": pairs, "negatives": negatives}
    assert_is_the_formula(multi_view_info_nce, views, 0.2, **options)


# Rows that fill several blocks of the compiled backend; views beyond that, clips beyond that, and a
# bank so long that blocks go together.
@needs_operators
@pytest.mark.parametrize(
    ("views", "clips", "bank"), [(3, 150, 70), (12, 5, 0), (2, 1030, 3), (2, 40, 8500)]
)
@pytest.mark.parametrize("negatives", ["view", "batch"])
def test_many_rows_are_the_reference(views, clips, bank, negatives):
    z, bank = arguments(views, clips, 3, bank)
    runs = [partial(kernels.multi_view_info_nce, backend=b) for b in ("cpu", "reference")]
    found, expected = (with_gradients(r, z, 0.1, bank, negatives=negatives) for r in runs)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("negatives", ["view", "batch"])
def test_a_clip_alone_has_nothing_to_be_told_from(multi_view_info_nce, negatives):
    views, _ = arguments(clips=1)
    for dtype in (torch.float64, torch.float32):
        loss, gradient, _ = with_gradients(
            multi_view_info_nce, views.to(dtype), 0.07, negatives=negatives
        )
        assert loss == 0
        assert not gradient.any()


@pytest.mark.parametrize("temperature", [0.01, 1.0])
@pytest.mark.parametrize("negatives", ["view", "batch"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "rows", ["equal", "opposite", "in the bank", "twice", "huge", "tiny", "zero"]
)
def test_adversarial_rows(multi_view_info_nce, rows, dtype, negatives, temperature):
    views, bank = (t.to(dtype) for t in arguments(clips=5))
    if rows == "equal":
        views[:], bank[:] = views[0, 0].clone(), views[0, 0].clone()
    elif rows == "opposite":
        views[1] = -views[0]
    elif rows == "in the bank":
        bank[:3] = views[0, :3]
    elif rows == "twice":
        views[:, 1] = views[:, 0]
    else:  # logits up to 1e4 at most; one row of another size than the rest
        views[:, 2] *= {"huge": 100 * temperature**0.5, "tiny": 1e-20, "zero": 0}[rows]
    loss, *gradients = with_gradients(
        multi_view_info_nce, views, temperature, bank, negatives=negatives
    )
    exact, *exact_gradients = by_loops(views, temperature, bank, negatives=negatives)
    largest = 1e4 if rows == "huge" else 1 / temperature  # logit; its rounding is the tolerance
    tolerance = (50 + 10 * largest) * torch.finfo(dtype).eps
    torch.testing.assert_close(loss.double(), exact, rtol=tolerance, atol=tolerance)
    for gradient, e in zip(gradients, exact_gradients, strict=True):
        scale = max(e.abs().max().item(), 1e-3)
        torch.testing.assert_close(gradient.double(), e, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("options", AT_HUGE_LOGITS, ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_keep_their_digits_at_logits_of_ten_thousand(backend, options):
    if problem := kernels.backends()[backend]:
        pytest.skip(problem)
    loss, temperature, views, bank = errors_at_huge_logits(backend, **options)
    assert max(loss, views, bank) < 1e-6
    assert temperature < 1e-5  # a sum of terms of either sign


@needs_operators
@pytest.mark.parametrize("temperature", [0.05, 0.0125])
def test_gradients_of_almost_nothing_keep_their_digits(temperature):
    """Positives 20 above all else, of 100 in all or of 8,000."""
    views = torch.eye(4).repeat(2, 1, 1) * (20 * temperature) ** 0.5
    views = torch.cat([views, torch.full((2, 4, 1), 10.0 if temperature < 0.05 else 2.0)], dim=2)
    exact = with_gradients(partial(kernels.multi_view_info_nce, backend="reference"),
                           views.double(), temperature)  # fmt: skip
    found = with_gradients(partial(kernels.multi_view_info_nce, backend="cpu"), views, temperature)
    assert math.isclose(found[0], exact[0], rel_tol=1e-5)
    assert (found[1] - exact[1]).abs().max() <= 1e-5 * exact[1].abs().max()


@needs_operators
def test_a_loss_of_almost_nothing_keeps_its_digits():
    """Positives far above all else: log-sum-exp and positive differ by less than their rounding."""
    views = torch.eye(4).repeat(2, 1, 1)  # two views of 4 clips, the same
    loss = kernels.multi_view_info_nce(views, 0.05, backend="cpu")
    assert math.isclose(loss.item(), math.log1p(3 * math.exp(-20)), rel_tol=1e-5)


@pytest.mark.parametrize("place", [(0, 2, 1), (1, 0, 0)])
def test_nan_comes_out(multi_view_info_nce, place):
    views, bank = (t.float() for t in arguments())
    views[place] = torch.nan
    loss, gradient, _ = with_gradients(multi_view_info_nce, views, 0.07, bank)
    assert loss.isnan()
    assert gradient.isnan().any()


@st.composite
def problems(draw):
    count = draw(st.integers(2, 4))
    pairs = draw(st.lists(st.sampled_from(list(permutations(range(count), 2))), max_size=6))
    sizes = draw(st.integers(1, 140)), draw(st.integers(1, 20)), draw(st.integers(0, 140))
    tensors = arguments(count, *sizes, seed=draw(st.integers(0, 1000)))
    options = {"pairs": pairs or None, "negatives": draw(st.sampled_from(["view", "batch"]))}
    return *tensors, draw(st.sampled_from([0.01, 0.05, 0.2, 1.0])), options


@settings(deadline=None, max_examples=30)
@given(problems())
def test_any_problem_is_the_reference(multi_view_info_nce, problem):
    views, bank, temperature, options = problem
    reference = partial(kernels.multi_view_info_nce, backend="reference")
    expected = with_gradients(reference, views, temperature, bank, **options)
    found = with_gradients(multi_view_info_nce, views, temperature, bank, **options)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


@settings(deadline=None, max_examples=15)
@given(problems())
def test_order_of_clips_and_bank_changes_nothing(multi_view_info_nce, problem):
    views, bank, temperature, options = problem
    clips, rows = torch.randperm(views.shape[1]), torch.randperm(len(bank))
    loss, of_views, of_bank = with_gradients(
        multi_view_info_nce, views, temperature, bank, **options
    )
    found = with_gradients(multi_view_info_nce, views[:, clips], temperature, bank[rows], **options)
    expected = loss, of_views[:, clips], of_bank[rows]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


@needs_operators
def test_training_follows_the_reference():
    """200 steps of both from the same start; rounding differs, and grows with the steps."""
    clips = arguments(1, 64, 24)[0] + 0.3 * arguments(2, 64, 24, seed=1)[0]  # two views of each
    clips = clips.float()

    def train(backend):
        torch.manual_seed(0)
        projection = torch.randn(24, 8, requires_grad=True)
        optimiser, losses = torch.optim.SGD([projection], lr=0.1, momentum=0.9), []
        for _ in range(200):
            z = F.normalize(clips @ projection, dim=-1)
            loss = kernels.multi_view_info_nce(z, 0.1, negatives="batch", backend=backend)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        return torch.tensor(losses)

    fused, reference = train("cpu"), train("reference")
    assert reference[-1] < 0.8 * reference[0], "it should learn"
    torch.testing.assert_close(fused, reference, rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("views", {"views": torch.zeros(3, 4)}),
        ("views", {"views": torch.zeros(1, 6, 4)}),
        ("views", {"views": torch.zeros(3, 0, 4)}),
        ("views", {"views": torch.zeros(3, 6, 4, dtype=torch.int64)}),
        ("bank", {"bank": torch.zeros(5, 3)}),
        ("bank", {"bank": torch.zeros(5)}),
        ("bank", {"bank": torch.zeros(5, 4, dtype=torch.float64)}),
        ("bank", {"bank": torch.zeros(5, 4, device="meta")}),
        ("temperature", {"temperature": 0.0}),
        ("temperature", {"temperature": torch.ones(2)}),
        ("negatives", {"negatives": "clip"}),
        ("pairs", {"pairs": []}),
        ("pairs", {"pairs": [(0, 1), (1, 1)]}),
        ("pairs", {"pairs": [(0, 3)]}),
        ("pairs", {"pairs": [(-1, 0)]}),
        ("pairs", {"pairs": [(0, 1, 2)]}),
        ("backend", {"backend": "quick"}),
    ],
)
def test_a_wrong_argument_is_named(multi_view_info_nce, name, changed):
    views, bank = (p.float() for p in arguments())
    good = {"views": views, "bank": bank}
    multi_view_info_nce(**good)
    with pytest.raises(ValueError, match=rf"^{name} "):
        multi_view_info_nce(**(good | changed))


@pytest.mark.unsanitized
@needs_operators
@pytest.mark.parametrize("backend", [None, "cpu", "reference"])
def test_a_plain_number_as_temperature_compiles(backend):
    views = arguments()[0].float()
    run = torch.compile(kernels.multi_view_info_nce, fullgraph=True, backend="aot_eager")
    expected = kernels.multi_view_info_nce(views, 0.1)
    torch.testing.assert_close(run(views, 0.1, backend=backend), expected)


@needs_operators
@pytest.mark.parametrize("negatives", ["view", "batch"])
def test_results_do_not_depend_on_threads(negatives):
    views, bank = (t.float() for t in arguments(3, 400, 4, 900))

    def run(threads):
        torch.set_num_threads(threads)
        return with_gradients(kernels.multi_view_info_nce, views, 0.2, bank, negatives=negatives)

    before = torch.get_num_threads()
    try:
        results = [run(threads) for threads in (1, 2, 2, 5)]
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], result, strict=True))


@needs_operators
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("negatives", ["view", "batch"])
def test_memory_is_free_of_the_square_of_the_batch(negatives):
    views = arguments(2, 4096, 16)[0].float()  # (B, B) would take 64 MB
    op = partial(kernels.multi_view_info_nce, backend="cpu")

    def run():
        with_gradients(op, views, 0.2, negatives=negatives)

    run()
    assert peak_extra_bytes(run, torch.device("cpu")) < 16e6


@needs_operators
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
    given = [arguments(2)[0], torch.tensor(0.2), [0, 1], None, 0, None, False]
    torch.ops.msclr.multi_view_info_nce(*given)
    given[place] = value
    with pytest.raises(RuntimeError, match=name):
        torch.ops.msclr.multi_view_info_nce(*given)
