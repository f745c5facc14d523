"""info_nce equals its formula in plain loops; ties, permutations, errors."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from msclr import kernels
from tests.kernels.info_nce_inputs import AT_HUGE_LOGITS, arguments, errors_at_huge_logits

ROWS = torch.tensor([[0, 3, -1], [2, 2, 2], [-1, -1, -1], [6, 0, 6]])  # of a bank of 7, for B = 4


@pytest.fixture(scope="module", params=["reference", "cpu"])
def info_nce(request):
    if problem := kernels.backends()[request.param]:
        pytest.skip(problem)
    return partial(kernels.info_nce, backend=request.param)


def dot(a, b):
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def log_of_sum(row):
    top = max(row)
    return top + math.log(math.fsum(math.exp(s - top) for s in row))


def by_loops(queries, keys, bank, temperature, teacher=None, top_k=0, positives=None):
    """loss, distribution, log_sum_exp (P, B) and top_k (P, B, top_k) in Python numbers."""
    keys, bank = keys.tolist(), [] if bank is None else bank.tolist()
    logits = [
        [[dot(q, k) / temperature for k in [keys[b], *bank]] for b, q in enumerate(view)]
        for view in queries.tolist()
    ]
    log_sum_exp = [[log_of_sum(row) for row in view] for view in logits]
    nearest = [[sorted(range(len(bank)), key=lambda j, r=row: -r[j + 1])[:top_k] for row in view]
               for view in logits]  # fmt: skip
    loss = [[0.0] * len(keys) for _ in logits]
    distribution = [[0.0] * len(keys) for _ in logits]
    for p, view in enumerate(logits):
        for b, row in enumerate(view):
            if isinstance(positives, str):
                rows = {j for other in nearest for j in other[b]}
            else:
                rows = set() if positives is None else set(positives[b].tolist()) - {-1}
            columns = [0, *(j + 1 for j in rows)]
            loss[p][b] = math.fsum(log_sum_exp[p][b] - row[c] for c in columns) / len(columns)
            if teacher is not None and p != teacher:
                distribution[p][b] = math.fsum(
                    math.exp(s - log_sum_exp[teacher][b]) * (log_sum_exp[p][b] - row[c])
                    for c, s in enumerate(logits[teacher][b])
                )
    tensors = [torch.tensor(v, dtype=torch.float64) for v in (loss, distribution, log_sum_exp)]
    return *tensors, torch.tensor(nearest, dtype=torch.int64)


def assert_is_the_formula(info_nce, queries, keys, bank, temperature=0.07, **options):
    out = info_nce(queries, keys, bank, temperature, **options)
    loss, distribution, log_sum_exp, top_k = by_loops(queries, keys, bank, temperature, **options)
    torch.testing.assert_close(out.loss, loss)
    torch.testing.assert_close(out.log_sum_exp, log_sum_exp)
    if options.get("teacher") is None:
        assert out.distribution is None
    else:
        torch.testing.assert_close(out.distribution, distribution)
        assert (out.distribution[options["teacher"]] == 0).all()
    assert (out.top_k is None) == (not options.get("top_k"))
    if out.top_k is not None:
        assert out.top_k.dtype == torch.int64 and torch.equal(out.top_k, top_k)


@pytest.mark.parametrize("positives", [None, ROWS, "mined"], ids=["key", "rows", "mined"])
@pytest.mark.parametrize("teacher", [None, 0, 2])
@pytest.mark.parametrize("top_k", [1, 4])
def test_every_output_is_the_formula(info_nce, positives, teacher, top_k):
    assert_is_the_formula(info_nce, *arguments(), teacher=teacher, top_k=top_k, positives=positives)


@pytest.mark.parametrize("dim", [1, 1000])
@pytest.mark.parametrize(("views", "batch", "bank"), [(1, 1, 1), (2, 1, 9), (1, 3, 40)])
def test_awkward_shapes_are_the_formula(info_nce, views, batch, bank, dim):
    queries, keys, rows = arguments(views, batch, dim, bank)
    assert_is_the_formula(info_nce, queries, keys, rows, 0.5, teacher=0, top_k=1, positives="mined")


def test_of_equal_similarities_the_lower_row_comes_first(info_nce):
    g = torch.Generator().manual_seed(0)
    corners = [torch.randint(0, 2, s, generator=g) - 0.5 for s in [(2, 3, 4), (3, 4), (40, 4)]]
    queries, keys, bank = (c.double() for c in corners)  # similarities are exact: 0, 0.5 or 1
    top = info_nce(queries, keys, bank, top_k=40).top_k
    assert torch.equal(top, by_loops(queries, keys, bank, 0.07, top_k=40)[3])
    similarity = (queries @ bank.T).gather(-1, top)
    ties = similarity.diff(dim=-1) == 0
    assert ties.sum() > 100 and (top.diff(dim=-1)[ties] > 0).all()


@settings(max_examples=25, deadline=None, database=None)
@given(order=st.permutations(range(7)), seed=st.integers(0, 99))
def test_permuting_the_bank_changes_the_indices_alone(info_nce, order, seed):
    queries, keys, bank = arguments(seed=seed)
    order = torch.tensor(order)
    plain = info_nce(queries, keys, bank, teacher=1, top_k=3, positives="mined")
    permuted = info_nce(queries, keys, bank[order], teacher=1, top_k=3, positives="mined")
    torch.testing.assert_close(permuted[:3], plain[:3])
    assert torch.equal(order[permuted.top_k], plain.top_k)


@settings(max_examples=25, deadline=None, database=None)
@given(cut=st.integers(0, 150), seed=st.integers(0, 99))
def test_two_parts_of_the_bank_make_the_whole(info_nce, cut, seed):
    queries, keys, bank = arguments(2, 3, 4, 150, seed)
    whole, *parts = (
        info_nce(queries, keys, rows, 0.1, teacher=0) for rows in (bank, bank[:cut], bank[cut:])
    )
    key = (queries * keys).sum(-1) / 0.1  # counted in both parts
    total = parts[0].log_sum_exp.exp() + parts[1].log_sum_exp.exp() - key.exp()
    torch.testing.assert_close(whole.log_sum_exp, total.log())
    torch.testing.assert_close(whole.loss, total.log() - key)


def adversarial(case):
    """All but the rounded ones have similarities that are exact, even in float32: ties are ties."""
    plain = arguments(2, 3, 8, 200)
    if case == "rounded":
        return plain
    queries, keys, bank = ((p * 64).round() / 64 for p in plain)
    if case == "all rows equal":
        return queries, keys[:1].expand(3, 8), keys[:1].expand(200, 8)
    if case == "queries in the bank":
        bank[::40] = queries[0, :1]
        bank[199] = keys[1] = queries[1, 1]
    if case == "every row twice":
        bank[100:] = bank[:100]
    scale = {"huge norms": 32.0, "tiny norms": 2.0**-60}.get(case, 1.0)
    return queries * scale, keys * scale, bank * scale


CASES = [
    "all rows equal",
    "queries in the bank",
    "every row twice",
    "huge norms",
    "tiny norms",
    "rounded",
]


@pytest.mark.parametrize("temperature", [0.01, 0.07, 1.0])
@pytest.mark.parametrize("case", CASES)
def test_hard_cases_are_the_formula(info_nce, case, temperature):
    assert_is_the_formula(
        info_nce, *adversarial(case), temperature, teacher=0, top_k=3, positives="mined"
    )


@pytest.mark.parametrize("temperature", [0.01, 0.07, 1.0])
@pytest.mark.parametrize("case", CASES)
def test_float32_is_off_by_roundings_of_the_largest_logit(info_nce, case, temperature):
    inputs = [p.float() for p in adversarial(case)]  # logits of up to 100,000
    options = {"teacher": 0, "positives": torch.tensor([[0, 5], [7, -1], [199, 0]])}
    out = info_nce(*inputs, temperature, **options)
    exact = by_loops(*inputs, temperature, **options)
    largest = inputs[0].norm(dim=-1).max() * inputs[2].norm(dim=-1).max() / temperature
    for found, expected in zip(out[:3], exact[:3], strict=True):
        assert found.dtype == torch.float32
        error = (found.double() - expected).abs().max()
        assert error < 2 * 2**-23 * (largest + 8)  # worst so far: 1.6, the reference's


def test_the_gradient_of_the_distribution_takes_the_teacher_for_a_constant(info_nce):
    leaves = [p.requires_grad_() for p in arguments()]
    leaves.append(torch.tensor(0.3, dtype=torch.float64, requires_grad=True))
    queries, keys, bank, temperature = leaves
    upstream = torch.rand(3, 4, dtype=torch.float64)
    found = torch.autograd.grad(info_nce(*leaves, teacher=1).distribution, leaves, upstream)

    columns = torch.cat([keys[:, None], bank.expand(4, -1, -1)], dim=1)  # (B, 1 + Q, D)
    logits = torch.einsum("pbd,bcd->pbc", queries, columns) / temperature
    p = logits[1].detach().softmax(-1)
    by_hand = -(p * logits.log_softmax(-1)).sum(-1)
    by_hand = by_hand * torch.tensor([1.0, 0.0, 1.0])[:, None]
    torch.testing.assert_close(found, torch.autograd.grad(by_hand, leaves, upstream))
    assert (found[0][1] == 0).all(), "the teacher's own queries"


def test_the_teacher_s_own_distribution_weighs_nothing(info_nce):
    """Were it taken out again in another place, the larger weight would leave its rounding."""
    found = []
    for weight in (0.0, 1e8):
        leaves = [p.float().requires_grad_() for p in arguments()]
        out = info_nce(*leaves, teacher=1)
        (out.loss.sum() + out.distribution[0].sum() + weight * out.distribution[1].sum()).backward()
        found.append([p.grad for p in leaves])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_gradients_stay_finite_at_logits_of_ten_thousand(info_nce):
    leaves = [p.float().requires_grad_() for p in adversarial("huge norms")]
    out = info_nce(*leaves, 0.05, teacher=0, top_k=1, positives="mined")
    (out.loss + out.distribution + out.log_sum_exp).sum().backward()
    assert out.log_sum_exp.abs().max() > 1e4
    assert all(torch.isfinite(t.grad).all() for t in leaves)


@pytest.mark.parametrize("case", AT_HUGE_LOGITS)
def test_gradients_keep_their_digits_at_logits_of_ten_thousand(info_nce, case):
    queries, keys, bank, temperature = errors_at_huge_logits(info_nce, **AT_HUGE_LOGITS[case])
    assert max(keys, bank) < 1e-6
    assert queries < 1e-4 and temperature < 1e-3  # differences of means, each rounded


def test_a_nan_stays_in_its_query_and_reaches_all_from_the_bank(info_nce):
    queries, keys, bank = (p.float() for p in arguments(2, 3, 5, 100))
    queries[1, 2, 3] = torch.nan
    expected = torch.zeros(2, 3, dtype=torch.bool)
    expected[1, 2] = True
    out = info_nce(queries, keys, bank)
    assert torch.equal(out.loss.isnan(), expected)
    assert torch.equal(out.log_sum_exp.isnan(), expected)
    bank[50, 0] = torch.nan
    assert info_nce(queries, keys, bank).loss.isnan().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_half_precision_number_is_read_exactly(info_nce, dtype):
    numbers = torch.arange(2**16).to(torch.uint16).view(dtype)  # subnormal ones too
    keys = numbers[numbers.isfinite()].unflatten(0, (-1, 64))  # (B, 64)
    queries = torch.eye(64)[:, None].expand(64, len(keys), 64)  # each takes one number out
    assert torch.equal(info_nce(queries, keys, None, 1.0).log_sum_exp, keys.float().T)


def test_float32_queries_may_meet_a_half_precision_bank(info_nce):
    queries, keys, bank = arguments()
    out = info_nce(queries.float(), keys.bfloat16(), bank.half())
    exact = info_nce(queries.float(), keys.bfloat16().float(), bank.half().float())
    assert out.loss.dtype == torch.float32
    torch.testing.assert_close(out.loss, exact.loss)


def test_a_temperature_may_be_a_float_or_a_scalar_tensor(info_nce):
    inputs = arguments()
    as_tensor = info_nce(*inputs, torch.tensor(0.2, dtype=torch.float64))
    torch.testing.assert_close(as_tensor.loss, info_nce(*inputs, 0.2).loss)


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("queries", {"queries": torch.zeros(4, 5)}),
        ("queries", {"queries": torch.zeros(3, 4, 5, dtype=torch.int64)}),
        ("keys", {"keys": torch.zeros(3, 5)}),
        ("keys", {"keys": torch.zeros(4, 6)}),
        ("keys", {"keys": torch.zeros(4, 5, device="meta")}),
        ("bank", {"bank": torch.zeros(7, 6)}),
        ("bank", {"bank": torch.zeros(7)}),
        ("bank", {"bank": torch.zeros(7, 5, device="meta")}),
        ("bank", {"bank": torch.zeros(7, 5, dtype=torch.float64)}),
        ("temperature", {"temperature": 0}),
        ("temperature", {"temperature": -0.1}),
        ("temperature", {"temperature": math.nan}),
        ("temperature", {"temperature": torch.tensor(0.0)}),
        ("temperature", {"temperature": torch.ones(2)}),
        ("teacher", {"teacher": 3}),
        ("teacher", {"teacher": -1}),
        ("top_k", {"top_k": -1}),
        ("top_k", {"top_k": 8}),
        ("top_k", {"top_k": 1, "bank": None}),
        ("positives", {"positives": "all"}),
        ("positives", {"positives": "mined"}),
        ("positives", {"positives": torch.zeros(4, 1)}),
        ("positives", {"positives": torch.zeros(3, 1, dtype=torch.int64)}),
        ("positives", {"positives": torch.zeros(4, dtype=torch.int64)}),
        ("positives", {"positives": torch.full((4, 1), 7)}),
        ("positives", {"positives": torch.full((4, 1), -2)}),
        ("backend", {"backend": "abacus"}),
    ],
)
def test_a_wrong_argument_is_named(info_nce, name, changed):
    queries, keys, bank = (p.float() for p in arguments())
    good = {"queries": queries, "keys": keys, "bank": bank}
    info_nce(**good)
    with pytest.raises(ValueError, match=rf"^{name}\b"):
        info_nce(**(good | changed))
