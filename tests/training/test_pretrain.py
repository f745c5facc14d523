"""What a run leaves behind, in which order it works, and how it stops."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys

import pytest
import torch
import yaml

from msclr.config import load_recipe
from msclr.errors import DivergedError, InputError
from msclr.evaluation import open_run as open_trained
from msclr.training import Pretraining, pretrain
from msclr.training.checkpoint import load_checkpoint
from msclr.training.distributed import Ranks
from msclr.training.log import read_log
from tests.tiny import LAYOUTS, STEPS_PER_EPOCH, column, tiny_recipe, tree

loop = importlib.import_module("msclr.training.pretrain")  # the package's name for the function


def open_run(recipe):
    return Pretraining(recipe, Ranks(), torch.device("cpu"))


def test_a_run_leaves_recipe_log_events_and_checkpoint(data, tmp_path):
    recipe = tiny_recipe(data, tmp_path / "deep" / "run", steps=2)
    assert pretrain(recipe) == tmp_path / "deep" / "run"
    assert sorted(path.name for path in (tmp_path / "deep" / "run").iterdir()) == [
        "checkpoint.pt",
        "log.csv",
        "recipe.yaml",
        "tensorboard",
    ]
    assert load_recipe(str(tmp_path / "deep" / "run" / "recipe.yaml")) == recipe


@pytest.mark.parametrize("units", ["kept", "from before they were"])
def test_the_checkpoint_says_what_the_clips_were(units, data, tmp_path, monkeypatch):
    run = open_run(tiny_recipe(data, tmp_path))
    if units != "kept":
        monkeypatch.delitem(run.dataset.store.meta, "units")
    run.save(0)
    state = load_checkpoint(tmp_path / "checkpoint.pt")
    assert (state["coordinates"], state["units"]) == ("xyz", "metre")
    assert state["size"] == run.dataset.store.size and set(state["size"]) == set(LAYOUTS)
    assert all(type(value) is float and 0 < value < 10 for value in state["size"].values())


def test_a_planar_data_set_is_kept_as_such(data, tmp_path):
    planar = tmp_path / "planar"
    shutil.copytree(data, planar)
    meta = json.loads((planar / "dataset.json").read_text(encoding="utf-8"))
    meta |= {"coordinates": "xy_score", "units": "pixels, say", "size": dict.fromkeys(LAYOUTS)}
    (planar / "dataset.json").write_text(json.dumps(meta), encoding="utf-8")
    state = load_checkpoint(pretrain(tiny_recipe(planar, tmp_path, steps=1)) / "checkpoint.pt")
    assert (state["coordinates"], state["units"]) == ("xy_score", "pixels, say")
    assert state["size"] == dict.fromkeys(LAYOUTS)


def test_a_checkpoint_from_before_it_said_what_the_clips_were_still_opens(data, tmp_path):
    recipe = tiny_recipe(data, tmp_path / "run", steps=3)
    saved = pretrain(recipe) / "checkpoint.pt"
    state = torch.load(saved, weights_only=True)
    for key in ("coordinates", "units", "size"):
        del state[key]
    torch.save(state, saved)
    assert open_trained(tmp_path / "run").step == 3
    assert len(column(pretrain(recipe, resume=True))) == 3


def test_the_log_has_a_row_a_step_with_its_epoch_and_rate(data, tmp_path):
    recipe = tiny_recipe(
        data, tmp_path / "run", steps=None, epochs=2, milestones=[1], log_every=3, lr=0.5
    )
    rows = read_log(pretrain(recipe) / "log.csv")
    assert [row.step for row in rows] == list(range(1, 2 * STEPS_PER_EPOCH + 1))
    assert [row.epoch for row in rows] == [1] * STEPS_PER_EPOCH + [2] * STEPS_PER_EPOCH
    assert [row.lr for row in rows] == pytest.approx([0.5] * STEPS_PER_EPOCH + [0.05] * 5)
    assert all(0 <= row.contrast_accuracy <= 1 and row.clips_per_second > 0 for row in rows)


def test_the_callback_hears_of_every_step_and_every_record_once(data, tmp_path):
    heard = []
    recipe = tiny_recipe(data, tmp_path / "run", steps=7, log_every=3, checkpoint_every=4)
    pretrain(recipe, on_step=lambda done, steps, records: heard.append((done, steps, records)))
    assert [(done, steps) for done, steps, _ in heard] == [(i, 7) for i in range(1, 8)]
    known = {done: [r.step for r in records] for done, _, records in heard if records}
    assert known == {3: [1, 2, 3], 4: [4], 6: [5, 6], 7: [7]}


def test_checkpoints_fall_on_the_ends_of_epochs_by_default(data, tmp_path):
    def due(**changes):
        run = open_run(tiny_recipe(data, tmp_path, **changes))
        return [step for step in range(1, 13) if run.checkpoint_due(step)]

    assert due(checkpoint_every=None) == [5, 10, 12]
    assert due(checkpoint_every=4) == [4, 8, 12]
    assert due(checkpoint_every=100) == [12]


def test_the_same_seed_gives_the_same_run_and_another_seed_another(data, tmp_path):
    first, again, other = (
        column(pretrain(tiny_recipe(data, tmp_path / name, steps=3, seed=seed)))
        for name, seed in (("first", 1), ("again", 1), ("other", 2))
    )
    assert first == again
    assert not set(first) & set(other)


def test_dropout_differs_from_step_to_step(data, tmp_path):
    run = open_run(tiny_recipe(data, tmp_path))
    states = []
    for step in (0, 0, 1):
        run.step(step)
        torch.manual_seed(loop._step_seed(0, step, 0))
        states.append(torch.rand(3))
    assert states[0].equal(states[1]) and not states[0].equal(states[2])


def test_a_step_trains_every_query_weight_and_moves_keys_and_queue(data, tmp_path):
    run = open_run(tiny_recipe(data, tmp_path, dropout=0.0, lr=0.1))
    before = {k: v.clone() for k, v in run.method.state_dict().items() if torch.is_tensor(v)}
    run.step(0)
    run.step(1)  # the key encoder follows one step behind
    after = run.method.state_dict()
    still = [k for k, v in before.items() if after[k].equal(v)]
    # the bias of a convolution before a batch norm has no effect, its gradient is all rounding
    assert [k for k in still if not k.endswith("bias")] == []


def test_mining_begins_with_its_epoch(data, tmp_path):
    run = open_run(tiny_recipe(data, tmp_path, mining_epoch=1))
    seen = []
    for step in (STEPS_PER_EPOCH - 1, STEPS_PER_EPOCH):
        run.step(step)
        seen.append(run.method.mining)
    assert seen == [False, True]
    never = open_run(tiny_recipe(data, tmp_path, mining_epoch=None))
    never.step(STEPS_PER_EPOCH)
    assert not never.method.mining


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "skeletonclr", "pairs": "batch"},
        {"method": "skeletonclr", "pairs": "all", "optimizer": "adamw", "schedule": "cosine"},
        {"pairs": "all", "stream": "bone", "bodies": "all"},
        {"pairs": "batch", "stream": "motion", "padding": "paper"},
        {"precision": "fp16"},
        {"precision": "bf16", "queue_precision": "bf16", "data_precision": "fp16"},
        {"precision": "bf16", "hidden_channels": 16, "pairs": "batch"},
        {"layouts": ["kinectv1_20"]},
        {"method": "crossclr", "pairs": "batch", "nesterov": True},
        {"method": "crossclr", "pairs": "all", "precision": "bf16", "queue_precision": "bf16"},
        {"method": "multiview", "stream": "bone", "precision": "bf16"},
    ],
    ids=lambda changes: "-".join(map(str, changes.values())),
)
def test_every_kind_of_run_trains(changes, data, tmp_path):
    losses = [float(x) for x in column(pretrain(tiny_recipe(data, tmp_path, steps=3, **changes)))]
    assert len(losses) == 3 and torch.tensor(losses).isfinite().all()
    state = load_checkpoint(tmp_path / "checkpoint.pt")
    assert all(v.isfinite().all() for v in state["method"].values() if torch.is_tensor(v))


def test_bf16_of_few_channels_stays_within_its_memory(data, tmp_path):
    """oneDNN's strided 1x1 convolution writes past its end for some widths; a crash, if it does."""
    recipe = {"steps": 6, "precision": "bf16", "hidden_channels": 4}
    (tmp_path / "recipe.yaml").write_text(
        yaml.safe_dump(vars(tiny_recipe(data, tmp_path / "run", **recipe)))
    )
    command = [sys.executable, "-m", "msclr", "pretrain", str(tmp_path / "recipe.yaml")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-1000:]


