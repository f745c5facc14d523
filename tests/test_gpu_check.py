"""benchmarks/gpu_check.sh without a GPU: its dry run goes through every step."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile

import pytest

from benchmarks.gpu.sweep import changes
from benchmarks.origin import ROOT

SCRIPT = ROOT / "benchmarks" / "gpu_check.sh"
STEPS = {
    "first": ["gpu", "compiler", "machine", "qualification", "operators", "training"],
    "second": ["tests", "memcheck", "racecheck", "sweep", "graph_conv", "info_nce"],
}
SECONDS = {"first": 200, "second": 390}  # that a call may take, of a machine lent for minutes


def run(*arguments, **environment):
    return subprocess.run(
        ["bash", SCRIPT, *map(str, arguments)],
        env=os.environ | {"PYTHON": sys.executable} | environment,
        capture_output=True,
        text=True,
    )


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("call", STEPS)
def test_a_dry_run_goes_through_every_step(call, tmp_path):
    done = run(call, "--dry-run", tmp_path)
    assert done.returncode == 0 and "failed: none" in done.stdout, done.stdout + done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {f"{call}.jsonl", f"{call}.tar.gz"}
    rows = read(tmp_path / f"{call}.jsonl")
    ends = [row for row in rows if "status" in row]
    assert [(row["step"], row["status"]) for row in ends] == [(name, 0) for name in STEPS[call]]
    assert not [row for row in rows if "error" in row]
    measured = {row["step"] for row in rows if "took_s" in row}
    assert measured == {"first": {"machine", "operators", "training"}}.get(call, {"small", "sweep"})
    with tarfile.open(tmp_path / f"{call}.tar.gz") as archive:
        names = set(archive.getnames())
    assert {f"./{name}.log" for name in STEPS[call]} <= names
    assert not any(".tree" in name for name in names), "only what was measured"
    if call == "second":
        assert {"./tests.xml", "./graph_conv.json", "./info_nce.json"} <= names


@pytest.mark.parametrize("call", STEPS)
def test_the_limits_of_the_steps_fit_the_call(call):
    text = SCRIPT.read_text()
    halves = text[text.index("if [[ $call == first ]]") :].split("\nelse\n")
    part = halves[0] if call == "first" else halves[1]
    found = re.findall(r"^  (?:step|measured|sanitized|compared) (\w+) (\d+)", part, re.MULTILINE)
    assert [name for name, _ in found] == STEPS[call]
    assert sum(int(seconds) for _, seconds in found) <= SECONDS[call]


def test_a_step_that_fails_stops_none_behind_it(tmp_path):
    done = run("first", "--dry-run", tmp_path, PYTHON="false")
    rows = read(tmp_path / "first.jsonl")
    assert [(row["step"], row["status"]) for row in rows] == [
        (name, 0 if name in ("gpu", "compiler") else 1) for name in STEPS["first"]
    ]
    assert done.returncode == 4 and "failed: training (status 1)" in done.stdout
    assert (tmp_path / "first.tar.gz").stat().st_size


def test_what_is_asked_wrongly_is_refused():
    assert run("third").returncode == 2 and "got 'third'" in run("third").stderr
    refused = run("first", "--dry-run", ROOT / "benchmarks" / "results" / "new")
    assert refused.returncode == 2 and "published results" in refused.stderr


def test_a_sweep_changes_one_number_at_a_time():
    found = list(changes("BLOCK_D=32,BLOCK_M=16,maxnreg=255,num_stages=1,num_warps=8"))
    assert found == [{"BLOCK_M": 32}, {"num_stages": 2}, {"num_warps": 16}, {"num_warps": 4}]
