"""info_nce equals its formula in plain loops, values and gradients; ties, permutations, errors."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from msclr.kernels import info_nce

ROWS = torch.tensor([[0, 3, -1], [2, 2, 2], [-1, -1, -1], [6, 0, 6]])  # of a bank of 7, for B = 4


def arguments(views=3, batch=4, dim=5, bank=7, seed=0):
    """Normalised queries, keys and bank in float64."""
    g = torch.Generator().manual_seed(seed)
    shapes = [(views, batch, dim), (batch, dim), (bank, dim)]
    return [F.normalize(torch.randn(s, generator=g, dtype=torch.float64), dim=-1) for s in shapes]


def dot(a, b):
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def by_loops(queries, keys, bank, temperature, teacher=None, top_k=0, positives=None):
    """loss, distribution, log_sum_exp (P, B) and top_k (P, B, top_k) in Python numbers."""
    keys, bank = keys.tolist(), [] if bank is None else bank.tolist()
    logits = [
        [[dot(q, k) / temperature for k in [keys[b], *bank]] for b, q in enumerate(view)]
        for view in queries.tolist()
    ]
    log_sum_exp = [[math.log(math.fsum(map(math.exp, row))) for row in view] for view in logits]
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


def assert_is_the_formula(queries, keys, bank, temperature=0.07, **options):
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
def test_every_output_is_the_formula(positives, teacher, top_k):
    assert_is_the_formula(*arguments(), teacher=teacher, top_k=top_k, positives=positives)


@pytest.mark.parametrize("dim", [1, 1000])
@pytest.mark.parametrize(("views", "batch", "bank"), [(1, 1, 1), (2, 1, 9), (1, 3, 40)])
def test_awkward_shapes_are_the_formula(views, batch, bank, dim):
    queries, keys, rows = arguments(views, batch, dim, bank)
    assert_is_the_formula(queries, keys, rows, 0.5, teacher=0, top_k=1, positives="mined")


@pytest.mark.parametrize("bank", [None, torch.zeros(0, 5, dtype=torch.float64)])
def test_without_a_bank_the_key_is_all_there_is(bank):
    queries, keys, _ = arguments()
    none = torch.full((4, 2), -1)
    assert_is_the_formula(queries, keys, bank, teacher=0, positives=none)
    assert (info_nce(queries, keys, bank).loss.abs() < 1e-12).all()


def test_no_clips_give_empty_outputs():
    out = info_nce(torch.zeros(2, 0, 5), torch.zeros(0, 5), torch.ones(7, 5), teacher=0, top_k=2)
    assert out.loss.shape == out.distribution.shape == out.log_sum_exp.shape == (2, 0)
    assert out.top_k.shape == (2, 0, 2)


def test_repeats_and_none_among_the_positives_count_once_and_not_at_all():
    inputs = arguments()
    plain = info_nce(*inputs, positives=torch.tensor([[3], [2], [0], [6]])).loss
    same = torch.tensor([[3, 3, -1], [2, -1, 2], [-1, -1, 0], [6, 6, 6]])
    torch.testing.assert_close(info_nce(*inputs, positives=same).loss, plain)
    assert not torch.allclose(info_nce(*inputs).loss, plain)


def test_of_equal_similarities_the_lower_row_comes_first():
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
def test_permuting_the_bank_changes_the_indices_alone(order, seed):
    queries, keys, bank = arguments(seed=seed)
    order = torch.tensor(order)
    plain = info_nce(queries, keys, bank, teacher=1, top_k=3, positives="mined")
    permuted = info_nce(queries, keys, bank[order], teacher=1, top_k=3, positives="mined")
    torch.testing.assert_close(permuted[:3], plain[:3])
    assert torch.equal(order[permuted.top_k], plain.top_k)


def test_gradients_of_loss_and_log_sum_exp_are_those_of_the_formula():
    leaves = [p.requires_grad_() for p in arguments(2, 3, 2, 4)]
    leaves.append(torch.tensor(0.3, dtype=torch.float64, requires_grad=True))
    rows = torch.tensor([[0, 3], [2, 2], [-1, -1]])
    for options in ({}, {"positives": rows}, {"positives": "mined", "top_k": 1}):

        def outputs(*p, options=options):
            out = info_nce(*p, **options)
            return out.loss, out.log_sum_exp

        assert torch.autograd.gradcheck(outputs, leaves)


def test_the_gradient_of_the_distribution_takes_the_teacher_for_a_constant():
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


def test_an_unused_positive_gets_no_gradient_and_a_used_one_is_pulled():
    queries, keys, bank = arguments(1, 1, 5, 2)
    bank.requires_grad_()
    info_nce(queries, keys, bank, positives=torch.tensor([[1]])).loss.sum().backward()
    pull = -(bank.grad @ queries[0, 0])  # positive towards the query
    assert pull[0] < 0 < pull[1]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_inputs_are_computed_in_float32(dtype, autocast):
    rounded = [p.to(dtype) for p in arguments()]
    options = {"teacher": 0, "top_k": 2, "positives": "mined"}
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        out = info_nce(*rounded, **options)
    assert all(o.dtype == torch.float32 for o in out[:3])
    exact = info_nce(*[p.float() for p in rounded], **options)
    torch.testing.assert_close(tuple(out), tuple(exact))


def test_float32_queries_may_meet_a_half_precision_bank():
    queries, keys, bank = arguments()
    out = info_nce(queries.float(), keys.bfloat16(), bank.half())
    exact = info_nce(queries.float(), keys.bfloat16().float(), bank.half().float())
    assert out.loss.dtype == torch.float32
    torch.testing.assert_close(out.loss, exact.loss)


def test_a_small_temperature_does_not_overflow():
    queries, keys, bank = (p.float() for p in arguments())
    queries.requires_grad_()
    out = info_nce(queries, keys, bank, 1e-4, teacher=0)
    (out.loss + out.distribution).sum().backward()
    assert all(torch.isfinite(t).all() for t in (*out[:3], queries.grad))


def test_a_temperature_may_be_a_float_or_a_scalar_tensor():
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
def test_a_wrong_argument_is_named(name, changed):
    queries, keys, bank = (p.float() for p in arguments())
    good = {"queries": queries, "keys": keys, "bank": bank}
    info_nce(**good)
    with pytest.raises(ValueError, match=rf"^{name}\b"):
        info_nce(**(good | changed))
