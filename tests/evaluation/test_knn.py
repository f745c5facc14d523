import importlib
import math

import pytest
import torch

from msclr.errors import InputError
from msclr.evaluation.features import collapse_note
from msclr.evaluation.knn import knn

knn_module = importlib.import_module("msclr.evaluation.knn")  # the package has a function knn


def brute_force(train, train_labels, val, val_labels, k):
    """A loop over clips and classes in plain Python."""
    hits = 0
    for query, truth in zip(val.tolist(), val_labels.tolist(), strict=True):
        ranked = []
        for row, label in zip(train.tolist(), train_labels.tolist(), strict=True):
            dot = sum(a * b for a, b in zip(query, row, strict=True))
            ranked.append((dot / math.hypot(*query) / math.hypot(*row), label))
        nearest = [label for _, label in sorted(ranked, reverse=True)[:k]]
        most = max(map(nearest.count, nearest))
        hits += truth == next(label for label in nearest if nearest.count(label) == most)
    return 100 * hits / len(val)


def random_split(train=60, val=37, dim=5, classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, dim, generator=generator, dtype=torch.float64)
    parts = []
    for clips in (train, val):
        labels = torch.randint(classes, (clips,), generator=generator)
        noise = torch.randn(clips, dim, generator=generator, dtype=torch.float64)
        scale = 0.1 + 5 * torch.rand(clips, 1, generator=generator, dtype=torch.float64)
        parts += [(centres[labels] + noise) * scale, labels]  # lengths differ: only angles count
    return parts


@pytest.mark.parametrize("chunk_bytes", [1, 5000, 2**26])
def test_equals_a_loop(monkeypatch, chunk_bytes):
    monkeypatch.setattr(knn_module, "_CHUNK_BYTES", chunk_bytes)
    split = random_split()
    ks = (1, 2, 5, 20, 60)
    expected = {k: brute_force(*split, k) for k in ks}
    assert len(set(expected.values())) > 2  # or the comparison would show little
    assert knn(*split, 4, ks) == pytest.approx(expected)


def test_equal_votes_go_to_the_nearer_class():
    angles = torch.tensor([0.1, 0.2, 0.3, 0.4])
    train = torch.stack([angles.cos(), angles.sin()], dim=1)
    labels = torch.tensor([2, 0, 0, 2])  # from angle 0: 2, 0, 0, 2
    val = torch.tensor([[1.0, 0.0]])
    assert knn(train, labels, val, torch.tensor([2]), 3, (1, 2, 4)) == {
        1: 100.0,
        2: 100.0,
        4: 100.0,
    }
    assert knn(train, labels, val, torch.tensor([0]), 3, (1, 3)) == {1: 0.0, 3: 100.0}


def nearly_coincident(clips, seed):
    """Features in float32 whose cosines differ from 1 by some 1e-8, and so does their class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(clips) % 4
    centres = torch.eye(4, 16)[labels]
    return 1 + 1e-4 * (centres + 0.1 * torch.randn(clips, 16, generator=generator)), labels


def test_features_that_nearly_coincide_are_distinguished():
    assert knn(*nearly_coincident(80, 0), *nearly_coincident(40, 1), 4) == {1: 100.0, 20: 100.0}


def test_features_that_nearly_coincide_are_noted():
    note = collapse_note(nearly_coincident(80, 0)[0])
    assert "features nearly coincide" in note and "collapsed" in note
    assert collapse_note(torch.ones(5, 3)) is not None
    assert collapse_note(random_split()[0]) is None
    # Of a mean cosine of 0.998: half the clips point one way, half another.
    angle = math.acos(2 * 0.998 - 1)
    two = torch.tensor([[1.0, 0.0], [math.cos(angle), math.sin(angle)]])
    assert collapse_note(two) is None
    angle = math.acos(2 * 0.9995 - 1)
    two = torch.tensor([[1.0, 0.0], [math.cos(angle), math.sin(angle)]])
    assert "below 1 by 0.0005" in collapse_note(two)


def test_no_matrix_of_similarities_exceeds_the_chunk(monkeypatch):
    monkeypatch.setattr(knn_module, "_CHUNK_BYTES", 60 * 8 * 10)
    rows = []
    vote = knn_module._vote
    monkeypatch.setattr(
        knn_module, "_vote", lambda near, classes: rows.append(len(near)) or vote(near, classes)
    )
    knn(*random_split(), 4, (1,))
    assert rows == [10, 10, 10, 7]


def test_default_is_1_and_20():
    assert list(knn(*random_split(), 4)) == [1, 20]


@pytest.mark.parametrize("ks", [(), (0, 1), (1, 61)])
def test_bad_k_is_refused(ks):
    with pytest.raises(InputError, match=r"wanted numbers in 1\.\.60"):
        knn(*random_split(), 4, ks)


def test_bad_data_is_refused():
    train, train_labels, val, val_labels = random_split()
    with pytest.raises(InputError, match="5 columns and val features 4"):
        knn(train, train_labels, val[:, :4], val_labels, 4)
    with pytest.raises(InputError, match="train labels lie in"):
        knn(train, train_labels, val, val_labels, 2)
    with pytest.raises(InputError, match="train features hold NaN"):
        knn(train * float("nan"), train_labels, val, val_labels, 4)
