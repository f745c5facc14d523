"""Steps that are captured and replayed; without a GPU, by a stand-in that calls them again."""

from __future__ import annotations

import pytest
import torch

from msclr.errors import InputError
from msclr.training import Pretraining
from msclr.training.distributed import Ranks
from msclr.training.graph import why_no_graphs
from tests.tiny import tiny_recipe
from tests.training.runs import flat

CPU, GPU = torch.device("cpu"), torch.device("cuda")


class Again:
    """Captures by remembering what to call; it reads what was captured, as a graph does."""

    def __init__(self, problem: str | None = None):
        self.problem, self.warm, self.captured, self.replayed = problem, 0, 0, 0

    def warm_up(self, run):
        self.warm += 1
        return run()

    def capture(self, run):
        if self.problem:
            raise RuntimeError(self.problem)
        self.captured += 1

        def replay():
            self.replayed += 1
            return run()

        return replay


def trained(data, out, recorder=None, **changes):
    """The records and the state of a run of twelve steps."""
    recipe = tiny_recipe(data, out, lr=1e-3, **changes)
    run = Pretraining(recipe, Ranks(), CPU, recorder)
    if recorder is None:
        run.views.buckets = recipe.bodies
    for step in range(12):
        run.step(step)
    records = run.take_records()
    run.save(12)
    state = torch.load(out / "checkpoint.pt", weights_only=True)
    run.close()
    return run, records, flat({key: state[key] for key in ("method", "optimizer", "scaler")})


def assert_same(found, wanted):
    """To rounding: the rate is float32 in memory, and what is 0 but for rounding has none."""
    for ours, theirs in zip(found[1], wanted[1], strict=True):
        assert ours[:2] == theirs[:2] and ours.lr == theirs.lr
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-5)
    assert found[2].keys() == wanted[2].keys()
    for key, value in wanted[2].items():
        if torch.is_tensor(value) and value.is_floating_point():
            largest = value.abs().max().item() if value.numel() else 0
            limit = {"rtol": 0, "atol": 1e-4 * largest + 1e-6}
            torch.testing.assert_close(found[2][key], value, **limit, msg=key)
        elif not torch.is_tensor(value):
            assert found[2][key] == pytest.approx(value), key


KINDS = [
    {"method": "aimclr", "pairs": "batch"},  # mines from the second epoch on: two phases
    {"method": "skeletonclr", "pairs": "batch", "optimizer": "adamw"},
    {"method": "crossclr", "pairs": "sample", "cross_epoch": 1},
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind["method"])
def test_replayed_steps_are_those_that_run_as_they_are(kind, data, tmp_path, monkeypatch):
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    recorder = Again()
    replayed = trained(data, tmp_path / "a", recorder, **kind)
    assert recorder.captured >= 1 and recorder.replayed >= 2 and recorder.warm >= 3
    assert recorder.warm + recorder.replayed == 12
    monkeypatch.setattr("msclr.training.graph._WARM_UP", 99)
    never = Again()
    wanted = trained(data, tmp_path / "b", never, **kind)
    assert never.warm == 12
    assert [r[:-1] for r in replayed[1]] == [r[:-1] for r in wanted[1]]  # all but the speed
    for key, value in wanted[2].items():
        same = torch.equal if torch.is_tensor(value) else lambda a, b: a == b
        assert same(replayed[2][key], value), key
    pointers = [value for key, value in replayed[2].items() if key.endswith("/pointer")]
    assert pointers and set(pointers) == {12 * 8 % 13}
    lr = [value for key, value in replayed[2].items() if key.endswith("/lr")]
    assert lr and all(type(value) is float for value in lr)


def test_a_capture_that_fails_costs_a_line_and_nothing_else(data, tmp_path, caplog):
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    recorder = Again("operation not permitted\nwhen a stream is capturing")
    found = trained(data, tmp_path / "a", recorder, pairs="batch")
    (record,) = [r for r in caplog.records if r.name == "msclr.training.graph"]
    assert record.message.endswith("could not be captured: operation not permitted")
    run = found[0]
    assert run.graphs is None and run.views.buckets is None and recorder.captured == 0
    assert_same(found, trained(data, tmp_path / "b", pairs="batch"))


def test_a_recipe_has_graphs_only_where_they_can_be(tmp_path):
    recipe = tiny_recipe(tmp_path, tmp_path)
    assert why_no_graphs(recipe, GPU, 1, 1) is None
    assert "the device is cpu" in why_no_graphs(recipe, CPU, 1, 1)
    assert "there are 2" in why_no_graphs(recipe, GPU, 2, 1)
    assert "there are 3" in why_no_graphs(recipe, GPU, 1, 3)
    paper = tiny_recipe(tmp_path, tmp_path, padding="paper")
    assert "padding=none" in why_no_graphs(paper, GPU, 1, 1)
    off = tiny_recipe(tmp_path, tmp_path, cuda_graph="off")
    assert "cuda_graph=off" in why_no_graphs(off, GPU, 1, 1)
    on = tiny_recipe(tmp_path, tmp_path, cuda_graph="on")
    assert why_no_graphs(on, GPU, 1, 1) is None
    with pytest.raises(InputError, match="cuda_graph=on, but .* the device is cpu; use auto"):
        why_no_graphs(on, CPU, 1, 1)
