"""Each benchmark runs on tiny sizes, and its result is what the tables and summaries read."""

from __future__ import annotations

import json
import re

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import machine, origin, runner, summary, tables

SMALL = {"queue_size": 8, "hidden_channels": 4, "hidden_dim": 16, "embedding_dim": 16}
STEP = {"DIM": 32, "PAIRS": [("kinectv2_25", "smplx_42")], "PLAIN": ("padded", "exact")}
STEP["_in_a_process"] = lambda *_: 10**6
# Name -> options, constants of its module that make it tiny, and how many rows that gives.
TINY = {
    "data read": ("--files 2 --frames 3", {}, 1),
    "data prepare": ("--files 4 --frames 14 --sample 2 --workers 1", {}, 1),
    "data batches": ("--batch 4 --frames 10 --layouts kinectv2_25 --device cpu", {"CLIPS": 8}, 1),
    "data step": ("--batch 2 --clips 8 --device cpu", {"CHANGES": SMALL}, 1),
    "graph_conv": ("--samples 2 --joints 25 mixed --device cpu", {"SHAPES": [(3, 4, 5)]}, 2),
    "info_nce": ("--sizes 4x32 --dim 8 --device cpu", {}, 2),
    "multi_view": ("--clips 8 --dim 8 --device cpu", {}, 2),
    "stgcn": ("--samples 2 --device cpu", {"WIDTHS": (16,), "FRAMES": 8}, 2),
    "step": ("--clips 2 --frames 8", STEP, 1),
    "predict": ("--clips 8 --frames 8", {"QUEUE": 64}, 2),
    "toy_supervised": ("--epochs 1", {"CLIPS": 80}, 1),
}
TABLES = {
    "data read": tables.data_read,
    "data prepare": tables.data_prepare,
    "data batches": tables.data_batches,
    "data step": tables.data_step,
    **{name: getattr(tables, name) for name in TINY if not name.startswith("data ")},
}
ORIGIN = {"device", "cpu", "threads", "malloc", "python", "torch", "msclr", "commit", "took_s"}


def test_every_benchmark_is_run_here():
    assert set(TINY) == set(command.NAMES)


@pytest.mark.parametrize("name", TINY)
def test_a_result_holds_what_its_readers_want(name, tmp_path, monkeypatch, capsys):
    options, constants, count = TINY[name]
    module = command.load(name)
    for constant, value in constants.items():
        monkeypatch.setattr(module, constant, value)
    monkeypatch.setattr(machine, "ceilings", lambda *_: {"copy_gb_s": 9.0, "gemm_gflop_s": 99.0})
    rounds = ["--rounds", "2"] if module.SETUP.rounds else []
    out = tmp_path / "result.json"
    assert command.main([*name.split(), *options.split(), *rounds, "--out", str(out)]) == 0
    printed, errors = capsys.readouterr()
    assert f"written to {out}" in errors

    result = json.loads(out.read_text())
    assert set(result) >= ORIGIN and result["benchmark"] == name.replace(" ", "_")
    assert result["rounds"] == (2 if rounds else 0)
    assert len(result["rows"]) == len(printed.splitlines()) == count
    assert printed.splitlines() == list(summary.lines(result))
    for row in result["rows"]:
        for part in (row[key] for key in ("forward", "forward_backward") if key in row):
            assert set(part) >= {"best_other", "ratio", "gflop_s", "gemm_share"}
            assert set(part["seconds"]) == set(part["peak_extra_bytes"]) >= {"ours"}
        if rounds:
            assert re.search(r"\d\.\d\dx", summary.line(row))
    head, *lines = TABLES[name](result)
    assert lines and {len(line) for line in lines} == {len(head)}


