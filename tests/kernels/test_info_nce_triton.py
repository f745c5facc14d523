"""info_nce in Triton: numbers on a GPU or in the interpreter, and programs as compiled.

Without a GPU the tests of numbers run in a process of their own: Triton reads TRITON_INTERPRET when
a program is defined.
"""

from __future__ import annotations

from itertools import product

import pytest
import torch
import torch.nn.functional as F

from msclr.kernels import backends, info_nce
from msclr.kernels._backend import interpreted

pytest.importorskip("triton")
from msclr.kernels.info_nce import triton_launch  # noqa: E402
from tests.kernels.ahead_of_time import SHARED_BYTES, compile_launches  # noqa: E402
from tests.kernels.interpreter import passed_in_the_interpreter  # noqa: E402

DEVICE = "cpu" if interpreted() else "cuda"
# Of the largest value of an output. Means and gradients are rounded, and weights that make them.
ERROR = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}

numbers = pytest.mark.skipif(bool(backends()["triton"]), reason=backends()["triton"])
compiled = pytest.mark.skipif(interpreted(), reason="the interpreter compiles nothing")


@pytest.mark.skipif(not backends()["triton"], reason="the tests of numbers run in this process")
def test_the_numbers_are_right_in_the_interpreter():
    assert passed_in_the_interpreter(__file__) >= 30


def arguments(views, batch, bank, dim, dtype=torch.float32, seed=0):
    """Queries, keys and bank on the device, of norm 1 before they are rounded."""
    g = torch.Generator().manual_seed(seed)
    shapes = (views, batch, dim), (batch, dim), (bank, dim)
    rows = [F.normalize(torch.randn(s, generator=g), dim=-1) for s in shapes]
    return [r.to(DEVICE, dtype) for r in rows]


def outputs_and_gradients(backend, tensors, temperature, options, number=None):
    """Of all three differentiable outputs at once; in ``number`` if given. float64, on the CPU."""
    leaves = [t.detach().to(number or t.dtype).requires_grad_() for t in tensors]
    scalar = torch.tensor(temperature, dtype=torch.float64, device=DEVICE, requires_grad=True)
    out = info_nce(*leaves, scalar, **options, backend=backend)
    total = 0.0
    for factor, made in zip((1.5, 0.7, 0.2), out[:3], strict=True):
        if made is not None:
            upstream = torch.linspace(0.5, factor, made.numel(), device=DEVICE).view(made.shape)
            total = total + (made * upstream).sum()
    wanted = [*(t for t in leaves if t.numel()), scalar]
    found = [o for o in out[:3] if o is not None], torch.autograd.grad(total, wanted)
    return *([t.detach().cpu().double() for t in part] for part in found), out.top_k


def assert_is_the_formula(tensors, temperature=0.07, **options):
    made, gradients, nearest = outputs_and_gradients("triton", tensors, temperature, options)
    exact, exact_gradients, exact_nearest = outputs_and_gradients(
        "reference", tensors, temperature, options, torch.float64
    )
    dtype = tensors[0].dtype
    # loss and log_sum_exp have the roundings of float32 alone, whatever the inputs.
    least = min(ERROR[dtype], ERROR[torch.float32])
    loss, *distribution, log_sum_exp = zip(made, exact, strict=True)
    for found, expected in (loss, log_sum_exp):
        assert (found - expected).abs().max() <= least * max(1, expected.abs().max())
    for found, expected in (*distribution, *zip(gradients, exact_gradients, strict=True)):
        assert (found - expected).abs().max() <= ERROR[dtype] * max(0.1, expected.abs().max())
    assert (nearest is None) == (exact_nearest is None)
    assert nearest is None or torch.equal(nearest, exact_nearest)


