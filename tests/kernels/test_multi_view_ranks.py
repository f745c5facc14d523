"""multi_view_info_nce over several processes equals one process with the whole batch."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F

from msclr import kernels
from tests.kernels.multi_view_inputs import BACKENDS, CASES, CLIPS, DIM, VIEWS, arguments
from tests.ranks import be_a_rank, run_ranks


def loss_and_gradients(case, clips, backend, group=None):
    """Loss, and gradients of a shared projection, the temperature and the bank, over some clips."""
    g = torch.Generator().manual_seed(1)
    x = torch.randn(VIEWS, CLIPS, 7, generator=g, dtype=torch.float64)[:, clips]
    projection = torch.randn(7, DIM, generator=g, dtype=torch.float64).requires_grad_()
    temperature = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    bank = arguments()[1].requires_grad_()
    loss = kernels.multi_view_info_nce(
        F.normalize(x @ projection, dim=-1),
        temperature,
        bank=bank if case["bank"] else None,
        pairs=case["pairs"],
        negatives=case["negatives"],
        group=group,
        backend=backend,
    )
    leaves = (projection, temperature, bank) if case["bank"] else (projection, temperature)
    return [loss.detach(), *torch.autograd.grad(loss, leaves)]


def refusal(clips, group):
    try:
        loss_and_gradients(CASES[0], clips, None, group)
    except ValueError as error:
        return str(error)
    return "accepted"


def of_bfloat16(clips, group=None):
    views = arguments()[0].bfloat16()[:, clips].requires_grad_()
    loss = kernels.multi_view_info_nce(views, negatives="batch", group=group)
    return [loss.detach(), *torch.autograd.grad(loss, views)]


GROUPS = {2: [1, 2], 3: [0, 1, 2]}  # size -> ranks


def usable_backends():
    return [backend for backend in BACKENDS if not kernels.backends()[backend]]


def run_rank(rank: int) -> dict:
    """All cases over all ranks and over the last two, and batches of unlike sizes."""
    found = {}
    for size, members in GROUPS.items():
        group = dist.new_group(members)
        if rank in members:
            share = CLIPS // size
            first = share * group.rank()
            clips = slice(first, first + share)
            for backend in usable_backends():
                found[size, backend] = [loss_and_gradients(c, clips, backend, group) for c in CASES]
    found["bfloat16"] = of_bfloat16(slice(2 * rank, 2 * rank + 2), dist.group.WORLD)
    found["uneven"] = refusal(slice(0, rank + 1), dist.group.WORLD)
    found["empty"] = refusal(slice(0, 2 if rank else 0), dist.group.WORLD)
    return {str(key): value for key, value in found.items()}


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each of three processes found, in rank order."""
    return run_ranks(__file__, 3, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("backend", usable_backends())
@pytest.mark.parametrize("case", range(len(CASES)), ids=["view", "batch", "pairs", "one pair"])
@pytest.mark.parametrize("size", GROUPS)
def test_averaged_over_ranks_it_is_one_process_with_the_whole_batch(ranks, size, case, backend):
    members = [ranks[rank][str((size, backend))][case] for rank in GROUPS[size]]
    averages = [torch.stack(part).mean(0) for part in zip(*members, strict=True)]
    whole = loss_and_gradients(CASES[case], slice(None), "reference")
    torch.testing.assert_close(averages, whole)
    assert not torch.isclose(members[0][0], averages[0]), "ranks hold unlike clips"


def test_half_precision_is_gathered_and_summed_in_float32(ranks):
    losses, gradients = zip(*[rank["bfloat16"] for rank in ranks], strict=True)
    loss, gradient = of_bfloat16(slice(None))
    torch.testing.assert_close(torch.stack(losses).mean(), loss)
    torch.testing.assert_close(torch.cat(gradients, dim=1) / 3, gradient, rtol=2**-7, atol=1e-6)


def test_batches_of_unlike_sizes_are_refused_on_every_rank(ranks):
    for rank in ranks:
        assert rank["uneven"].startswith("views ") and "[1, 2, 3]" in rank["uneven"]
        assert rank["empty"].startswith("views ") and "[0, 2, 2]" in rank["empty"]


if __name__ == "__main__":
    be_a_rank(run_rank)
