import pytest
import torch

from msclr.errors import InputError
from msclr.evaluation.ensemble import STREAM_WEIGHTS, ensemble_logits, rows_by_name

FIRST = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
SECOND = torch.tensor([[5.0, 0.0], [-1.0, 2.0]])


def test_mean_by_hand():
    assert torch.equal(ensemble_logits([FIRST, SECOND]), torch.tensor([[3.0, 1.0], [1.0, 3.0]]))


def test_weighted_sum_by_hand():
    weighted = ensemble_logits([FIRST, SECOND], [0.5, 2.0])
    assert torch.equal(weighted, torch.tensor([[10.5, 1.0], [-0.5, 6.0]]))


def test_streams_are_weighed_as_published():
    streams = {"joint": [[10.0, 0.0]], "bone": [[0.0, 10.0]], "motion": [[1.0, 2.0]]}
    weights = [STREAM_WEIGHTS[name] for name in streams]
    total = ensemble_logits([torch.tensor(each) for each in streams.values()], weights)
    torch.testing.assert_close(total, torch.tensor([[6.4, 6.8]]))


def test_inputs_are_left_alone():
    before = FIRST.clone()
    ensemble_logits([FIRST], [2.0])
    assert torch.equal(FIRST, before)


@pytest.mark.parametrize(
    ("logits", "weights", "message"),
    [
        ([], None, "no logits"),
        ([FIRST, SECOND[:1]], None, r"shapes \[\(2, 2\), \(1, 2\)\]"),
        ([FIRST[0], SECOND[0]], None, "shapes"),
        ([FIRST, SECOND / 0], None, "NaN or infinite"),
        ([FIRST, SECOND], [1.0], "wanted 2 numbers"),
        ([FIRST, SECOND], [1.0, float("nan")], "wanted 2 numbers"),
    ],
)
def test_bad_input_is_refused(logits, weights, message):
    with pytest.raises(InputError, match=message):
        ensemble_logits(logits, weights)


@pytest.mark.parametrize(
    ("names", "wanted", "rows"),
    [
        (["a", "b", "c"], ["c", "a", "b"], [2, 0, 1]),
        (["a", "b"], ["a", "b"], [0, 1]),
        (["a", "a"], ["a", "a"], [0, 1]),  # in the same order no name is needed
    ],
)
def test_clips_are_matched_by_name(names, wanted, rows):
    assert rows_by_name(names, wanted, "mine", "yours") == rows


@pytest.mark.parametrize(
    ("names", "wanted", "message"),
    [
        (["a", "b"], ["b", "c"], "clip 'a' is in mine, not in yours"),
        (["b"], ["b", "c"], "clip 'c' is in yours, not in mine"),
        (["a", "b", "b"], ["b", "a", "b"], "their names repeat"),
        (["a", "b"], ["a", "b", "b"], "their names repeat"),
        (["a", "b", "b"], ["b", "a"], "their names repeat"),
    ],
)
def test_clips_that_cannot_be_matched_are_refused(names, wanted, message):
    with pytest.raises(InputError, match=message):
        rows_by_name(names, wanted, "mine", "yours")
