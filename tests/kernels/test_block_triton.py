"""stgcn_block in Triton: numbers on a GPU or in the interpreter, and programs as compiled.

Without a GPU test_triton_interpreted.py runs the tests of numbers.
"""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

from msclr.kernels._cases import converted
from msclr.kernels.block import cases
from msclr.kernels.block.dropout import dropout_factors
from tests.kernels.contract import CONTRACTS, in_float64, packed_block, results_of, rms_of

pytest.importorskip("triton")
from msclr.kernels import _triton_rows  # noqa: E402
from msclr.kernels.block import triton_launch  # noqa: E402
from msclr.kernels.graph_conv import triton_neighbours  # noqa: E402
from tests.kernels.ahead_of_time import SHARED_BYTES, compile_launches  # noqa: E402
from tests.kernels.interpreter import DEVICE, bfloat16_to_nearest, compiled, numbers  # noqa: E402

BLOCK = CONTRACTS["stgcn_block"]


def made(*sizes, dtype=torch.float32, **options):
    return converted(cases.make(*sizes, **options), dtype, DEVICE)


def factors(rows, columns, p, seed, block):
    """What the operator multiplies by: the output of ones that nothing is added to."""
    given = made(columns, columns, [1, rows, 1], dtype=torch.float64, dropout=p)
    parts = triton_launch._Launches(given._replace(seed=seed, block=block))
    parts.numbers[1, 0], parts.numbers[1, 1] = 1, 0
    return parts.output(torch.ones_like(given.x), None)


@numbers
@pytest.mark.parametrize("columns", [1, 7, 16, 32, 48, 64, 128])
@pytest.mark.parametrize("p", [0.1, 0.5])
def test_dropout_is_the_counters(columns, p):
    seed = 2**40 + 7 if p == 0.1 else 5
    expected = dropout_factors(70, columns, p, seed, 7)
    assert torch.equal(factors(70, columns, p, torch.tensor(seed), 7).cpu(), expected)


@numbers
def test_a_seed_may_be_where_the_rows_are(monkeypatch):
    """As a captured CUDA graph wants it; the interpreter has but one memory."""
    seed = torch.tensor(2**40 + 7)
    plain = factors(70, 16, 0.5, seed, 3)
    monkeypatch.setattr(triton_launch, "_is_in_memory", lambda seed, x: True)
    assert torch.equal(factors(70, 16, 0.5, seed.to(DEVICE), 3), plain)


@numbers
def test_half_precision_rows_meet_float32_parameters():
    """As under autocast: rows are kept in half precision, statistics and gradients are float32."""
    given = made(16, 16, [2, 13, 9])
    half = given._replace(x=given.x.bfloat16())
    with bfloat16_to_nearest():
        found = results_of(BLOCK, "triton", half)
    exact, plain = in_float64(BLOCK, half), results_of(BLOCK, "reference", half)
    assert {n for n in found if found[n].dtype == torch.bfloat16} == {"result 0", "x"}
    for name, wanted in exact.items():
        ours, theirs = (rms_of(r[name], wanted) for r in (found, plain))
        assert found[name].dtype == plain[name].dtype
        assert ours <= 1.1 * theirs + 1e-6 * wanted.abs().max(), name


@numbers
def test_a_batch_without_rows_moves_no_statistics_and_has_gradients_of_zero():
    given = made(4, 4, [0, 5, 3])
    found = results_of(BLOCK, "triton", given)
    assert found["result 0"].shape == (0, 4)
    assert torch.equal(found["result 1"], given.running.cpu())
    assert not any(found[name].any() for name in BLOCK.gradients if name in found)


@numbers
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_comes_out_where_pytorchs_does(value):
    """See test_block.py."""
    given = made(5, 7, [2, 6, 5, 1, 3, 4], training=False)
    dense = torch.linspace(0.5, 1, given.adjacency.numel(), device=DEVICE)
    given = given._replace(adjacency=dense, support=torch.ones_like(given.support))
    given.x[20, 3] = value
    found, expected = (packed_block(given, backend=b) for b in ("triton", "reference"))
    assert torch.equal(found.isfinite(), expected.isfinite())
    assert not expected.isfinite().all() and expected.isfinite().any()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4, equal_nan=True)


