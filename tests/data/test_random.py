"""Counter-based random numbers of clips: what they depend on, their distributions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from msclr.data.random import ClipRandom
from msclr.kernels import philox

BIG = 0xFFFFFFFF


def draws(clips, epochs=3, seed=5, purpose=2) -> torch.Tensor:
    """What a batch of clips gets from both kinds of draw, one after the other: (B, 8)."""
    random = ClipRandom(torch.as_tensor(clips), epochs, seed, purpose)
    return torch.cat([random.uniform(5), random.integers(3, 2**20)], dim=1)


def test_counter_is_block_clip_epoch_purpose_and_key_is_the_seed():
    seed = (0xABCD << 32) | 0x1234
    random = ClipRandom(torch.tensor([11]), 6, seed, purpose=4)
    for first_block, count in ((0, 6), (2, 4)):  # six words take two blocks, so the next is 2
        blocks = torch.arange(first_block, first_block + -(-count // 4))
        counter = (blocks, *(torch.full_like(blocks, n) for n in (11, 6, 4)))
        words = torch.stack(philox(counter, (0x1234, 0xABCD)), dim=1).flatten()[:count]
        wanted = (words >> 8).double() * 2.0**-24
        torch.testing.assert_close(random.uniform(count)[0].double(), wanted, rtol=0, atol=0)


def test_numbers_of_a_clip_do_not_depend_on_its_batch():
    clips = torch.tensor([4, 0, 9, 4, 2**33 + 1])
    epochs = torch.tensor([1, 1, 5, 2, 1])
    together = draws(clips, epochs)
    for row, (clip, epoch) in enumerate(zip(clips.tolist(), epochs.tolist(), strict=True)):
        assert torch.equal(draws([clip], epoch)[0], together[row])
    order = torch.tensor([3, 1, 4, 0, 2])
    assert torch.equal(draws(clips[order], epochs[order]), together[order])


def test_one_epoch_for_all_clips_equals_the_epoch_of_each():
    assert torch.equal(draws([1, 2, 3], 7), draws([1, 2, 3], torch.tensor([7, 7, 7])))


@pytest.mark.parametrize(
    "other",
    [
        {"clips": [9]},
        {"epochs": 4},
        {"seed": 6},
        {"seed": 5 + 2**32},  # the upper half of the seed counts as well
        {"purpose": 3},
    ],
    ids=["clip", "epoch", "seed", "upper word of the seed", "purpose"],
)
def test_each_part_of_the_counter_changes_the_numbers(other):
    base = draws([8])
    assert not (draws(**{"clips": [8]} | other) == base).any()


def test_a_second_call_gives_new_numbers():
    random = ClipRandom(torch.arange(3), 0, 0)
    assert not (random.uniform(4) == random.uniform(4)).any()


def test_draws_leave_torchs_generator_alone():
    state = torch.get_rng_state()
    draws([1, 2])
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("kind", "distribution"),
    [
        (lambda r: r.uniform(50), stats.uniform(0, 1)),
        (lambda r: r.uniform(50, -0.5, 2.0), stats.uniform(-0.5, 2.5)),
    ],
    ids=["uniform", "uniform of a range"],
)
def test_distribution_over_many_clips(kind, distribution):
    numbers = kind(ClipRandom(torch.arange(2000), 1, 3))
    assert numbers.dtype == torch.float32
    assert stats.kstest(numbers.flatten().double().numpy(), distribution.cdf).pvalue > 0.001


@pytest.mark.parametrize("below", [1, 2, 3, 17])
def test_integers_are_equally_frequent(below):
    numbers = ClipRandom(torch.arange(2000), 1, 3).integers(30, below)
    assert numbers.dtype == torch.int64
    counts = np.bincount(numbers.flatten().numpy(), minlength=below)
    assert len(counts) == below
    assert below == 1 or stats.chisquare(counts).pvalue > 0.001


@pytest.mark.parametrize(
    "pair",
    [
        lambda clips: (ClipRandom(clips, 0, 0), ClipRandom(clips + 1, 0, 0)),
        lambda clips: (ClipRandom(clips, 0, 0), ClipRandom(clips, 1, 0)),
        lambda clips: (ClipRandom(clips, 0, 0), ClipRandom(clips, 0, 1)),
        lambda clips: (ClipRandom(clips, 0, 0), ClipRandom(clips, 0, 0, 1)),
        lambda clips: (lambda r: (r, r))(ClipRandom(clips, 0, 0)),
    ],
    ids=["clips", "epochs", "seeds", "purposes", "calls"],
)
def test_neighbours_are_uncorrelated(pair):
    first, second = pair(torch.arange(0, 20000, 2))
    a, b = first.uniform(4).flatten().numpy(), second.uniform(4).flatten().numpy()
    assert abs(np.corrcoef(a, b)[0, 1]) < 4 / np.sqrt(len(a))  # four standard deviations


@pytest.mark.parametrize("word", [0, BIG])
def test_extreme_words_stay_in_range(monkeypatch, word):
    monkeypatch.setattr(ClipRandom, "_words", lambda self, n: torch.full((1, n), word))
    random = ClipRandom(torch.zeros(1, dtype=torch.int64), 0, 0)
    assert 0 <= random.uniform(1).item() < 1
    assert -0.5 <= random.uniform(1, -0.5, 0.5).item() < 0.5
    assert random.integers(1, 2**31).item() == (0 if word == 0 else 2**31 - 1)


@pytest.mark.parametrize("count", [1, 3, 4, 7])
def test_any_count_can_be_asked_for(count):
    random = ClipRandom(torch.arange(2), 0, 0)
    for numbers in (random.uniform(count), random.integers(count, 2**20)):
        assert numbers.shape == (2, count)
        assert count == 1 or len(numbers[0].unique()) > 1
