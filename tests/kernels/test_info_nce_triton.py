"""info_nce in Triton: numbers on a GPU or in the interpreter, and programs as compiled.

Without a GPU test_triton_interpreted.py runs the tests of numbers.
"""

from __future__ import annotations

from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from msclr.kernels import info_nce
from msclr.kernels._backend import interpreted
from msclr.kernels._qualify.judge import Judge, NotRightError
from msclr.kernels.info_nce.operator import Arguments
from tests.kernels.contract import CONTRACTS, error_of, in_float64, results_of

pytest.importorskip("triton")
from triton.runtime import interpreter  # noqa: E402

from msclr.kernels.info_nce import triton_launch  # noqa: E402
from tests.kernels.ahead_of_time import SHARED_BYTES, compile_launches  # noqa: E402
from tests.kernels.info_nce_inputs import AT_HUGE_LOGITS, errors_at_huge_logits  # noqa: E402
from tests.kernels.interpreter import DEVICE, compiled, numbers  # noqa: E402


def arguments(views, batch, bank, dim, dtype=torch.float32, seed=0):
    """Queries, keys and bank on the device, of norm 1 before they are rounded."""
    g = torch.Generator().manual_seed(seed)
    shapes = (views, batch, dim), (batch, dim), (bank, dim)
    rows = [F.normalize(torch.randn(s, generator=g), dim=-1) for s in shapes]
    return [r.to(DEVICE, dtype) for r in rows]


@numbers
@pytest.mark.parametrize("splits", [1, 4])
@pytest.mark.parametrize("top_k", [1, 16])
def test_of_equal_similarities_the_lower_row_comes_first(top_k, splits, monkeypatch):
    monkeypatch.setattr(triton_launch, "splits_of", lambda *_: splits)
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
        monkeypatch.setattr(triton_launch, "splits_of", lambda *_, splits=splits: splits)
        found.append(info_nce(*tensors, **options, backend="triton"))
    for other in found[1:]:
        torch.testing.assert_close(tuple(other), tuple(found[0]), rtol=1e-13, atol=1e-13)
    assert any(not torch.equal(other.loss, found[0].loss) for other in found[1:]), "nothing split"


@numbers
def test_logits_of_a_hundred_thousand_stay_exact():
    tensors = [32 * (t * 64).round() / 64 for t in arguments(2, 3, 70, 16)]
    given = Arguments(*tensors, torch.tensor(0.01, dtype=torch.float64), 0, 1, None, True)
    contract = CONTRACTS["info_nce"]
    found, exact = results_of(contract, "triton", given), in_float64(contract, given)
    assert all(error_of(found[name], exact[name]) <= 1e-5 for name in exact)


@numbers
@pytest.mark.parametrize("case", AT_HUGE_LOGITS)
def test_gradients_keep_their_digits_at_logits_of_ten_thousand(case):
    run = partial(info_nce, backend="triton")
    queries, keys, bank, temperature = errors_at_huge_logits(run, DEVICE, **AT_HUGE_LOGITS[case])
    assert max(keys, bank) < 1e-6
    assert queries < 1e-4 and temperature < 1e-3  # differences of means, each rounded


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
def test_float32_queries_may_meet_a_half_precision_bank():
    queries, keys, bank = arguments(3, 4, 70, 6)
    mixed = info_nce(queries, keys.bfloat16(), bank.half(), backend="triton")
    exact = info_nce(queries, keys.bfloat16().float(), bank.half().float(), backend="triton")
    torch.testing.assert_close(mixed.loss, exact.loss)


@numbers
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_a_mean_by_rounded_weights_is_still_a_mean(dtype):
    queries, keys, bank = arguments(1, 3, 70, 16, dtype)
    keys[:, 0] = bank[:, 0] = 0.5  # and so is the mean: nothing is to be gained there
    queries.requires_grad_()
    info_nce(queries, keys, bank, backend="triton").loss.sum().backward()
    assert queries.grad[..., 0].abs().max() < 1e-4 < queries.grad[..., 1:].abs().max()


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
    loss, distribution, log_sum_exp, *kept = triton_launch.forward(
        queries, keys, bank, scalar, 0, top_k, None, True
    )
    triton_launch.backward(
        loss, distribution, log_sum_exp, queries, keys, bank, scalar, 0, top_k, None, True,
        *kept, True, True, True, True,
    )  # fmt: skip


