"""What a run's operators run on, and what a checkpoint keeps of it."""

from __future__ import annotations

import pytest
import torch

from msclr import kernels
from msclr.config import make_recipe
from msclr.errors import InputError
from msclr.evaluation import open_run
from msclr.evaluation.protocols import features_of
from msclr.kernels import _choice
from msclr.training import backend, pretrain
from msclr.training.backend import fitting, running_on
from msclr.training.checkpoint import load_checkpoint
from tests.tiny import LAYOUTS, tiny_values

CPU = torch.device("cpu")


def what_runs():
    return _choice.forced()


def test_a_recipes_backend_counts_for_the_run_and_no_longer(data, tmp_path, monkeypatch):
    monkeypatch.setenv("MSCLR_BACKEND", "auto")
    values = tiny_values(data, tmp_path / "run", steps=2)
    seen = []
    recipe = make_recipe(values | {"backend": "reference"})
    pretrain(recipe, on_step=lambda *_: seen.append(what_runs()))
    assert seen == ["reference"] * 2 and what_runs() is None
    state = load_checkpoint(tmp_path / "run" / "checkpoint.pt")
    assert state["recipe"]["backend"] == "reference" and state["block_sizes"] == ""

    run = open_run(tmp_path / "run", device="cpu")
    during = []
    run.encoder.register_forward_pre_hook(lambda *_: during.append(what_runs()))
    features_of(run, LAYOUTS[0])
    assert set(during) == {"reference"} and what_runs() is None

    again = make_recipe(values | {"seed": 1, "backend": "auto"})
    with pytest.raises(InputError, match="seed"):  # the backend is free to change, the seed is not
        pretrain(again, resume=True)


@pytest.mark.skipif(not kernels.backends()["cuda"], reason="it can run here")
def test_a_backend_that_cannot_run_is_one_line_before_anything_is_written(
    data, tmp_path, monkeypatch
):
    values = tiny_values(data, tmp_path / "run")
    with pytest.raises(InputError, match="backend 'cuda' cannot run here: needs an NVIDIA GPU"):
        pretrain(make_recipe(values | {"backend": "cuda"}))
    monkeypatch.setenv("MSCLR_BACKEND", "triton")
    with pytest.raises(InputError, match="backend 'triton' cannot run here"):
        pretrain(make_recipe(values))
    assert not (tmp_path / "run").exists()
    with pytest.raises(InputError, match="backend must be one of .*'gpu'"):
        make_recipe(values | {"backend": "gpu"})


def test_a_backend_of_another_device_is_left_to_it(monkeypatch):
    monkeypatch.setattr(_choice, "backends", lambda: dict.fromkeys(_choice.NAMES, ""))
    assert fitting("triton", CPU) == "auto" and fitting("triton", torch.device("cuda")) == "triton"
    assert fitting("cpu", CPU) == "cpu" and fitting("auto", CPU) == "auto"


def test_kernels_are_prepared_unless_the_reference_is_asked_for(monkeypatch):
    prepared = []

    def prepare(device, group=None):
        prepared.append((device, group))

    monkeypatch.setattr(kernels, "prepare", prepare)
    with running_on("auto", CPU, "the ranks"):
        pass
    with running_on("reference", CPU):
        pass
    assert prepared == [(CPU, "the ranks")]


def test_other_block_sizes_are_a_warning(monkeypatch, caplog, tmp_path):
    backend.check_kernels(backend.describe_kernels(), tmp_path)
    backend.check_kernels({}, tmp_path)  # of older versions
    assert not caplog.records
    monkeypatch.setattr(kernels, "block_sizes_hash", lambda: "0123456789ab")
    backend.check_kernels({"block_sizes": ""}, tmp_path)
    (record,) = caplog.records
    assert "block sizes by rule, here they are 0123456789ab" in record.message
