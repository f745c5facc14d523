"""Runs with an encoder for each stream: which one is taken, and their classifiers together."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import msclr
from msclr import cli
from msclr.errors import InputError
from msclr.evaluation import evaluate_ensemble, evaluate_linear, open_run
from msclr.evaluation.ensemble import STREAM_WEIGHTS
from msclr.evaluation.linear import fit_linear
from msclr.evaluation.run import chosen_streams
from msclr.evaluation.splits import features_of
from msclr.nn import load_pretrained
from msclr.training import Pretraining, pretrain
from msclr.training.checkpoint import load_checkpoint
from msclr.training.distributed import Ranks
from tests.tiny import LAYOUTS, tiny_recipe

STREAMS = ["joint", "motion", "bone"]
ALL = "joint+motion+bone"


@pytest.fixture(scope="module")
def folder(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("crossclr") / "run"
    recipe = tiny_recipe(data, out, method="crossclr", cross_epoch=1, steps=6, lr=0.01)
    return pretrain(recipe)


@pytest.fixture
def crossclr(folder):
    return open_run(folder)


def test_embed_takes_the_encoder_of_a_stream(crossclr, folder, data, tmp_path):
    layout, out = LAYOUTS[0], tmp_path / "f.npz"
    command = ["embed", str(folder), str(data), "--layout", layout, "--out", str(out)]
    assert cli.main([*command, "--stream", "bone"]) == 0
    f = features_of(crossclr.of_stream("bone"), layout)
    with np.load(out) as found:
        assert torch.from_numpy(found["features"]).equal(torch.cat([f.train, f.val]))


def test_each_stream_has_the_encoder_that_was_trained_on_it(crossclr, folder):
    state = load_checkpoint(folder / "checkpoint.pt")["method"]
    assert list(crossclr.encoders) == STREAMS and crossclr.encoder is crossclr.encoders["joint"]
    for stream in STREAMS:
        run = crossclr.of_stream(stream)
        assert run.recipe.stream == stream and not run.encoder.training
        for name, value in run.encoder.state_dict().items():
            assert value.equal(state[f"query.{stream}.encoder.{name}"]), name


def test_random_encoders_are_those_from_which_the_run_began(data, tmp_path, folder):
    recipe = tiny_recipe(data, tmp_path, method="crossclr")
    method = Pretraining(recipe, Ranks(), torch.device("cpu")).method
    random = open_run(folder, random=True)
    for stream in STREAMS:
        pairs = zip(
            random.encoders[stream].parameters(),
            method.query[stream].encoder.parameters(),
            strict=True,
        )
        assert all(a.equal(b) for a, b in pairs)


@pytest.mark.parametrize("stream", STREAMS)
def test_features_of_a_stream_come_from_its_encoder(stream, crossclr):
    whole = features_of(crossclr, LAYOUTS[0], stream=stream).val
    assert whole.equal(features_of(crossclr.of_stream(stream), LAYOUTS[0]).val)
    others = [crossclr.encoders[s] for s in STREAMS if s != stream]
    for other in others:
        crossclr.encoders[stream] = other
        assert not features_of(crossclr, LAYOUTS[0], stream=stream).val.equal(whole)


def test_classifiers_of_streams_trained_together_are_those_by_autograd():
    """A linear layer for each stream, the mean of their logits into one cross entropy."""
    source = torch.Generator().manual_seed(0)
    parts = [torch.randn(22, 5, generator=source, dtype=torch.float64) for _ in range(3)]
    labels = torch.randint(0, 4, (22,), generator=source)
    side_by_side = torch.cat(parts, 1) / 3
    found = fit_linear(
        side_by_side, labels, side_by_side, labels, 4, epochs=3, lr=0.5, batch_size=8, classifiers=3
    )
    order = torch.Generator().manual_seed(0)
    start = (0.01 * torch.randn(4, 15, generator=order)).double()
    layers = [torch.nn.Linear(5, 4).double() for _ in range(3)]
    for i, layer in enumerate(layers):
        layer.weight.data = start[:, 5 * i : 5 * i + 5].clone()
        layer.bias.data.zero_()
    parameters = [p for layer in layers for p in layer.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.5, momentum=0.9)

    def logits(rows):
        return torch.stack([f(x[rows]) for f, x in zip(layers, parts, strict=True)]).mean(0)

    for epoch in (1, 2, 3):
        optimizer.param_groups[0]["lr"] = 0.05 if epoch > 2 else 0.5
        for rows in torch.randperm(22, generator=order).split(8):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(logits(rows), labels[rows]).backward()
            optimizer.step()
    torch.testing.assert_close(found.logits, logits(slice(None)).detach(), rtol=1e-9, atol=1e-9)


def test_streams_are_evaluated_alone_and_together(crossclr, folder):
    f = features_of(crossclr, LAYOUTS[0], stream=ALL)
    alone = [features_of(crossclr, LAYOUTS[0], stream=s) for s in STREAMS]
    assert f.streams == 3 and f.val.equal(torch.cat([one.val for one in alone], 1) / 3)
    for stream in ("bone", ALL):
        result = evaluate_linear(crossclr, LAYOUTS[0], stream=stream, epochs=2)
        kept = folder / "evaluation" / f"linear-{LAYOUTS[0]}-{stream}-pretrained-epochs2.json"
        assert json.loads(kept.read_text(encoding="utf-8"))["top1"] == result["top1"]
        assert result["stream"] == stream


def test_an_ensemble_of_one_run_weighs_its_streams(folder, capsys):
    wanted = evaluate_ensemble(chosen_streams(open_run(folder)), epochs=2)
    members = {(m["stream"], m["layout"]): m["weight"] for m in wanted["members"]}
    assert len(members) == 9  # three streams of three layouts
    assert all(weight == STREAM_WEIGHTS[stream] for (stream, _), weight in members.items())
    assert cli.main(["ensemble", str(folder), "--epochs", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["top1"] == wanted["top1"]
    two = ["ensemble", str(folder), "--epochs", "1", "--stream", "bone+joint", "--json"]
    assert cli.main(two) == 0
    found = json.loads(capsys.readouterr().out)["members"]
    assert list(dict.fromkeys(m["stream"] for m in found)) == ["bone", "joint"]


def test_the_command_takes_a_stream(folder, capsys):
    command = ["evaluate", "knn", str(folder), "--layout", LAYOUTS[0], "--json"]
    top1 = {}
    for stream in (None, *STREAMS, ALL):
        assert cli.main([*command, *(["--stream", stream] if stream else [])]) == 0
        result = json.loads(capsys.readouterr().out)
        assert result["stream"] == (stream or "joint")
        top1[stream] = result["by_k"]
    assert top1[None] == top1["joint"]


@pytest.mark.parametrize(
    ("stream", "words"),
    [("bones", "no encoder of stream 'bones', only of joint, motion, bone"),
     ("joint+joint", "names one twice")],
)  # fmt: skip
def test_a_stream_that_is_not_there_is_refused(stream, words, folder, capsys):
    for command in (["evaluate", "linear"], ["ensemble"]):
        assert cli.main([*command, str(folder), "--stream", stream]) == 2
        assert words in capsys.readouterr().err


def test_a_run_of_one_stream_has_no_other(folders, capsys):
    for stream in ("bone", ALL):
        assert cli.main(["evaluate", "linear", str(folders["joint"]), "--stream", stream]) == 2
        assert "has no encoder of stream" in capsys.readouterr().err
    with pytest.raises(InputError, match="no encoder of stream"):
        evaluate_linear(open_run(folders["joint"]), LAYOUTS[0], stream=ALL)


def test_load_pretrained_takes_the_joint_encoder(folder, crossclr):
    loaded, unused = load_pretrained(folder / "checkpoint.pt")
    state = crossclr.encoders["joint"].state_dict()
    assert all(value.equal(state[name]) for name, value in loaded.state_dict().items())
    assert any(key.startswith("query.motion.encoder.") for key in unused)


def test_load_takes_the_encoder_of_a_stream(folder, crossclr):
    for stream in (None, "bone"):
        encoder = msclr.load(folder, stream=stream)
        assert encoder.stream == (stream or "joint")
        state = crossclr.encoders[stream or "joint"].state_dict()
        assert all(value.equal(state[name]) for name, value in encoder.model.state_dict().items())
    with pytest.raises(InputError, match="no encoder of stream 'mot'"):
        msclr.load(folder, stream="mot")