# In bytes of local memory a thread, what is moved out of registers; all else spills nothing.
SPILLS = {
    ("stream", torch.float32, 1024, 1, 90): 24,
    ("stream", torch.float32, 128, 16, 90): 184,
    ("finish", torch.float32, 512, 1, 90): 8,
    ("combine", torch.float32, 1024, 1, 80): 8,
}
PROGRAMS = "stream", "combine", "finish", "query_gradient", "pulls", "bank_gradient"
VARIANTS = [(d, n, 1) for d in (torch.bfloat16, torch.float32) for n in (128, 256)]
VARIANTS += [(torch.float32, 128, 16), (torch.float32, 512, 1), (torch.float32, 1024, 1)]


@compiled
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize(("dtype", "dim", "top_k"), VARIANTS, ids=str)
def test_programs_keep_to_registers_shared_memory_and_tensor_cores(capability, dtype, dim, top_k):
    programs = compile_launches(capability, lambda: launch_all(dtype, dim, top_k))
    assert tuple(p.name for p in programs) == PROGRAMS
    for program in programs:
        at = program.name, dtype, dim, top_k, capability
        assert program.stack <= SPILLS.get(at, 0), f"{at} spills {program.stack} bytes"
        assert program.shared <= SHARED_BYTES[capability], at
        multiplies = program.name in ("stream", "bank_gradient")
        found = program.count(r"H(G)?MMA[\w.]*") > 0
        assert found == multiplies, at
        if capability == 90 and multiplies and dim == 128:
            assert program.count(r"HGMMA[\w.]*") > 0, f"{at} multiplies as on sm_80"


@pytest.mark.parametrize("multiprocessors", [108, 132])
def test_the_splits_of_the_bank_fill_the_chip(multiprocessors):
    for query_tiles, bank_tiles in product(range(1, 700), (64, 512, 2048, 65536)):
        splits = triton_launch.splits_of(query_tiles, bank_tiles, multiprocessors)
        programs = query_tiles * splits
        allowed = query_tiles * (bank_tiles // 4)  # by a bank of few tiles
        assert programs > min(2 * multiprocessors, allowed) - query_tiles, "less than two waves"
        waves = -(-programs // multiprocessors)
        busy = query_tiles * bank_tiles / (waves * multiprocessors * -(-bank_tiles // splits))
        assert busy > 0.8 or bank_tiles < 2048 or query_tiles < 2, (query_tiles, bank_tiles, splits)
    assert triton_launch.splits_of(6, 0, multiprocessors) == 0
    assert triton_launch.splits_of(6, 3, multiprocessors) <= 3, "not more than it has tiles"


def split_tf32(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A number of 10 bits that is nearest to each, and one of 10 bits for what is left."""

    def nearest(x):
        bits = np.ascontiguousarray(x).view(np.uint32)
        return ((bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)

    high = nearest(x)
    return high, nearest(x - high)


def on_tensor_cores(pairs, start: np.ndarray) -> np.ndarray:
    """start + sum of products, eight at a time, each sum cut to float32 as hardware may."""
    total = start
    for (a, b), k in product(pairs, range(0, pairs[0][0].shape[1], 8)):
        added = total + a[:, k : k + 8].astype(np.float64) @ b[k : k + 8].astype(np.float64)
        total = added.astype(np.float32)
        over = np.abs(total.astype(np.float64)) > np.abs(added)
        total = np.where(over, np.nextafter(total, np.float32(0)), total)
    return total


def multiply_in(products: int, monkeypatch) -> None:
    """From now on the interpreter multiplies float32 in tf32, by one or by three products."""

    def dot(self, a, b, d, precision, most_imprecise):
        (high, low), (high2, low2) = split_tf32(a.data), split_tf32(b.data)
        start = np.zeros_like(d.data)
        if products == 3:
            start = on_tensor_cores([(low, high2), (high, low2)], start)
        made = on_tensor_cores([(high, high2)], start)
        return interpreter.TensorHandle(made + d.data, d.dtype.scalar)

    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_dot", dot)


BUDGETED = "forty columns", "far", "logits of a thousand"


@numbers
@pytest.mark.skipif(not interpreted(), reason="the contract's own test, on a GPU")
@pytest.mark.parametrize("case", BUDGETED)
def test_three_products_of_tf32_are_within_the_budget_of_float32(case, monkeypatch):
    judge = Judge(CONTRACTS["info_nce"].subject, "triton", torch.device("cpu"))
    make = CONTRACTS["info_nce"].cases.CASES[case]
    multiply_in(3, monkeypatch)
    judge.try_case(case, make(), torch.float32, case)
    assert judge.error > 0
    multiply_in(1, monkeypatch)
    with pytest.raises(NotRightError, match="off by"):
        judge.try_case(case, make(), torch.float32, case)
