"""Which layouts are contrasted: the range, the frequency and the scope of the pairs drawn."""

from __future__ import annotations

import pytest
import torch

from msclr.methods.pairs import anchored_pairs, draw_pairs, ordered_pairs


def grid(count: int) -> torch.Tensor:
    """The middles of `count` equal parts of [0, 1)."""
    return (torch.arange(count) + 0.5) / count


@pytest.mark.parametrize("layouts", [1, 2, 3, 5])
def test_every_pair_gets_an_equal_part_of_the_unit_interval(layouts):
    query, key = draw_pairs("sample", layouts, 7 * layouts**2, grid)
    found = list(zip(query.tolist(), key.tolist(), strict=True))
    assert sorted(set(found)) == [(i, j) for i in range(layouts) for j in range(layouts)]
    assert all(found.count(pair) == 7 for pair in set(found))


def test_a_batch_draws_one_pair_for_all_its_clips():
    asked = []

    def uniform(count):
        asked.append(count)
        return torch.full((count,), 0.4)  # pair 1 of 0..3

    query, key = draw_pairs("batch", 2, 5, uniform)
    assert asked == [1]
    assert (query.tolist(), key.tolist()) == ([0] * 5, [1] * 5)


def test_samples_draw_a_pair_each():
    draws = torch.tensor([0.0, 0.3, 0.6, 0.8])
    query, key = draw_pairs("sample", 2, 4, lambda count: draws[:count])
    assert (query.tolist(), key.tolist()) == ([0, 0, 1, 1], [0, 1, 0, 1])
    assert query.dtype == key.dtype == torch.int64


def test_the_largest_number_below_one_gives_the_last_pair():
    below = torch.nextafter(torch.tensor([1.0]), torch.tensor([0.0]))
    for layouts in (1, 3, 100):  # (1 - 2**-24) * 100**2 rounds to 100**2 in float32
        query, key = draw_pairs("batch", layouts, 2, lambda count: below)
        assert query.tolist() == key.tolist() == [layouts - 1] * 2


@pytest.mark.parametrize("layouts", [2, 3, 4])
def test_ordered_pairs_are_all_pairs_of_unlike_layouts(layouts):
    i, j = ordered_pairs(layouts, torch.device("cpu"))
    wanted = [(a, b) for a in range(layouts) for b in range(layouts) if a != b]
    assert list(zip(i.tolist(), j.tolist(), strict=True)) == wanted


def test_one_layout_pairs_with_itself():
    i, j = ordered_pairs(1, torch.device("cpu"))
    assert (i.tolist(), j.tolist()) == ([0], [0])


def test_anchored_pairs_have_the_anchor_on_either_side_as_often():
    count = 3 * 2 * 7
    anchor, layouts = torch.full((count,), 1), torch.full((count,), 3)
    query, key = anchored_pairs(anchor, layouts, grid)
    found = list(zip(query.tolist(), key.tolist(), strict=True))
    assert set(found) == {(1, 0), (1, 1), (1, 2), (0, 1), (2, 1)}
    assert {pair: found.count(pair) for pair in set(found)} == {
        (1, 1): 14, (1, 0): 7, (1, 2): 7, (0, 1): 7, (2, 1): 7,
    }  # fmt: skip
    below = torch.nextafter(torch.tensor([1.0]), torch.tensor([0.0]))
    last = anchored_pairs(anchor[:1], layouts[:1], lambda n: below)
    assert [int(x) for x in last] == [2, 1]