def test_fp16_skips_a_step_whose_gradients_overflow(data, tmp_path):
    run = open_run(tiny_recipe(data, tmp_path, precision="fp16"))
    before = [p.clone() for p in run.parameters]
    run.scaler.load_state_dict(run.scaler.state_dict() | {"scale": 2.0**100})
    run.step(0)
    assert all(a.equal(b) for a, b in zip(before, run.parameters, strict=True))
    assert run.scaler.get_scale() == 2.0**99


def test_a_folder_that_holds_a_run_is_refused(data, tmp_path):
    recipe = tiny_recipe(data, tmp_path / "run", steps=1)
    pretrain(recipe)
    before = tree(tmp_path)
    with pytest.raises(InputError, match="holds a run already: add --resume"):
        pretrain(recipe)
    assert tree(tmp_path) == before


def test_a_batch_larger_than_an_epoch_is_refused(data, tmp_path):
    with pytest.raises(InputError, match="batch_size 45 exceeds an epoch of 22 clips x 2 layouts"):
        pretrain(tiny_recipe(data, tmp_path / "run", batch_size=45))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("device", ["gpu0", "cuda:x"])
def test_an_unknown_device_is_refused(device, data, tmp_path):
    with pytest.raises(InputError, match=f"device '{device}' is not known"):
        pretrain(tiny_recipe(data, tmp_path / "run", device=device))


