"""`precision: auto` and what emulation costs. Nothing here depends on what this machine can do."""

from __future__ import annotations

import importlib
import logging
import time

import pytest
import torch

from msclr.config import Recipe, load_recipe
from msclr.errors import InputError
from msclr.training import precision, pretrain
from msclr.training.checkpoint import load_checkpoint
from msclr.training.precision import choose_precision, emulation_warning, is_native, slowdown
from tests.tiny import tiny_recipe

loop = importlib.import_module("msclr.training.pretrain")  # the package's name for the function
CPU, GPU = torch.device("cpu"), torch.device("cuda:0")


@pytest.fixture
def cpu(monkeypatch):
    """Makes of the CPU one with or without bf16."""
    for variable in ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        monkeypatch.delenv(variable, raising=False)

    def make(avx512_bf16=False, amx=False, capability="AVX512", mkldnn=True, **environment):
        for name, has in (("avx512_bf16", avx512_bf16), ("amx_tile", amx)):
            monkeypatch.setattr(torch.cpu, f"_is_{name}_supported", lambda x=has: x, raising=False)
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: mkldnn)
        for variable, value in environment.items():
            monkeypatch.setenv(variable, value)

    return make


@pytest.mark.parametrize(
    ("machine", "choice"),
    [
        ({}, "fp32"),
        ({"avx512_bf16": True}, "bf16"),
        ({"amx": True}, "bf16"),
        ({"amx": True, "mkldnn": False}, "fp32"),
        ({"amx": True, "capability": "AVX2"}, "fp32"),  # as ATEN_CPU_CAPABILITY=avx2 makes it
        ({"amx": True, "capability": "DEFAULT"}, "fp32"),
        ({"amx": True, "ONEDNN_MAX_CPU_ISA": "AVX2"}, "fp32"),
        ({"amx": True, "ONEDNN_MAX_CPU_ISA": "avx512_core"}, "fp32"),
        ({"amx": True, "ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI"}, "fp32"),
        ({"amx": True, "ONEDNN_MAX_CPU_ISA": "avx512_core_bf16"}, "bf16"),
        ({"amx": True, "ONEDNN_MAX_CPU_ISA": "AVX512_CORE_AMX"}, "bf16"),
        ({"amx": True, "ONEDNN_MAX_CPU_ISA": "ALL"}, "bf16"),
        ({"amx": True, "ONEDNN_MAX_CPU_ISA": ""}, "bf16"),
        ({"amx": True, "DNNL_MAX_CPU_ISA": "AVX2"}, "fp32"),
    ],
    ids=str,
)
def test_auto_on_a_cpu(machine, choice, cpu):
    cpu(**machine)
    assert choose_precision(CPU) == choice
    assert is_native("bf16", CPU) == (choice == "bf16")
    assert is_native("fp32", CPU) and not is_native("fp16", CPU)


def test_a_pytorch_that_does_not_know_its_cpu_has_float32(cpu, monkeypatch):
    cpu(amx=True)
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(torch.cpu, name)
    assert choose_precision(CPU) == "fp32"


