import pytest
import torch

from msclr.errors import InputError
from msclr.evaluation.metrics import (
    best_class,
    confusion_matrix,
    per_class_accuracy,
    top_k_accuracy,
)

LOGITS = torch.tensor(
    [
        [4.0, 3.0, 2.0, 1.0],  # 0 is best; class 1 is second
        [4.0, 3.0, 2.0, 1.0],  # class 3 is last
        [0.0, 9.0, 5.0, 1.0],  # class 1 is best
        [1.0, 2.0, 3.0, 0.0],  # class 0 is third
    ]
)
LABELS = torch.tensor([1, 3, 1, 0])


@pytest.mark.parametrize(
    ("k", "percent"), [(1, 25.0), (2, 50.0), (3, 75.0), (4, 100.0), (5, 100.0)]
)
def test_top_k_by_hand(k, percent):
    assert top_k_accuracy(LOGITS, LABELS, k) == percent


def test_equal_scores_favour_the_lower_class():
    logits = torch.zeros(5, 5)
    labels = torch.arange(5)
    assert top_k_accuracy(logits, labels, 1) == 20.0
    assert top_k_accuracy(logits, labels, 3) == 60.0


def test_percent_is_exact_where_half_precision_would_round():
    logits = torch.zeros(4099, 2, dtype=torch.float16)
    labels = torch.zeros(4099, dtype=torch.int32)
    labels[0] = 1
    assert top_k_accuracy(logits, labels, 1) == 100.0 * 4098 / 4099


def test_minus_infinity_is_a_score():
    logits = torch.tensor([[float("-inf"), 0.0], [float("-inf"), 0.0]])
    assert top_k_accuracy(logits, torch.tensor([0, 1]), 1) == 50.0


def test_per_class_by_hand():
    logits = torch.eye(4)[[0, 1, 1, 1, 3]]
    labels = torch.tensor([0, 0, 1, 1, 0])
    assert per_class_accuracy(logits, labels, 4) == [pytest.approx(100 / 3), 100.0, None, None]


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (torch.zeros(3), torch.zeros(3).long(), r"logits have shape \(3,\)"),
        (torch.zeros(0, 3), torch.zeros(0).long(), "not empty"),
        (torch.full((2, 3), float("nan")), torch.zeros(2).long(), "NaN"),
        (torch.zeros(2, 3), torch.zeros(3).long(), r"wanted \(2,\)"),
        (torch.zeros(2, 3), torch.zeros(2, 1).long(), r"wanted \(2,\)"),
        (torch.zeros(2, 3), torch.zeros(2), "integer class numbers"),
        (torch.zeros(2, 3), torch.zeros(2).bool(), "integer class numbers"),
        (torch.zeros(2, 3), torch.tensor([0, 3]), r"must lie in 0\.\.2"),
        (torch.zeros(2, 3), torch.tensor([-1, 0]), r"must lie in 0\.\.2"),
    ],
)
def test_bad_input_is_refused(logits, labels, message):
    with pytest.raises(InputError, match=message):
        top_k_accuracy(logits, labels, 1)
    with pytest.raises(InputError, match=message):
        per_class_accuracy(logits, labels, 3)


def test_bad_k_and_class_count_are_refused():
    with pytest.raises(InputError, match="k is 0"):
        top_k_accuracy(LOGITS, LABELS, 0)
    with pytest.raises(InputError, match="4 columns for 5 classes"):
        per_class_accuracy(LOGITS, LABELS, 5)


def test_the_best_class_is_the_one_that_top_1_counts():
    assert best_class(LOGITS).tolist() == [0, 0, 1, 2]
    assert best_class(torch.zeros(3, 4)).tolist() == [0, 0, 0]
    assert best_class(torch.tensor([[1.0, 2.0, 2.0]])).tolist() == [1]


def test_a_confusion_matrix_by_hand():
    matrix = confusion_matrix(torch.tensor([0, 0, 1, 2]), LABELS, 4)
    assert matrix.tolist() == [[0, 0, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]]
    with pytest.raises(InputError, match=r"predicted classes lie in 0..4"):
        confusion_matrix(torch.tensor([4, 0, 0, 0]), LABELS, 4)