GIVEN = torch.tensor([[0, 3, 3, -1], [2, 2, 2, 2], [-1, -1, -1, -1], [6, 0, 69, 5], [1, 2, 3, 4]])
# views, batch, bank, dim, temperature, options
CASES = {
    "MoCo": (1, 5, 70, 16, 0.07, {}),
    "one of each": (1, 1, 1, 1, 1.0, {"top_k": 1, "positives": "mined"}),
    "no bank": (3, 5, 0, 16, 0.5, {"teacher": 0}),
    "one row, no columns to spare": (3, 5, 1, 40, 0.07, {"teacher": 2, "top_k": 1}),
    "given": (3, 5, 70, 40, 0.07, {"teacher": 1, "positives": GIVEN}),
    "AimCLR": (3, 5, 70, 40, 0.07, {"teacher": 0, "top_k": 1, "positives": "mined"}),
    "three mined": (3, 5, 70, 16, 0.3, {"top_k": 3, "positives": "mined"}),
    "sixteen mined": (3, 1, 70, 16, 0.07, {"top_k": 16, "positives": "mined"}),
    "cold": (3, 5, 70, 16, 0.01, {"teacher": 0, "top_k": 3, "positives": GIVEN}),
    "a thousand columns": (2, 2, 20, 1000, 0.07, {"teacher": 0, "top_k": 1, "positives": "mined"}),
    "two tiles of queries": (3, 12, 20, 1, 1.0, {"teacher": 0, "top_k": 1}),
}


@numbers
@pytest.mark.parametrize(
    ("case", "dtype"),
    [
        *product(CASES, [torch.float32]),
        *product(["MoCo", "no bank", "given", "AimCLR", "cold"], [torch.float16]),
        ("a thousand columns", torch.float16),
        *product(["given", "AimCLR"], [torch.bfloat16, torch.float64]),
    ],
    ids=str,
)
def test_outputs_and_gradients_are_those_of_the_formula(case, dtype):
    *shape, temperature, options = CASES[case]
    if torch.is_tensor(options.get("positives")):
        options = options | {"positives": options["positives"].to(DEVICE)}
    assert_is_the_formula(arguments(*shape, dtype), temperature, **options)


@numbers
@pytest.mark.parametrize("splits", [1, 4])
@pytest.mark.parametrize("top_k", [1, 16])
def test_of_equal_similarities_the_lower_row_comes_first(top_k, splits, monkeypatch):
    monkeypatch.setattr(triton_launch, "_programs", lambda _: splits)
    g = torch.Generator().manual_seed(0)
    corners = [torch.randint(0, 2, s, generator=g) - 0.5 for s in [(2, 3, 4), (3, 4), (70, 4)]]
    tensors = [c.to(DEVICE) for c in corners]  # similarities are exact: 0, 0.5 or 1
    expected = info_nce(*tensors, top_k=top_k, backend="reference").top_k
    assert torch.equal(info_nce(*tensors, top_k=top_k, backend="triton").top_k, expected)
    tensors[2] = tensors[2][:1].expand(70, 4)
    first = torch.arange(top_k, device=DEVICE).expand(2, 3, top_k)
    assert torch.equal(info_nce(*tensors, top_k=top_k, backend="triton").top_k, first)


@numbers
def test_splits_of_the_bank_change_nothing_beyond_rounding(monkeypatch):
    tensors = arguments(2, 3, 100, 16, torch.float64)
    options = {"teacher": 0, "top_k": 3, "positives": "mined"}
    found = []
    for splits in (1, 2, 3, 5):
        monkeypatch.setattr(triton_launch, "_programs", lambda _, splits=splits: splits)
        found.append(info_nce(*tensors, **options, backend="triton"))
    for other in found[1:]:
        torch.testing.assert_close(tuple(other), tuple(found[0]), rtol=1e-13, atol=1e-13)
    assert any(not torch.equal(other.loss, found[0].loss) for other in found[1:]), "nothing split"


