"""Surplus samples, which make sizes equal, are as good as not there."""

from __future__ import annotations

import pytest
import torch

from msclr import kernels
from msclr.kernels import PackedRows
from msclr.kernels._cases import Draw
from msclr.kernels._segments import counted, rows_in, strided, with_surplus, without_surplus
from msclr.kernels.block import cases
from msclr.kernels.block.operator import GRADIENTS
from tests.kernels.contract import CONTRACTS
from tests.needs import needs_operators

BLOCK = CONTRACTS["stgcn_block"]
BACKENDS = ["reference", pytest.param("cpu", marks=needs_operators)]


def gradients_of(given, backend, weights):
    """y and moments of a block, and the gradients of the sum of y times weights."""
    leaves = {
        n: t.clone().requires_grad_() for n in GRADIENTS if (t := getattr(given, n)) is not None
    }
    y, moments, *_ = BLOCK.run(backend, given._replace(**leaves))
    found = torch.autograd.grad(y, list(leaves.values()), weights, materialize_grads=True)
    return y.detach(), moments.detach(), dict(zip(leaves, found, strict=True))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", [c for c in cases.CASES if "surplus" in c and "alone" not in c])
def test_a_block_is_that_of_the_rows_that_are_there(case, backend):
    given = cases.CASES[case]()
    there = counted(given.segments, given.counts)
    short, short_there = (strided(s, given.stride) for s in (given.segments, there))
    x = without_surplus(given.x, given.segments, there)
    weights = Draw(1).normal(rows_in(short_there), len(given.time_bias))
    alone = given._replace(x=x, segments=there, counts=None)
    y, moments, gradients = gradients_of(alone, backend, weights)
    poisoned = with_surplus(weights, short, short_there)
    poisoned[with_surplus(torch.ones_like(weights), short, short_there) == 0] = torch.nan
    found_y, found_moments, found = gradients_of(given, backend, poisoned)
    gradients["x"] = with_surplus(gradients["x"], given.segments, there)
    expected = {"y": with_surplus(y, short, short_there), "moments": moments, **gradients}
    ours = {"y": found_y, "moments": found_moments, **found}
    for name, wanted in expected.items():
        torch.testing.assert_close(ours[name], wanted, rtol=1e-9, atol=1e-9, msg=name)


@pytest.mark.parametrize("drop", [True, False])
def test_pooling_is_that_of_the_tracks_that_are_there(drop):
    segments, counts = [3, 5, 4, 2, 7, 3, 4, 2, 2], torch.tensor([2, 0, 4])
    there = counted(segments, counts)
    x = Draw().normal(rows_in(there), 5).requires_grad_()
    alone = kernels.drop_pool(PackedRows(x, there), drop, backend="reference")
    padded = with_surplus(x.detach(), segments, there)
    padded[with_surplus(torch.ones_like(x), segments, there) == 0] = torch.nan
    padded.requires_grad_()
    found = kernels.drop_pool(PackedRows(padded, segments, counts), drop)
    real = torch.tensor([0, 1, 5, 6, 7, 8])
    surplus = torch.tensor([2, 3, 4])
    assert torch.equal(found.counts, alone.counts)
    results = [(found.mean, alone.mean)] + [(found.dropped, alone.dropped)] * drop
    for ours, theirs in results:
        torch.testing.assert_close(ours[real], theirs)
        assert not ours[surplus].any()
    ours, theirs = (
        torch.autograd.grad(sum((r**2).sum() for r in p), g)[0]
        for p, g in zip(zip(*results, strict=True), (padded, x), strict=True)
    )
    torch.testing.assert_close(ours, with_surplus(theirs, segments, there))


def test_counts_that_do_not_fit_are_named():
    rows = torch.zeros(30, 2)
    for counts, what in [
        (torch.tensor([1, 2]), r"counts must be int64 \(1,\)"),
        (torch.tensor([1.0]), r"counts must be int64 \(1,\)"),
        (torch.tensor([4]), "counts must lie in 0..N, got 4 of 3 samples"),
        (torch.tensor([-1]), "counts must lie in 0..N, got -1 of 3 samples"),
    ]:
        with pytest.raises(ValueError, match=what):
            kernels.drop_pool(PackedRows(rows, [3, 5, 2], counts))
    given = cases.CASES["surplus"]()
    x = PackedRows(given.x, given.segments, torch.tensor([4, 1]))
    rest = given._asdict()
    for name in ("x", "segments", "counts"):
        del rest[name]
    with pytest.raises(ValueError, match="counts must lie in 0..N, got 4 of 3 samples"):
        kernels.stgcn_block(x, **rest)
    with pytest.raises(ValueError, match="backend must be reference or None"):
        kernels.drop_pool(PackedRows(rows, [3, 5, 2], torch.tensor([1])), backend="cpu")
