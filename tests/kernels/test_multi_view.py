"""multi_view_info_nce equals its formula in plain loops, and one process whatever the ranks."""

from __future__ import annotations

import math
from itertools import permutations, product
from operator import mul

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F

from msclr.kernels import multi_view_info_nce
from tests.ranks import be_a_rank, run_ranks

CASES = [
    {"negatives": negatives, "pairs": pairs, "bank": bank}
    for negatives, pairs, bank in [
        ("view", None, False),
        ("batch", None, True),
        ("view", ((0, 2), (2, 1)), True),
    ]
]
VIEWS, CLIPS, DIM = 3, 6, 4  # 6 clips are shared by 2 ranks and by 3


def arguments(views=VIEWS, clips=CLIPS, dim=DIM, bank=5):
    """Normalised views and bank in float64."""
    g = torch.Generator().manual_seed(0)
    shapes = [(views, clips, dim), (bank, dim)]
    return [F.normalize(torch.randn(s, generator=g, dtype=torch.float64), dim=-1) for s in shapes]


def by_loops(views, temperature, bank=None, pairs=None, negatives="view"):
    """The formula of the docstring in Python numbers."""
    views, bank = views.tolist(), [] if bank is None else bank.tolist()
    clips = range(len(views[0]))
    losses = []
    for (i, j), b in product(pairs or list(permutations(range(len(views)), 2)), clips):
        key_views = [j] if negatives == "view" else range(len(views))
        others = [views[v][c] for v in key_views for c in clips if c != b]

        def score(candidate, anchor=views[i][b]):
            return math.exp(sum(map(mul, anchor, candidate)) / temperature)

        positive = score(views[j][b])
        losses.append(-math.log(positive / (positive + sum(map(score, [*others, *bank])))))
    return torch.tensor(sum(losses) / len(losses), dtype=torch.float64)


@pytest.mark.parametrize("with_bank", [False, True])
@pytest.mark.parametrize("pairs", [None, [(0, 1)], [(2, 0), (0, 2), (1, 2)]])
@pytest.mark.parametrize("negatives", ["view", "batch"])
def test_the_loss_is_the_formula(negatives, pairs, with_bank):
    views, bank = arguments()
    options = {"bank": bank if with_bank else None, "pairs": pairs, "negatives": negatives}
    loss = multi_view_info_nce(views, 0.2, **options)
    assert loss.shape == ()
    torch.testing.assert_close(loss, by_loops(views, 0.2, **options))


@pytest.mark.parametrize(("views", "clips", "dim"), [(2, 1, 3), (4, 2, 1), (2, 5, 1000)])
@pytest.mark.parametrize("negatives", ["view", "batch"])
def test_awkward_shapes_are_the_formula(views, clips, dim, negatives):
    z, bank = arguments(views, clips, dim, bank=1)
    loss = multi_view_info_nce(z, bank=bank, negatives=negatives)
    torch.testing.assert_close(loss, by_loops(z, 0.07, bank, negatives=negatives))


@pytest.mark.parametrize("negatives", ["view", "batch"])
def test_a_clip_alone_has_nothing_to_be_told_from(negatives):
    views, _ = arguments(clips=1)
    assert multi_view_info_nce(views, negatives=negatives) == 0


@pytest.mark.parametrize("negatives", ["view", "batch"])
def test_gradients_are_those_of_the_formula(negatives):
    views, bank = arguments(clips=3, dim=2, bank=2)
    for pairs in (None, [(0, 1), (2, 0)]):
        assert torch.autograd.gradcheck(
            lambda v, b, pairs=pairs: multi_view_info_nce(
                v, 0.3, bank=b, negatives=negatives, pairs=pairs
            ),
            (views.requires_grad_(), bank.requires_grad_()),
        )


