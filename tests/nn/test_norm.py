"""BatchNorm over groups is batch norm of all rows together, and so it is over processes."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.distributed as dist
from torch import nn

from msclr import layouts
from msclr.nn import STGCN, BatchNorm, InputNorm
from msclr.nn.norm import synchronise
from tests.ranks import be_a_rank, run_ranks

SHAPES = [(3, 4, 5, 7), (2, 4, 3, 2), (1, 4, 5, 1)]  # (N_g, C, T_g, V_g)
STATE = ("running_mean", "running_var", "num_batches_tracked")


def random(*shape, seed=0):
    g = torch.Generator().manual_seed(seed)
    return 2 + 3 * torch.randn(shape, generator=g, dtype=torch.float64)


def randomised(norm):
    """The module in float64, none of its parameters or statistics at its first value."""
    norm = norm.double()
    norm.weight.data, norm.bias.data = random(len(norm.weight), seed=1), random(len(norm.bias))
    norm.running_mean, norm.running_var = random(len(norm.bias)), random(len(norm.bias)).square()
    return norm


def as_rows(x):
    """(N, C, T, V) -> (N*T*V, C), one row after the other."""
    return torch.stack([x[n, :, t, v] for n in range(len(x))
                        for t in range(x.shape[2]) for v in range(x.shape[3])])  # fmt: skip


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("shapes", [SHAPES, SHAPES[:1]])
def test_groups_are_normalised_as_their_rows_in_one_batch(shapes, momentum, train):
    norm = randomised(BatchNorm(4, momentum=momentum)).train(train)
    wanted = nn.BatchNorm1d(4, momentum=momentum).double().train(train)
    wanted.load_state_dict(norm.state_dict())
    for step in range(2):  # the second shows how running statistics go on
        groups = [random(*s, seed=9 * step + i).requires_grad_() for i, s in enumerate(shapes)]
        rows = torch.cat([as_rows(x) for x in groups])
        found, expected = norm(groups), wanted(rows)
        torch.testing.assert_close(torch.cat([as_rows(y) for y in found]), expected)
        assert [y.shape for y in found] == [x.shape for x in groups]
        upstream = random(*expected.shape, seed=5)
        leaves = [*groups, norm.weight, norm.bias]
        theirs = [*groups, wanted.weight, wanted.bias]
        torch.testing.assert_close(
            torch.autograd.grad(torch.cat([as_rows(y) for y in found]), leaves, upstream),
            torch.autograd.grad(expected, theirs, upstream),
        )
    for name in STATE:
        torch.testing.assert_close(getattr(norm, name), getattr(wanted, name))


def test_its_state_is_that_of_batch_norm_2d():
    assert list(BatchNorm(4).state_dict()) == list(nn.BatchNorm2d(4).state_dict())


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("train", [True, False])
def test_input_norm_has_the_feature_order_of_st_gcn(train, momentum):
    n, c, t, v = 3, 2, 4, 5
    norm = randomised(InputNorm(v * c, momentum=momentum)).train(train)
    wanted = nn.BatchNorm1d(v * c, momentum=momentum).double().train(train)
    wanted.load_state_dict(norm.state_dict())
    for step in range(2):
        x = random(n, c, t, v, seed=step)
        expected = wanted(x.permute(0, 3, 1, 2).reshape(n, v * c, t))
        torch.testing.assert_close(norm(x), expected.view(n, v, c, t).permute(0, 2, 3, 1))
    for name in STATE:
        torch.testing.assert_close(getattr(norm, name), getattr(wanted, name))


@pytest.mark.parametrize("train", [True, False])
def test_no_rows_are_no_batch(train):
    for norm, call in ((BatchNorm(4), lambda m, x: m([x, x])), (InputNorm(12), lambda m, x: m(x))):
        norm = randomised(norm).train(train)
        before = copy.deepcopy(norm.state_dict())
        call(norm, torch.zeros(0, 4, 5, 3, dtype=torch.float64))
        torch.testing.assert_close(norm.state_dict(), before)


# Synchronised over processes: rank 0 holds 3 of 4 tracks of layout A and 1 of 3 of layout B.

PARTS = [(slice(0, 3), slice(0, 1)), (slice(3, 4), slice(1, 3))]
A, B = "lsp_14", "umpm_15"


def run_norms(part, group=None):
    """Values, gradients and state of both norms on a share of the batch."""
    found = {}
    for name, norm in (("groups", BatchNorm(4)), ("input", InputNorm(8))):
        norm = randomised(norm)
        synchronise(norm, group)
        shapes = [(4, 4, 5, 7), (3, 4, 3, 2)] if name == "groups" else [(4, 2, 3, 4)]
        shares = list(zip(shapes, part, strict=False))
        xs = [random(*s, seed=i)[p].requires_grad_() for i, (s, p) in enumerate(shares)]
        ys = norm(xs) if name == "groups" else [norm(xs[0])]
        ups = [random(*s, seed=7 + i)[p] for i, (s, p) in enumerate(shares)]
        gradients = torch.autograd.grad(ys, [*xs, norm.weight, norm.bias], ups)
        found[name] = {
            "y": [y.detach() for y in ys],
            "dx": list(gradients[:-2]),
            "dw": list(gradients[-2:]),
            "state": {key: getattr(norm, key) for key in STATE},
        }
    return found


def run_encoder(part, group=None):
    """Features with and without the drop, and the statistics of every norm of an encoder."""
    torch.manual_seed(0)
    model = STGCN([A, B], 2, 4, dropout=0.0).double()
    synchronise(model, group)
    model.process_group = group
    clips = {A: random(4, 3, 8, layouts.get(A).num_joints, 1, seed=1),
             B: random(3, 3, 8, layouts.get(B).num_joints, 1, seed=2)}  # fmt: skip
    outputs = model({n: x[p] for (n, x), p in zip(clips.items(), part, strict=True)}, drop=True)
    values = [[features[name].detach() for name in (A, B)] for features in outputs]
    return {"values": values, "state": dict(model.named_buffers())}


def run_rank(rank: int) -> dict:
    group = dist.group.WORLD
    return run_norms(PARTS[rank], group) | {"encoder": run_encoder(PARTS[rank], group)}


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each of two processes found, in rank order."""
    return run_ranks(__file__, 2, tmp_path_factory.mktemp("ranks"))


def joined(ranks):
    """The parts of a list of tensors, rank after rank."""
    return [torch.cat(parts) for parts in zip(*ranks, strict=True)]


@pytest.mark.parametrize("name", ["groups", "input"])
def test_synchronised_norms_are_those_of_one_process(ranks, name):
    whole = run_norms((slice(None), slice(None)))[name]
    parts = [rank[name] for rank in ranks]
    torch.testing.assert_close(joined([p["y"] for p in parts]), whole["y"])
    torch.testing.assert_close(joined([p["dx"] for p in parts]), whole["dx"])
    summed = [torch.stack(g).sum(0) for g in zip(*[p["dw"] for p in parts], strict=True)]
    torch.testing.assert_close(summed, whole["dw"])
    for part in parts:
        torch.testing.assert_close(part["state"], whole["state"])


def test_a_synchronised_encoder_and_its_drop_are_those_of_one_process(ranks):
    whole = run_encoder((slice(None), slice(None)))
    parts = [rank["encoder"] for rank in ranks]
    for i in range(2):
        torch.testing.assert_close(joined([p["values"][i] for p in parts]), whole["values"][i])
    for part in parts:
        torch.testing.assert_close(part["state"], whole["state"])


if __name__ == "__main__":
    be_a_rank(run_rank)