@numbers
def test_lists_of_neighbours_are_made_once_for_a_support_and_again_when_it_changes(monkeypatch):
    given = made(4, 4, [1, 4, 5], dtype=torch.float64)
    expected = results_of(BLOCK, "reference", given)
    calls = []
    make = triton_neighbours.Lists._make
    monkeypatch.setattr(triton_neighbours.Lists, "_make", lambda *a: (calls.append(a), make(*a))[1])
    for _ in range(3):
        found = results_of(BLOCK, "triton", given)
    assert len(calls) == 2  # of either direction
    link = int(given.support.nonzero()[0])
    given.support[link] = False
    again = results_of(BLOCK, "triton", given)
    assert len(calls) == 4
    torch.testing.assert_close(found["result 0"], expected["result 0"])
    torch.testing.assert_close(again["result 0"], results_of(BLOCK, "reference", given)["result 0"])
    assert again["adjacency"].flatten()[link] == 0
    other = given._replace(support=given.support.clone())
    torch.testing.assert_close(packed_block(other, backend="triton"), again["result 0"].to(DEVICE))


@numbers
def test_statistics_of_a_group_are_those_of_its_rows():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        given = made(5, 7, [2, 6, 5], dtype=torch.float64)
        grouped = given._replace(group=dist.group.WORLD.group_name)
        alone, together = (results_of(BLOCK, "triton", a) for a in (given, grouped))
    finally:
        dist.destroy_process_group()
    for name in alone:
        torch.testing.assert_close(together[name], alone[name], msg=name)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("backward", [False, True])
def test_every_row_is_of_one_tile(stride, backward):
    segments = [2, 7, 5, 0, 4, 3, 1, 6, 2]
    plan = _triton_rows.plan_rows(segments, stride, backward, 16, torch.device("cpu"))
    assert plan is _triton_rows.plan_rows(list(segments), stride, backward, 16, plan.table.device)
    seen = []
    for first, count, frames, joints, own, own_frames, *_, parity, _, _ in plan.table.tolist():
        if count:
            assert 0 <= first < plan.tiles
        for row in range(count):
            sample, frame = row // joints // frames, row // joints % frames
            t = frame * (stride if backward else 1) + parity
            seen.append(own + (sample * own_frames + t) * joints + row % joints)
    assert sorted(seen) == list(range(len(seen)))
    assert len(seen) == (82 if backward or stride == 1 else 46)


def launch_all(dtype, c_in, c_out, joints, parameters=torch.float32, counts=None):
    """A block forward and backward with every gradient, of which only launches matter."""
    stride = 1 if c_in == c_out else 2
    given = cases.make(c_in, c_out, [2, 20, joints, 1, 10, 5], stride=stride, dropout=0.5)
    given = converted(given, parameters)._replace(counts=counts)
    given = given._replace(x=torch.zeros(2 * 20 * joints + 50, c_in))
    given = given._replace(x=given.x.to(dtype))
    y, _, *kept = triton_launch.forward(*given)
    triton_launch.backward(torch.ones_like(y), *given, y, *kept, *[True] * 9)


@pytest.mark.unsanitized
@compiled
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize(
    ("dtype", "c_in", "c_out", "joints"),
    [
        (torch.bfloat16, 3, 16, 25),
        (torch.bfloat16, 64, 128, 42),
        (torch.bfloat16, 256, 256, 128),
        (torch.float16, 64, 64, 25),
        (torch.float32, 64, 128, 25),
        (torch.float64, 64, 64, 25),
    ],
    ids=str,
)
def test_compiled_programs_fit_and_use_tensor_cores(capability, dtype, c_in, c_out, joints):
    check_compiled(capability, dtype, c_in, c_out, joints, None)


@pytest.mark.unsanitized
@compiled
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize(
    ("dtype", "c_in", "c_out"), [(torch.bfloat16, 64, 128), (torch.float32, 16, 16)], ids=str
)
def test_compiled_programs_fit_with_surplus(capability, dtype, c_in, c_out):
    check_compiled(capability, dtype, c_in, c_out, 25, torch.tensor([1, 1]))


def check_compiled(capability, dtype, c_in, c_out, joints, counts):
    parameters = torch.float64 if dtype == torch.float64 else torch.float32
    found = compile_launches(
        capability, lambda: launch_all(dtype, c_in, c_out, joints, parameters, counts)
    )
    small = {"fold", "norm_gradient", "add_up", "adjacency_gradient", "list_neighbours",
             "output", "output_gradient"}  # fmt: skip
    products = [p for p in found if p.name not in small]
    assert {p.name for p in products} == {"convolve", "weight_gradient", "joint_gradients"}
    assert len(products) == (7 if c_in == c_out else 11)
    for program in found:
        name = f"{program.name} of {program.registers} registers"
        assert program.stack == 0 and not program.count("LDL"), f"{name} spills"
        assert program.shared <= SHARED_BYTES[capability], name
    for program in products:
        assert program.count(r"(HGMMA|HMMA|DMMA)[\w.]*"), program.name