def test_json_alone_goes_to_stdout(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(machine, "ceilings", lambda *_: {"gemm_gflop_s": 99.0})
    options = "info_nce --sizes 4x32 --dim 8 --loss plain --rounds 2 --device cpu --json --out"
    assert command.main([*options.split(), str(tmp_path / "result.json")]) == 0
    assert json.loads(capsys.readouterr()[0]) == json.loads((tmp_path / "result.json").read_text())


def test_without_out_a_dated_file_in_build_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(origin, "ROOT", tmp_path)
    for _ in range(2):
        assert command.main(["data", "read", "--files", "1", "--frames", "2", "--rounds", "2"]) == 0
    files = list(tmp_path.rglob("*.json"))
    assert {str(file.parent.relative_to(tmp_path)) for file in files} == {"build/benchmarks"}
    assert all(re.fullmatch(r"data_read-cpu-\d{8}-\d{6}\.json", file.name) for file in files)
    assert json.loads(files[0].read_text())["commit"] == "unknown"  # tmp_path is no git tree


def test_data_alone_runs_its_four_topics():
    four = ["data read", "data prepare", "data batches", "data step"]
    assert command.chosen(["data"]) == four
    assert command.chosen(["data", "step", "--rounds", "2"]) == ["data step"]


def test_help_lists_the_benchmarks_with_their_durations(capsys):
    assert command.main(["--help"]) == 0
    text = capsys.readouterr()[0]
    for name in command.NAMES:
        assert re.search(rf"^  {name} +\d+ minutes? +\w", text, re.MULTILINE)


@pytest.mark.parametrize("name", TINY)
def test_help_of_each_says_how_long_it_takes(name, capsys):
    with pytest.raises(SystemExit, match="0"):
        command.main([*name.split(), "--help"])
    text = " ".join(capsys.readouterr()[0].split())
    assert f"about {command.load(name).SETUP.takes} on two cores" in text and "--out" in text


def test_in_each_round_every_contestant_runs_once():
    log = []
    runs = {name: lambda name=name: log.append(name) for name in "abc"}
    machine.side_by_side(runs, torch.device("cpu"), rounds=3)
    assert "".join(log) == "abc" * (3 + machine.WARM_UP)


@pytest.mark.parametrize("values", [[1.0, 9.0], [3.0, 1.0, 2.0], [2.0] * 7 + [90.0]])
def test_the_spread_lies_within_what_was_measured(values):
    spread = machine.spread(values)
    assert min(values) <= spread["p20"] <= spread["median"] <= spread["p80"] <= max(values)


@pytest.mark.parametrize("other", [[1.0, 2.1], [1.0, float("nan")], [1.0, float("inf")]])
def test_a_contestant_that_computes_something_else_gets_no_figure(other):
    found = {"ours": [torch.tensor([1.0, 2.0])], "theirs": [torch.tensor(other)]}
    with pytest.raises(RuntimeError, match="theirs computes something else than ours"):
        runner.alike(found, 1e-2)
    runner.alike(found | {"theirs": [torch.tensor([1.0, 2.001])]}, 1e-2)


CPUINFO = """processor\t: 0
model name\t: Some CPU: 9
flags\t\t: fpu avx2 avx512f avx512_bf16x amx_tile

processor\t: 1
model name\t: Another
flags\t\t: fpu
"""


def test_the_cpu_is_named_with_its_instruction_set(tmp_path, monkeypatch):
    (tmp_path / "cpuinfo").write_text(CPUINFO)
    monkeypatch.setattr(origin, "CPUINFO", tmp_path / "cpuinfo")
    for name in origin.LIMITS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MSCLR_CPU_ISA", "portable")
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=0")
    found = origin.describe(torch.device("cpu"))
    assert found["device"] == found["cpu"]["model"] == "Some CPU: 9"
    assert found["cpu"]["flags"] == ["avx2", "avx512f", "amx_tile"]
    assert found["cpu"]["capability"] == torch.backends.cpu.get_cpu_capability()
    assert found["cpu"]["environment"] == {"MSCLR_CPU_ISA": "portable"}
    assert found["malloc"] == "glibc.malloc.hugetlb=0"
    assert found["threads"] == torch.get_num_threads()


def test_a_cpu_without_cpuinfo_has_a_name_as_well(tmp_path, monkeypatch):
    monkeypatch.setattr(origin, "CPUINFO", tmp_path / "absent")
    found = origin.describe_cpu()
    assert found["model"] and found["flags"] == []