@numbers
def test_dirty_scratch_memory_changes_nothing(monkeypatch):
    tensors = arguments(3, 5, 70, 40, torch.bfloat16)
    options = {"teacher": 0, "top_k": 3, "positives": "mined"}
    clean = outputs_and_gradients("triton", tensors, 0.07, options)
    monkeypatch.setattr(torch, "empty", poisoned(torch.empty))
    monkeypatch.setattr(torch, "empty_like", poisoned(torch.empty_like))
    assert torch.empty(1).isnan()
    dirty = outputs_and_gradients("triton", tensors, 0.07, options)
    for a, b in zip((*clean[0], *clean[1]), (*dirty[0], *dirty[1]), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(clean[2], dirty[2])


def poisoned(make):
    def run(*arguments, **options):
        made = make(*arguments, **options)
        return made.fill_(torch.nan if made.is_floating_point() else torch.iinfo(made.dtype).max)

    return run


@numbers
def test_logits_of_a_hundred_thousand_stay_exact():
    tensors = [32 * (t * 64).round() / 64 for t in arguments(2, 3, 70, 16)]
    assert_is_the_formula(tensors, 0.01, teacher=0, top_k=1, positives="mined")


@numbers
def test_a_nan_stays_in_its_query_and_reaches_all_from_the_bank():
    queries, keys, bank = arguments(2, 3, 70, 5)
    queries[1, 2, 3] = torch.nan
    expected = torch.zeros(2, 3, dtype=torch.bool, device=DEVICE)
    expected[1, 2] = True
    out = info_nce(queries, keys, bank, top_k=2, backend="triton")
    assert torch.equal(out.loss.isnan(), expected)
    assert (out.top_k >= 0).all() and (out.top_k < 70).all()
    bank[50, 0] = torch.nan
    assert info_nce(queries, keys, bank, backend="triton").loss.isnan().all()


@numbers
def test_any_strides():
    plain = queries, keys, bank = arguments(2, 2, 40, 6)
    expected = info_nce(*plain, teacher=1, top_k=2, positives="mined", backend="triton")
    queries = queries.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    keys = torch.stack([keys, keys], dim=-1)[..., 0]
    for rows in (
        bank.T.contiguous().T,
        bank.repeat(1, 2)[:, 6:],
        bank.repeat_interleave(2, 0)[::2],
    ):
        assert not any(t.is_contiguous() for t in (queries, keys, rows))
        found = info_nce(
            queries, keys, rows, teacher=1, top_k=2, positives="mined", backend="triton"
        )
        torch.testing.assert_close(tuple(found), tuple(expected))


@numbers
def test_float32_queries_may_meet_a_half_precision_bank():
    queries, keys, bank = arguments(3, 4, 70, 6)
    assert_is_the_formula([queries, keys.bfloat16().float(), bank.half().float()])
    mixed = info_nce(queries, keys.bfloat16(), bank.half(), backend="triton")
    exact = info_nce(queries, keys.bfloat16().float(), bank.half().float(), backend="triton")
    torch.testing.assert_close(mixed.loss, exact.loss)


@numbers
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_no_further_off_than_plain_pytorch(dtype):
    tensors = arguments(3, 5, 70, 40, dtype)
    exact, exact_gradients, _ = outputs_and_gradients(
        "reference", tensors, 0.07, {"teacher": 0}, torch.float64
    )
    made, gradients, _ = outputs_and_gradients("triton", tensors, 0.07, {"teacher": 0})

    leaves = [t.requires_grad_() for t in tensors]
    queries, keys, bank = leaves
    logits = torch.cat([(queries * keys).sum(-1, keepdim=True), queries @ bank.T], -1) / 0.07
    log_probability = logits.float().log_softmax(-1)
    p = log_probability[0].detach().exp()
    others = (torch.arange(3, device=DEVICE) != 0)[:, None]
    plain = (
        -log_probability[..., 0],
        -(p * log_probability).sum(-1) * others,
        logits.float().logsumexp(-1),
    )
    total = 0.0
    for factor, output in zip((1.5, 0.7, 0.2), plain, strict=True):
        upstream = torch.linspace(0.5, factor, output.numel(), device=DEVICE).view(output.shape)
        total = total + (output * upstream).sum()
    plain = *plain, *torch.autograd.grad(total, leaves)
    ours, right = (*made, *gradients[:3]), (*exact, *exact_gradients[:3])
    for found, by_pytorch, expected in zip(ours, plain, right, strict=True):
        error, allowed = (
            (x.detach().cpu().double() - expected).square().mean().sqrt()
            for x in (found, by_pytorch)
        )
        assert error <= 1.1 * allowed


@numbers
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_a_mean_by_rounded_weights_is_still_a_mean(dtype):
    queries, keys, bank = arguments(1, 3, 70, 16, dtype)
    keys[:, 0] = bank[:, 0] = 0.5  # and so is the mean: nothing is to be gained there
    queries.requires_grad_()
    info_nce(queries, keys, bank, backend="triton").loss.sum().backward()
    assert queries.grad[..., 0].abs().max() < 1e-4 < queries.grad[..., 1:].abs().max()


@numbers
def test_no_clips_give_empty_outputs():
    tensors = [t.requires_grad_() for t in arguments(2, 0, 70, 5)]
    out = info_nce(*tensors, teacher=0, top_k=2, backend="triton")
    assert out.loss.shape == out.distribution.shape == out.log_sum_exp.shape == (2, 0)
    assert out.top_k.shape == (2, 0, 2)
    out.loss.sum().backward()
    assert (tensors[2].grad == 0).all()


@numbers
def test_the_op_is_a_proper_one():
    tensors = [t.requires_grad_() for t in arguments(2, 3, 7, 5)]
    scalar = torch.tensor(0.2, dtype=torch.float64)
    rest = scalar, 0, 2, None, True
    torch.library.opcheck(torch.ops.msclr.info_nce_triton, (*tensors, *rest))


@numbers
def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match=r"^queries\b.*1024.*1025"):
        info_nce(*arguments(1, 1, 20, 1025), backend="triton")
    with pytest.raises(ValueError, match=r"^top_k\b.*16.*17"):
        info_nce(*arguments(1, 1, 20, 5), top_k=17, backend="triton")


