"""info_nce equals its formula in plain loops; ties, permutations, errors; threads and memory."""

from __future__ import annotations

import math
import sys
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.machine import peak_extra_bytes
from msclr import kernels
from msclr.kernels.info_nce.operator import Arguments
from msclr.methods.queue import Queue
from tests.kernels.contract import CONTRACTS, results_of

AIMCLR = {"teacher": 0, "top_k": 1, "positives": "mined"}
ROWS = torch.tensor([[0, 3, -1], [2, 2, 2], [-1, -1, -1], [6, 0, 6]])  # of a bank of 7, for B = 4


compiled = pytest.mark.skipif(
    bool(kernels.backends()["cpu"]), reason=f"no compiled operators: {kernels.backends()['cpu']}"
)


@pytest.fixture(scope="module", params=["reference", "cpu"])
def info_nce(request):
    if problem := kernels.backends()[request.param]:
        pytest.skip(problem)
    return partial(kernels.info_nce, backend=request.param)


def arguments(views=3, batch=4, dim=5, bank=7, seed=0):
    """Normalised queries, keys and bank in float64."""
    g = torch.Generator().manual_seed(seed)
    shapes = [(views, batch, dim), (batch, dim), (bank, dim)]
    return [F.normalize(torch.randn(s, generator=g, dtype=torch.float64), dim=-1) for s in shapes]


def leaves(*sizes, dtype=torch.float64):
    """The same and a temperature, all of which want gradients."""
    return [t.to(dtype).requires_grad_() for t in (*arguments(*sizes), torch.tensor(0.2))]


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


@compiled
def test_an_exponential_is_right_to_its_last_digits():
    y = torch.linspace(0, 12, 10_001)  # logits 0 of the key and -y of the bank's only row
    queries, keys, bank = y.view(1, -1, 1), torch.zeros(10_001, 1), -torch.ones(1, 1)
    loss = kernels.info_nce(queries, keys, bank, 1.0, backend="cpu").loss[0].double()
    exact = y.double().neg().exp().log1p()
    assert ((loss - exact).abs() < 2**-23 * (1.5 + y) * exact).all()  # y in bits: rounded as well


@compiled
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


@compiled
def test_a_python_temperature_compiles_too():
    queries, keys, bank, _ = leaves(dtype=torch.float32)

    def loss(queries):
        return kernels.info_nce(queries, keys, bank, 0.2).loss

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(queries), loss(queries))


@compiled
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


@compiled
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
    grads, kept = [torch.ones(2, 3)] * 3, out[2:]
    backward = torch.ops.msclr.info_nce_backward
    for i, wrong in enumerate([*grads, *kept]):
        changed = [*grads, *kept]
        changed[i] = wrong[..., 1:]
        with pytest.raises(RuntimeError, match="must be"):
            backward(*changed[:3], *good, 0, 1, None, False, *changed[3:], *[True] * 4)


@compiled
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


@compiled
def test_many_queries_give_the_same_bits_on_any_number_of_threads():
    one, *others = (everything(n, 3, 50, 24, 500) for n in (1, 2, 3))
    assert all(torch.equal(one[name], other[name]) for other in others for name in one)


@compiled
def test_few_queries_share_the_bank_among_the_threads():
    one, three, again = (everything(n, 1, 3, 24, 2000) for n in (1, 3, 3))
    assert all(torch.equal(three[name], again[name]) for name in three)
    assert not all(torch.equal(three[name], one[name]) for name in one), "it was not cut"
    torch.testing.assert_close(three, one)


@compiled
def test_of_rows_alike_in_every_part_of_the_bank_the_lowest_come_first():
    queries, keys, _, _ = leaves(1, 1, 8)
    bank = queries[0].detach().expand(1000, 8)
    top = on_threads(3, lambda: kernels.info_nce(queries, keys, bank, top_k=5, backend="cpu").top_k)
    assert top.flatten().tolist() == [0, 1, 2, 3, 4]


@compiled
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


@compiled
def test_two_hundred_steps_of_training_follow_the_reference():
    exact = train("reference", torch.float64)
    assert exact[-20:].mean() < exact[:20].mean() - 1, "it learns"
    torch.testing.assert_close(train("cpu", torch.float64), exact, rtol=1e-12, atol=0)
    off = [(train(backend, torch.float32) - exact).abs() for backend in ("cpu", "reference")]
    ours, theirs = (torch.stack([d[:20].max(), d[-20:].max()]) for d in off)
    assert (ours <= 3 * theirs).all() and ours[1] < 1e-5, f"rounding has grown to {ours}, {theirs}"
