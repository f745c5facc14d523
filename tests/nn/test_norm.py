"""BatchNorm over packed rows is batch norm, and so it is over processes."""

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


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_rows_are_normalised_as_one_batch(momentum, train):
    norm = randomised(BatchNorm(4, momentum=momentum)).train(train)
    wanted = nn.BatchNorm1d(4, momentum=momentum).double().train(train)
    wanted.load_state_dict(norm.state_dict())
    for step in range(2):  # the second shows how running statistics go on
        rows = random(37, 4, seed=step).requires_grad_()
        found, expected = norm(rows), wanted(rows)
        torch.testing.assert_close(found, expected)
        upstream = random(*expected.shape, seed=5)
        torch.testing.assert_close(
            torch.autograd.grad(found, [rows, norm.weight, norm.bias], upstream),
            torch.autograd.grad(expected, [rows, wanted.weight, wanted.bias], upstream),
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
    for norm, shape in ((BatchNorm(4), (0, 4)), (InputNorm(12), (0, 4, 5, 3))):
        norm = randomised(norm).train(train)
        before = copy.deepcopy(norm.state_dict())
        norm(torch.zeros(shape, dtype=torch.float64))
        torch.testing.assert_close(norm.state_dict(), before)


# Synchronised over processes: rank 0 holds 3 of 4 tracks of layout A and 1 of 3 of layout B.

PARTS = [(slice(0, 3), slice(0, 1)), (slice(3, 4), slice(1, 3))]
A, B = "lsp_14", "umpm_15"


def run_norms(part, group=None):
    """Values, gradients and state of both norms on a share of the batch."""
    found = {}
    for name, norm, shape in (
        ("rows", BatchNorm(4), (4, 4)),
        ("input", InputNorm(8), (4, 2, 3, 4)),
    ):
        norm = randomised(norm)
        synchronise(norm, group)
        x, upstream = (random(*shape, seed=seed)[part] for seed in (0, 7))
        x.requires_grad_()
        y = norm(x)
        dx, *dw = torch.autograd.grad(y, [x, norm.weight, norm.bias], upstream)
        state = {key: getattr(norm, key) for key in STATE}
        found[name] = {"y": y.detach(), "dx": dx, "dw": dw, "state": state}
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
    return run_norms(PARTS[rank][0], group) | {"encoder": run_encoder(PARTS[rank], group)}


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each of two processes found, in rank order."""
    return run_ranks(__file__, 2, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("name", ["rows", "input"])
def test_synchronised_norms_are_those_of_one_process(ranks, name):
    whole = run_norms(slice(None))[name]
    parts = [rank[name] for rank in ranks]
    torch.testing.assert_close(torch.cat([p["y"] for p in parts]), whole["y"])
    torch.testing.assert_close(torch.cat([p["dx"] for p in parts]), whole["dx"])
    summed = [torch.stack(g).sum(0) for g in zip(*[p["dw"] for p in parts], strict=True)]
    torch.testing.assert_close(summed, whole["dw"])
    for part in parts:
        torch.testing.assert_close(part["state"], whole["state"])


def joined(ranks):
    """The parts of a list of tensors, rank after rank."""
    return [torch.cat(parts) for parts in zip(*ranks, strict=True)]


def test_a_synchronised_encoder_and_its_drop_are_those_of_one_process(ranks):
    whole = run_encoder((slice(None), slice(None)))
    parts = [rank["encoder"] for rank in ranks]
    for i in range(2):
        torch.testing.assert_close(joined([p["values"][i] for p in parts]), whole["values"][i])
    for part in parts:
        torch.testing.assert_close(part["state"], whole["state"])


if __name__ == "__main__":
    be_a_rank(run_rank)
