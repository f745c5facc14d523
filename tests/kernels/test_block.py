"""stgcn_block: its dropout, what is not finite, batches without rows, and what does not fit."""

from __future__ import annotations

import pytest
import torch

from msclr import kernels
from msclr.kernels._cases import converted
from msclr.kernels.block import cases
from msclr.kernels.block.dropout import dropout_factors
from tests.kernels.contract import CONTRACTS, packed_block, results_of
from tests.needs import needs_operators

BLOCK = CONTRACTS["stgcn_block"]
SEED = torch.tensor(5)


def factors(rows, columns, p, seed=SEED, block=0):
    """What the compiled operator multiplies by: the output of ones that nothing is added to."""
    ones, one = torch.ones(rows, columns), torch.ones(columns)
    return torch.ops.msclr.block_output(ones, one, one * 0, None, None, None, p, seed, block)


@needs_operators
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (70, 3), (129, 16), (200, 65)])
@pytest.mark.parametrize("p", [0.1, 0.5])
def test_dropout_is_the_counters(rows, columns, p):
    expected = dropout_factors(rows, columns, p, 5, 7)
    torch.testing.assert_close(factors(rows, columns, p, block=7).double(), expected)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_drops_at_its_rate_and_keeps_the_mean(p):
    kept = dropout_factors(2000, 50, p, 3, 0)
    deviation = (p * (1 - p) / kept.numel()) ** 0.5
    assert abs((kept == 0).double().mean() - p) < 5 * deviation
    assert abs(kept.mean() - 1) < 5 * deviation / (1 - p)


def test_dropout_of_channels_rows_seeds_and_blocks_is_independent():
    n = 4000
    of = [dropout_factors(n, 2, 0.5, seed, block) for seed, block in ((1, 0), (2, 0), (1, 1))]
    one = of[0] > 0
    others = [one[:, 1], one[:, 0].roll(1), *((other > 0)[:, 0] for other in of[1:])]
    for other in others:
        both = (one[:, 0] & other).double().mean()
        assert abs(both - 0.25) < 5 * (3 / 16 / n) ** 0.5


@needs_operators
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("case", ["two layouts, identity", "wide"])
def test_what_is_not_finite_comes_out_where_pytorchs_does(value, case):
    """With statistics that are given, for a batch's own would be NaN everywhere; and every joint
    linked to every other, for PyTorch's form multiplies joints that are not by 0, which is NaN."""
    arguments = converted(cases.CASES[case](), torch.float32)
    dense = torch.linspace(0.5, 1, arguments.adjacency.numel())
    arguments = arguments._replace(
        training=False, adjacency=dense, support=torch.ones_like(arguments.support)
    )
    arguments.x[20, 3] = value
    found, expected = (packed_block(arguments, backend=b) for b in ("cpu", "reference"))
    assert torch.equal(found.isfinite(), expected.isfinite())
    assert not expected.isfinite().all() and expected.isfinite().any()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4, equal_nan=True)


@needs_operators
def test_a_batch_without_rows_moves_no_statistics_and_has_gradients_of_zero():
    arguments = cases.make(4, 4, [0, 5, 3])
    named = {n: getattr(arguments, n).requires_grad_() for n in ("x", "graph_weight", "norms")}
    x = kernels.PackedRows(named["x"], [0, 5, 3])
    given = arguments._asdict()
    del given["x"], given["segments"], given["counts"]
    y, moments = kernels.stgcn_block(x, **given, backend="cpu")
    assert y.rows.shape == (0, 4) and torch.equal(moments, arguments.running)
    for gradient in torch.autograd.grad(y.rows.sum(), list(named.values())):
        assert not gradient.any()


@needs_operators
@pytest.mark.parametrize("threads", [2, 4])
@pytest.mark.parametrize("case", sorted(cases.LARGE))
def test_the_number_of_threads_changes_no_bit(case, threads):
    arguments = converted(cases.CASES[case](), torch.float32)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = results_of(BLOCK, "cpu", arguments)
        torch.set_num_threads(threads)
        several = results_of(BLOCK, "cpu", arguments)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one[name], several[name]) for name in one)


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("segments", {"segments": [2, 9, 4]}),
        ("segments", {"segments": [2, 9]}),
        ("stride", {"stride": 3}),
        ("dropout", {"dropout": 1.0}),
        ("time_weight", {"time_weight": torch.zeros(8, 8, 7)}),
        ("time_bias", {"time_bias": torch.zeros(7)}),
        ("graph_weight", {"graph_weight": torch.zeros(24, 7)}),
        ("graph_bias", {"graph_bias": torch.zeros(23)}),
        ("adjacency", {"adjacency": torch.zeros(3, 5, 5)}),
        ("support", {"support": torch.zeros(75)}),
        ("residual ", {"stride": 2}),
        ("residual_weight", {"residual_weight": torch.zeros(7, 8)}),
        ("norms", {"norms": torch.zeros(6, 8)}),
        ("running", {"running": torch.zeros(4, 7)}),
    ],
)
def test_a_wrong_argument_is_named(name, changed):
    good = cases.make(8, 8, [2, 9, 5])
    packed_block(good)
    with pytest.raises(ValueError, match=f"^{name}"):
        packed_block(good._replace(**changed))


def test_one_row_in_training_is_refused_as_pytorch_does():
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        packed_block(cases.make(4, 4, [1, 1, 1]))