@pytest.mark.parametrize("negatives", ["view", "batch"])
def test_the_temperature_gets_its_gradient(negatives):
    views, bank = arguments()
    temperature = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    multi_view_info_nce(views, temperature, bank=bank, negatives=negatives).backward()
    step = 1e-5
    above, below = (by_loops(views, t, bank, None, negatives) for t in (0.3 + step, 0.3 - step))
    torch.testing.assert_close(temperature.grad, (above - below) / (2 * step), rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("negatives", ["view", "batch"])
def test_half_precision_views_are_computed_in_float32(dtype, negatives):
    views, bank = (p.to(dtype) for p in arguments())
    with torch.autocast("cpu", torch.bfloat16):
        loss = multi_view_info_nce(views, bank=bank, negatives=negatives)
    exact = multi_view_info_nce(views.float(), bank=bank.float(), negatives=negatives)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, exact)


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("views", {"views": torch.zeros(3, 4)}),
        ("views", {"views": torch.zeros(1, 6, 4)}),
        ("views", {"views": torch.zeros(3, 0, 4)}),
        ("views", {"views": torch.zeros(3, 6, 4, dtype=torch.int64)}),
        ("bank", {"bank": torch.zeros(5, 3)}),
        ("bank", {"bank": torch.zeros(5)}),
        ("bank", {"bank": torch.zeros(5, 4, dtype=torch.float64)}),
        ("temperature", {"temperature": 0.0}),
        ("temperature", {"temperature": torch.ones(2)}),
        ("negatives", {"negatives": "clip"}),
        ("pairs", {"pairs": []}),
        ("pairs", {"pairs": [(0, 1), (1, 1)]}),
        ("pairs", {"pairs": [(0, 3)]}),
        ("pairs", {"pairs": [(-1, 0)]}),
        ("pairs", {"pairs": [(0, 1, 2)]}),
    ],
)
def test_a_wrong_argument_is_named(name, changed):
    views, bank = (p.float() for p in arguments())
    good = {"views": views, "bank": bank}
    multi_view_info_nce(**good)
    with pytest.raises(ValueError, match=rf"^{name} "):
        multi_view_info_nce(**(good | changed))


def loss_and_gradients(case, first, count, group=None):
    """Loss, and gradients of a shared projection and of the bank, over clips of one rank."""
    g = torch.Generator().manual_seed(1)
    x = torch.randn(VIEWS, CLIPS, 7, generator=g, dtype=torch.float64)[:, first : first + count]
    projection = torch.randn(7, DIM, generator=g, dtype=torch.float64).requires_grad_()
    bank = arguments()[1].requires_grad_()
    loss = multi_view_info_nce(
        F.normalize(x @ projection, dim=-1),
        0.2,
        bank=bank if case["bank"] else None,
        pairs=case["pairs"],
        negatives=case["negatives"],
        group=group,
    )
    leaves = (projection, bank) if case["bank"] else (projection,)
    return [loss.detach(), *torch.autograd.grad(loss, leaves)]


def run_rank(rank: int) -> dict:
    """All cases over all ranks and over the first two, and batches of unlike sizes."""
    pair, found = dist.new_group([0, 1]), {}
    for group, size in ((dist.group.WORLD, dist.get_world_size()), (pair, 2)):
        if rank < size:
            share = CLIPS // size
            found[size] = [loss_and_gradients(c, rank * share, share, group) for c in CASES]
    try:
        loss_and_gradients(CASES[0], 0, rank + 1, dist.group.WORLD)
        found["uneven"] = "accepted"
    except ValueError as error:
        found["uneven"] = str(error)
    return found


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each of three processes found, in rank order."""
    return run_ranks(__file__, 3, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("case", range(len(CASES)), ids=["view", "batch", "pairs"])
@pytest.mark.parametrize("size", [2, 3])
def test_averaged_over_ranks_it_is_one_process_with_the_whole_batch(ranks, size, case):
    parts = zip(*[rank[size][case] for rank in ranks[:size]], strict=True)
    averages = [torch.stack(part).mean(0) for part in parts]
    torch.testing.assert_close(averages, loss_and_gradients(CASES[case], 0, CLIPS))
    one_rank = ranks[0][size][case][0]
    assert not torch.isclose(one_rank, averages[0]), "ranks hold unlike clips"


def test_batches_of_unlike_sizes_are_refused_on_every_rank(ranks):
    for rank in ranks:
        assert rank["uneven"].startswith("views ") and "[1, 2, 3]" in rank["uneven"]


if __name__ == "__main__":
    be_a_rank(run_rank)
