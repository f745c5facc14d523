"""Finetuning: all weights trained on labels, of all train clips or of a share."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from msclr.data import prepare_arrays
from msclr.errors import InputError
from msclr.evaluation import (
    draw_labelled,
    evaluate_finetune,
    evaluate_linear,
    evaluate_semi,
    finetune,
    fit_linear,
    open_run,
)
from msclr.evaluation.finetune import SCHEDULES, Classifier, Schedule, predict
from msclr.evaluation.splits import clips_of, features_of
from msclr.training import pretrain
from tests.tiny import FRAMES, LAYOUTS, TRAIN, UNSEEN, tiny_clips, tiny_recipe, tree

LAYOUT = LAYOUTS[0]
QUICK = {"epochs": 2, "lr": 0.01, "batch_size": 16}


# The draw


def test_a_draw_takes_the_same_share_of_each_class():
    labels = torch.tensor([0] * 200 + [1] * 50 + [3] * 7)[torch.randperm(257)]
    for share, wanted in ((0.1, [20, 5, 0, 1]), (0.01, [2, 1, 0, 1]), (1.0, [200, 50, 0, 7])):
        drawn = draw_labelled(labels, share)
        assert labels[drawn].bincount(minlength=4).tolist() == wanted
        assert drawn.equal(drawn.unique())  # ascending, none twice


def test_a_draw_depends_on_labels_share_and_seed_alone(run):
    labels = torch.arange(400) % 4
    first = draw_labelled(labels, 0.1, seed=3)
    torch.manual_seed(99)
    assert draw_labelled(labels, 0.1, seed=3).equal(first)
    assert not draw_labelled(labels, 0.1, seed=4).equal(first)
    assert set(first.tolist()) < set(draw_labelled(labels, 0.2, seed=3).tolist())


@pytest.mark.parametrize("share", [0, -0.1, 1.01, float("nan")])
def test_a_share_out_of_range_is_refused(share, run):
    with pytest.raises(InputError, match="wanted a share above 0 and at most 1"):
        draw_labelled(torch.zeros(4, dtype=torch.int64), share)
    with pytest.raises(InputError, match="wanted a share above 0 and at most 1"):
        evaluate_semi(run, LAYOUT, share)


def test_semi_trains_on_the_drawn_clips_alone_as_many_steps_as_all_would_take(run, monkeypatch):
    taken = []
    real = finetune.SkeletonDataset.clips

    def clips(self, layout, rows):
        if len(self) == TRAIN:
            taken.append(rows)
        return real(self, layout, rows)

    monkeypatch.setattr(finetune.SkeletonDataset, "clips", clips)
    result = evaluate_semi(run, LAYOUT, 0.3, seed=5, epochs=2, batch_size=8)
    drawn = draw_labelled(torch.arange(TRAIN) % 2, 0.3, 5)
    assert [len(rows) for rows in taken] == [8, 8, 6] * 2
    counts = torch.cat(taken[:3]).bincount(minlength=TRAIN)
    assert counts.nonzero()[:, 0].equal(drawn) and counts[drawn].max() - counts[drawn].min() <= 1
    assert (result["labels"], result["labelled_clips"]) == (0.3, len(drawn)) == (0.3, 6)


# The schedule


def test_the_rate_rises_and_falls_as_in_the_papers():
    rate = [SCHEDULES["semi"].rate(0.1, step, 10) for step in range(600)]
    assert rate[0] == pytest.approx(0.1 / 50) and rate[49] == rate[50] == rate[199] == 0.1
    assert rate[200] == pytest.approx(0.01) and rate[399] == pytest.approx(0.01)
    assert rate[400] == pytest.approx(0.001) == rate[599]
    assert SCHEDULES["finetune"] == (70, 5, (30, 55))
    assert Schedule(70, 5, (30, 55)).scaled(14) == (14, 1, [6, 11])
    assert Schedule(70, 5, (30, 55)).scaled(1) == (1, 0, [0, 1])


# The model


@pytest.mark.parametrize(
    ("layout", "route"),
    [(LAYOUT, "auto"), (UNSEEN, "derive"), (UNSEEN, "attach"), (UNSEEN, "both")],
)
def test_before_training_the_features_are_those_of_the_frozen_encoder(layout, route, run):
    clips = clips_of(run, layout, route=route)
    model = Classifier([run], clips, seed=0)
    wanted = model.heads["joint"](features_of(run, layout, route=route).val)
    torch.testing.assert_close(predict(model, clips.val), wanted, rtol=1e-5, atol=1e-6)


def test_training_is_that_of_a_plain_loop(run, monkeypatch):
    """SGD with Nesterov momentum on the mean cross entropy of one batch, dropout off."""
    run.recipe = replace(run.recipe, dropout=0.0)
    for module in run.encoder.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    models = []
    monkeypatch.setattr(
        finetune, "Classifier", lambda *x: models.append(Classifier(*x)) or models[0]
    )
    result = evaluate_finetune(run, LAYOUT, seed=7, epochs=3, lr=0.05, batch_size=64)
    clips = clips_of(run, LAYOUT)
    plain = Classifier([run], clips, seed=7)
    index = torch.arange(TRAIN)
    x, labels = clips.train.clips(LAYOUT, index), clips.train.labels
    velocity = {}
    for epoch in range(3):
        plain.train()
        loss = F.cross_entropy(plain(x, clips.train.bodies), labels)
        gradients = torch.autograd.grad(loss, plain.parameters(), allow_unused=True)
        rate = 0.05 * 0.1 ** ((epoch >= 1) + (epoch >= 2))  # after 3 * 30 / 70 and 3 * 55 / 70
        with torch.no_grad():
            for (name, p), g in zip(plain.named_parameters(), gradients, strict=True):
                if g is None:
                    continue
                g = g + 1e-4 * p
                velocity[name] = g if name not in velocity else 0.9 * velocity[name] + g
                p -= rate * (g + 0.9 * velocity[name])
    torch.testing.assert_close(
        predict(models[0], clips.val), predict(plain, clips.val), rtol=1e-3, atol=1e-4
    )
    assert result["loss"] == pytest.approx(loss.item(), rel=1e-4)


def test_the_run_stays_as_it_was(run, folders):
    before = {k: v.clone() for k, v in run.encoder.state_dict().items()}
    state, checkpoint = torch.get_rng_state(), (folders["joint"] / "checkpoint.pt").read_bytes()
    evaluate_finetune(run, UNSEEN, route="attach", **QUICK)
    assert torch.get_rng_state().equal(state)
    assert run.encoder.state_dict().keys() == before.keys() and not run.encoder.training
    assert all(value.equal(before[name]) for name, value in run.encoder.state_dict().items())
    assert (folders["joint"] / "checkpoint.pt").read_bytes() == checkpoint


@pytest.fixture(scope="module")
def waves(tmp_path_factory):
    """A run hardly trained, on clips whose joints wave once or twice."""
    rng, time = np.random.default_rng(0), np.linspace(0, 1, FRAMES)[:, None]
    labels, clips = [i % 2 for i in range(96)], []
    for label in labels:
        x = rng.normal(0, 0.15, (1, 1, 17, 3)) + rng.normal(0, 0.02, (1, FRAMES, 17, 3))
        wave = 0.5 * np.sin(2 * np.pi * (1 + label) * time + rng.uniform(0, 6))  # (T, 1)
        x[0, :, :, 1] += wave * np.linspace(-1, 1, 17)
        clips.append(x)
    folder = tmp_path_factory.mktemp("waves")
    prepare_arrays(
        folder / "data", views={LAYOUT: clips}, labels=labels, split=["train"] * 64 + ["val"] * 32,
        classes=["once", "twice"], frames=FRAMES, frame="camera",
    )  # fmt: skip
    size = {"hidden_channels": 4, "hidden_dim": 16, "dropout": 0.0}
    recipe = {"layouts": [LAYOUT], "method": "skeletonclr", "steps": 2, **size}
    return open_run(pretrain(tiny_recipe(folder / "data", folder / "run", **recipe)))


def test_finetuning_learns_what_a_classifier_on_the_frozen_encoder_does_not(waves):
    progress = []
    frozen = evaluate_linear(waves, LAYOUT, lr=3.0)
    tuned = evaluate_finetune(
        waves, LAYOUT, epochs=18, lr=0.02, batch_size=16,
        on_epoch=lambda *news: progress.append(news),
    )  # fmt: skip
    assert frozen["top1"] < 60 and tuned["top1"] > 85
    assert [news[:2] for news in progress] == [(i, 18) for i in range(1, 19)]
    assert ["top-1" in news[2] for news in progress] == [i in (5, 10, 15, 18) for i in range(1, 19)]
    assert tuned["best_epoch"] in (5, 10, 15, 18) and tuned["best_top1"] >= tuned["top1"]


def test_in_bf16_the_loss_is_nearly_that_of_fp32(waves, monkeypatch):
    monkeypatch.setattr(finetune, "is_native", lambda precision, device: True)
    run = replace(waves, recipe=replace(waves.recipe, precision="bf16"))
    options = {"epochs": 1, "batch_size": 16, "lr": 0.01}
    low, high = (evaluate_finetune(one, LAYOUT, **options) for one in (run, waves))
    assert (low["precision"], high["precision"]) == ("bf16", "fp32")
    assert low["loss"] != high["loss"] and low["loss"] == pytest.approx(high["loss"], rel=0.02)


# Results, streams and refusals


def test_a_precision_that_the_device_only_emulates_is_left(run, monkeypatch):
    monkeypatch.setattr(finetune, "is_native", lambda precision, device: precision == "fp32")
    run.recipe = replace(run.recipe, precision="bf16")
    assert evaluate_finetune(run, LAYOUT, **QUICK)["precision"] == "fp32"


def test_results_are_kept_by_protocol_share_and_options(folders):
    run = open_run(folders["joint"])
    kept = folders["joint"] / "evaluation"
    before = tree(kept) if kept.exists() else {}
    results = [
        evaluate_finetune(run, LAYOUT, **QUICK),
        evaluate_semi(run, LAYOUT, 0.1, **QUICK),
        evaluate_semi(run, LAYOUT, 0.5, **QUICK),
        evaluate_semi(run, LAYOUT, 0.5, seed=1, **QUICK),
    ]
    names = sorted(set(tree(kept)) - set(before))
    tail = "seed1-epochs2-lr0.01-batch_size16"
    assert f"semi-{LAYOUT}-joint-pretrained-labels0.5-{tail}.json" in names
    for result in results:
        assert json.loads(Path(result["files"]["json"]).read_text(encoding="utf-8")) == result
    assert len({result["files"]["json"] for result in results}) == 4
    (command,) = {result["command"] for result in results if result["seed"] == 1}
    assert command == (
        f"msclr evaluate semi {run.folder} --layout {LAYOUT} --labels 0.5 --seeds 1 --epochs 2 "
        "--lr 0.01 --batch-size 16"
    )


def test_streams_are_trained_together_on_the_mean_of_their_logits(data, tmp_path):
    recipe = tiny_recipe(data, tmp_path / "run", method="crossclr", cross_epoch=1, steps=2)
    run = open_run(pretrain(recipe))
    every = evaluate_finetune(run, LAYOUT, stream="joint+motion+bone", **QUICK)
    assert every["stream"] == "joint+motion+bone"
    clips = clips_of(run, LAYOUT)
    runs = [run.of_stream(stream) for stream in ("joint", "motion", "bone")]
    model = Classifier(runs, clips, seed=0)
    alone = [
        model.heads[one.recipe.stream](features_of(run, LAYOUT, stream=one.recipe.stream).val)
        for one in runs
    ]
    wanted = torch.stack(alone).mean(dim=0)
    torch.testing.assert_close(predict(model, clips.val), wanted, rtol=1e-5, atol=1e-6)


def test_a_class_without_a_train_clip_is_refused(run, tmp_path):
    clips = tiny_clips((LAYOUT,))
    clips["labels"] = [*clips["labels"][:-1], 2]
    clips["classes"] = ["stand", "hug", "jump"]
    prepare_arrays(tmp_path / "data", **clips, frames=FRAMES)
    with pytest.raises(InputError, match="class 'jump' has val clips and no train clip"):
        evaluate_semi(run, LAYOUT, 0.1, tmp_path / "data")


def test_training_that_diverges_is_refused_and_keeps_nothing(folders):
    run, kept = open_run(folders["joint"]), folders["joint"] / "evaluation"
    before = tree(kept) if kept.exists() else {}
    for epochs in (1, 3):  # the last step's loss is of before it
        with pytest.raises(InputError, match=r"finetuning diverged in epoch \d+: .*lower lr"):
            evaluate_finetune(run, LAYOUT, epochs=epochs, lr=1e30)
    assert (tree(kept) if kept.exists() else {}) == before


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_a_seed_that_no_generator_takes_is_refused(seed, run):
    labels = torch.tensor([0, 1])
    for draw in (
        lambda: evaluate_finetune(run, LAYOUT, seed=seed),
        lambda: evaluate_linear(run, LAYOUT, seed=seed),
        lambda: fit_linear(torch.eye(2), labels, torch.eye(2), labels, 2, seed=seed),
        lambda: draw_labelled(labels, 0.5, seed),
    ):
        with pytest.raises(InputError, match=f"seed is {seed}; wanted a whole number from 0 to"):
            draw()


@pytest.mark.parametrize(("option", "value"), [("epochs", 0), ("lr", -1.0), ("batch_size", 0)])
def test_options_out_of_range_are_refused(option, value, run):
    with pytest.raises(InputError, match=f"finetuning: {option} is {value}"):
        evaluate_finetune(run, LAYOUT, **{option: value})
