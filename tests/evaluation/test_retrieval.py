"""Retrieval against a plain version, query by query in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from msclr.data import prepare_arrays
from msclr.errors import InputError
from msclr.evaluation import evaluate_retrieval, open_run, retrieval, retrieve
from msclr.evaluation.splits import features_of
from tests.tiny import FRAMES, LAYOUTS, tiny_clips


def plain(train, train_labels, val, val_labels, ks):
    """Average precisions, and the share of queries with a hit among the first k, by definition."""
    precisions, hits = [], []
    for query, label in zip(val, val_labels, strict=True):
        cosine = [float(query @ x / (np.linalg.norm(query) * np.linalg.norm(x))) for x in train]
        ranked = sorted(range(len(train)), key=lambda i: (-cosine[i], i))
        found, precision = 0, 0.0
        for rank, i in enumerate(ranked, start=1):
            if train_labels[i] == label:
                found += 1
                precision += found / rank
        if found == 0:
            continue
        precisions.append(precision / found)
        hits.append([label in train_labels[ranked[:k]] for k in ks])
    return 100 * np.mean(precisions), 100 * np.mean(hits, axis=0), precisions


@pytest.mark.parametrize("chunk", [64 * 2**20, 40 * 8 * 3])
def test_it_is_the_plain_version(chunk, monkeypatch):
    monkeypatch.setattr(retrieval, "_CHUNK_BYTES", chunk)
    rng = np.random.default_rng(0)
    train_labels, val_labels = rng.integers(0, 5, 40), rng.integers(0, 5, 17)
    middle = rng.normal(size=(5, 8))
    train, val = (middle[x] + rng.normal(size=(len(x), 8)) for x in (train_labels, val_labels))
    ks = (1, 3, 10)
    tensors = (torch.from_numpy(x) for x in (train, train_labels, val, val_labels))
    found = retrieve(*tensors, 5, ks)
    wanted, recall, precisions = plain(train, train_labels, val, val_labels, ks)
    assert found.mean_average_precision == pytest.approx(wanted, abs=1e-10)
    assert found.average_precision.tolist() == pytest.approx(precisions, abs=1e-12)
    assert [found.recall_at[k] for k in ks] == pytest.approx(list(recall), abs=1e-10)
    assert 20 < recall[0] < recall[2] < 100.1 and found.without == 0


def test_by_hand():
    """Relevant at ranks 1 and 3, and at rank 2: (1 + 2/3) / 2 and 1/2."""
    angles = torch.tensor([0.1, 0.2, 0.3])
    train = torch.stack([angles.cos(), angles.sin()], 1)
    val = torch.tensor([[1.0, 0.0], [2.0, 0.0]])
    found = retrieve(train, torch.tensor([0, 1, 0]), val, torch.tensor([0, 1]), 2, (1, 2))
    assert found.average_precision.tolist() == pytest.approx([5 / 6, 1 / 2])
    assert found.first_hit.tolist() == [1, 2] and found.recall_at == {1: 50.0, 2: 100.0}


def test_of_equal_similarities_the_first_clip_ranks_higher():
    same = torch.ones(30, 4)
    labels = torch.tensor([0] * 29 + [1])
    found = retrieve(same, labels, same[:2], torch.tensor([1, 0]), 2, (1,))
    assert found.first_hit.tolist() == [30, 1]


def test_a_query_without_its_class_is_left_out():
    x = torch.eye(3)
    found = retrieve(x[:2], torch.tensor([0, 1]), x, torch.tensor([0, 1, 2]), 3, (1,))
    assert found.mean_average_precision == 100.0 and found.recall_at == {1: 100.0}
    assert found.without == 1 and math.isnan(found.average_precision[2])
    with pytest.raises(InputError, match="no validation clip has a training clip of its class"):
        retrieve(x[:2], torch.tensor([0, 1]), x[2:], torch.tensor([2]), 3)


@pytest.mark.parametrize("ks", [(), (0, 1)])
def test_ranks_below_1_are_refused(ks):
    x, labels = torch.eye(2), torch.tensor([0, 1])
    with pytest.raises(InputError, match="wanted numbers of 1 or more"):
        retrieve(x, labels, x, labels, 2, ks)


def test_a_runs_retrieval_is_that_of_its_frozen_features(run):
    f = features_of(run, LAYOUTS[0])
    wanted = retrieve(*f.split)
    result = evaluate_retrieval(run, LAYOUTS[0])
    assert result["map"] == wanted.mean_average_precision
    assert result["recall_at"] == {str(k): v for k, v in wanted.recall_at.items()}
    assert result["top1"] == result["recall_at"]["1"] and "confusion" not in result


def test_a_class_without_a_train_clip_is_noted(folders, tmp_path):
    clips = tiny_clips((LAYOUTS[0],))
    clips["labels"] = [*clips["labels"][:-1], 2]
    clips["classes"] = ["stand", "hug", "jump"]
    prepare_arrays(tmp_path / "data", **clips, frames=FRAMES)
    notes = evaluate_retrieval(open_run(folders["joint"]), LAYOUTS[0], tmp_path / "data")["notes"]
    assert any(note.startswith("1 of 8 val clips are of a class without") for note in notes)
