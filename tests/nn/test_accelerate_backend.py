"""accelerate: which backend the swapped modules will run on."""

from __future__ import annotations

import torch

from benchmarks.plain_stgcn import ConvTemporalGraphical
from msclr import kernels
from msclr.nn import accelerate
from tests.needs import needs_operators
from tests.nn.lookalikes import LambdaBlock

pytestmark = needs_operators


def model():
    return torch.nn.ModuleList([LambdaBlock(4, 4, 3), ConvTemporalGraphical(2, 4, 3)])


def test_the_summary_names_what_will_run(monkeypatch):
    monkeypatch.delenv("MSCLR_BACKEND", raising=False)
    both = {"masked_graph_conv": "cpu", "stgcn_block": "cpu"}
    assert accelerate(model()).backends == accelerate(model().double()).backends == both
    lines = str(accelerate(model())).splitlines()
    assert lines[-2:] == ["  runs     masked_graph_conv on cpu", "  runs     stgcn_block on cpu"]
    assert accelerate(torch.nn.Linear(2, 2)).backends == {}


def test_an_override_is_named_and_does_not_touch_the_trial(monkeypatch):
    monkeypatch.setattr("msclr.kernels._choice.check_override", lambda *_: None)
    with kernels.use_backend("triton"):  # which takes no tensors on a CPU, as the trial's are
        summary = accelerate(model())
    assert summary.blocks == ("0",) and summary.left == {}
    with kernels.use_backend("reference"):
        assert accelerate(model()).backends["masked_graph_conv"] == "reference"


def test_kernels_of_the_models_device_are_prepared(monkeypatch):
    prepared = []
    monkeypatch.setattr(kernels, "prepare", prepared.append)
    accelerate(model())
    assert prepared == [torch.device("cpu")]