def diverge_at(monkeypatch, step, rate):
    """Give the step, counted from 1, a learning rate of its own."""
    usual = loop.learning_rate
    monkeypatch.setattr(
        loop, "learning_rate", lambda r, s, *rest: rate if s == step - 1 else usual(r, s, *rest)
    )


def test_a_loss_that_is_not_finite_names_step_rate_and_checkpoint(data, tmp_path, monkeypatch):
    undisturbed = pretrain(tiny_recipe(data, tmp_path / "whole"))
    recipe = tiny_recipe(data, tmp_path / "run")
    diverge_at(monkeypatch, 6, float("inf"))
    with pytest.raises(DivergedError) as caught:
        pretrain(recipe)
    saved = tmp_path / "run" / "checkpoint.pt"
    assert str(caught.value) == (
        f"the loss is nan at step 7, learning rate 1e-05; the last good checkpoint is {saved}"
    )
    assert load_checkpoint(saved)["step"] == 4
    assert column(tmp_path / "run")[-1] == "nan"  # the log shows how it ended
    monkeypatch.undo()
    assert column(pretrain(recipe, resume=True)) == column(undisturbed)


def test_a_run_that_diverges_at_once_has_no_checkpoint(data, tmp_path):
    with pytest.raises(DivergedError, match=r"at step \d+, .* 1e\+30; .* does not exist yet"):
        pretrain(tiny_recipe(data, tmp_path / "run", lr=1e30, checkpoint_every=None))
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


def test_weights_that_are_not_finite_never_replace_a_good_checkpoint(data, tmp_path, monkeypatch):
    """The loss of a step is from before its update: it is finite while the weights are not."""
    diverge_at(monkeypatch, 8, float("inf"))  # a step after which a checkpoint is due
    with pytest.raises(DivergedError):
        pretrain(tiny_recipe(data, tmp_path / "run"))
    state = load_checkpoint(tmp_path / "run" / "checkpoint.pt")
    assert all(v.isfinite().all() for v in state["method"].values() if torch.is_tensor(v))