def launch_all(dtype, dim, top_k=1):
    """AimCLR's forward and its backward with every gradient, of which only launches matter."""
    queries, keys, bank = (
        torch.zeros(s, dtype=dtype) for s in [(3, 128, dim), (128, dim), (4096, dim)]
    )
    scalar = torch.tensor(0.07, dtype=torch.float64)
    loss, distribution, log_sum_exp, nearest, mean, positive = triton_launch.forward(
        queries, keys, bank, scalar, 0, top_k, None, True
    )
    triton_launch.backward(
        loss, distribution, log_sum_exp, queries, keys, bank, scalar, 0, top_k, None, True,
        log_sum_exp, nearest, mean, positive, True, True, True, True,
    )  # fmt: skip


@compiled
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize(
    ("dtype", "dim"),
    [(d, n) for d in (torch.bfloat16, torch.float32) for n in (128, 256)],
    ids=str,
)
def test_programs_keep_to_registers_shared_memory_and_tensor_cores(capability, dtype, dim):
    programs = compile_launches(capability, lambda: launch_all(dtype, dim))
    names = "stream", "combine", "finish", "query_gradient", "pulls", "bank_gradient"
    assert tuple(p.name for p in programs) == names
    for program in programs:
        assert program.stack == 0, f"{program.name} spills"
        assert program.shared <= SHARED_BYTES[capability], program.name
        multiplies = program.name in ("stream", "bank_gradient")
        instruction = {80: "HMMA", 90: "HGMMA"}[capability]
        on_tensor_cores = program.count(rf"{instruction}[\w.]*") > 0
        assert on_tensor_cores == (multiplies and dtype == torch.bfloat16), program.name