@pytest.mark.parametrize(
    ("capability", "choice"),
    [((7, 0), "fp32"), ((7, 5), "fp32"), ((8, 0), "bf16"), ((9, 0), "bf16"), ((12, 0), "bf16")],
)
def test_auto_on_a_gpu(capability, choice, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert choose_precision(GPU) == choice
    assert is_native("fp16", GPU)


def test_other_devices_have_float32():
    assert choose_precision(torch.device("mps")) == "fp32"


def test_the_slowdown_is_measured_within_a_second_and_leaves_the_threads(monkeypatch):
    asked, threads = [], torch.get_num_threads()
    monkeypatch.setattr(precision, "_seconds", lambda name, _: asked.append(name) or len(asked))
    assert slowdown("bf16", CPU) == 0.5 and asked == ["bf16", "fp32"]
    monkeypatch.undo()
    began = time.thread_time()  # of this thread alone, for others may be busy
    assert slowdown("bf16", CPU) > 0
    assert time.thread_time() - began < 1
    assert torch.get_num_threads() == threads


def test_the_warning_names_the_factor_where_emulation_is_slow(cpu, monkeypatch):
    cpu()
    monkeypatch.setattr(precision, "slowdown", lambda *_: 6.21)
    text = emulation_warning("bf16", CPU)
    assert "\n" not in text
    assert text.startswith("bf16 is emulated on this CPU: a small convolution takes 6.2 times as ")
    monkeypatch.setattr(precision, "slowdown", lambda *_: 0.8)
    assert emulation_warning("bf16", CPU) is None


def test_nothing_is_measured_where_the_precision_is_native(cpu, monkeypatch):
    cpu(amx=True)
    monkeypatch.setattr(precision, "slowdown", lambda *_: pytest.fail("measured"))
    assert emulation_warning("bf16", CPU) is None and emulation_warning("fp32", CPU) is None


# In a run


def test_recipes_leave_the_precision_to_the_machine():
    assert Recipe("d", "o").precision == "auto"
    for name in ("ntu60_xsub", "toy", "ui_prmd"):
        assert load_recipe(name).precision == "auto"


@pytest.mark.parametrize("choice", ["bf16", "fp32"])
def test_the_choice_is_said_and_kept(choice, data, tmp_path, cpu):
    cpu(amx=choice == "bf16")
    said = []
    run = pretrain(tiny_recipe(data, tmp_path, steps=1, precision="auto"), say=said.append)
    native = "bf16 is native to" if choice == "bf16" else "no native bf16 on"
    assert f"precision {choice} (auto; {native} this CPU)" in said
    assert load_checkpoint(run / "checkpoint.pt")["recipe"]["precision"] == choice
    assert load_recipe(str(run / "recipe.yaml")).precision == choice


@pytest.mark.parametrize("began", ["bf16", "fp32", "fp16"])
def test_a_resume_on_another_machine_keeps_the_choice(began, data, tmp_path, cpu, monkeypatch):
    monkeypatch.setattr(precision, "slowdown", lambda *_: 3.0)
    pretrain(tiny_recipe(data, tmp_path, steps=4, precision=began))
    state = load_checkpoint(tmp_path / "checkpoint.pt")
    cpu(amx=began != "bf16")
    auto, said = tiny_recipe(data, tmp_path, steps=4, precision="auto"), []
    pretrain(auto, resume=True, say=said.append)
    assert f"precision {began} (auto; as it was when the run began)" in said
    assert load_recipe(str(tmp_path / "recipe.yaml")).precision == began
    run = loop.Pretraining(auto, loop.Ranks(), CPU)
    assert run.begin(resume=True) == 4 and run.recipe.precision == began
    assert run.scaler.state_dict() == state["scaler"]


def test_an_explicit_precision_of_another_kind_than_the_checkpoints_is_refused(data, tmp_path):
    pretrain(tiny_recipe(data, tmp_path, steps=1))
    with pytest.raises(InputError, match="precision='fp32' there, 'bf16' here"):
        pretrain(tiny_recipe(data, tmp_path, steps=1, precision="bf16"), resume=True)


@pytest.mark.parametrize(("chosen", "lines"), [("bf16", 1), ("fp16", 1), ("fp32", 0), ("auto", 0)])
def test_an_emulated_precision_gets_one_line_of_warning(
    chosen, lines, data, tmp_path, cpu, caplog, monkeypatch
):
    cpu()
    monkeypatch.setattr(precision, "slowdown", lambda *_: 6.2)
    with caplog.at_level(logging.WARNING, "msclr"):
        pretrain(tiny_recipe(data, tmp_path, steps=1, precision=chosen))
    warned = [x.getMessage() for x in caplog.records if "emulated" in x.getMessage()]
    assert len(warned) == lines and all("6.2 times as long" in line for line in warned)
