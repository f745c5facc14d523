"""msclr doctor and msclr info: what is said of this machine's kernels."""

from __future__ import annotations

import json

import pytest
import torch

from msclr import cli
from msclr.kernels._qualify import children, store
from tests.needs import needs_operators

pytestmark = needs_operators


@pytest.fixture
def trials(monkeypatch, tmp_path):
    """Trials without processes: all is right, but for what a test sets."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    right = store.Verdict(True, "right, 2.00 times as fast", 1e-6, 2e-6, 1e-3, 2e-3)
    found, asked = {}, []

    def try_all(jobs, device, limits):
        asked.extend((job.subject.partition(":")[2], f) for job in jobs for f in job.families)
        return {
            (job, f): found.get((job.subject.partition(":")[2], f), right)
            for job in jobs
            for f in job.families
        }

    monkeypatch.setattr(children, "try_all", try_all)
    return found, asked


def test_doctor_prints_a_line_an_operator_and_precision(trials, capsys):
    found, asked = trials
    found["INFO_NCE", "half"] = store.Verdict(False, "right, but slower", 1e-3, 4e-3, 3e-3, 2e-3)
    assert cli.main(["doctor", "--device", "cpu"]) == 0
    out, err = capsys.readouterr()
    assert err.count("\n") == 1 and "trying the kernels on" in err
    rows = [line.split() for line in out.splitlines()]
    right = ["cpu", "*", "1.0e-06", "of", "2.0e-06", "1", "2", "right,", "2.00"]
    assert ["masked_graph_conv", "single", *right] in [row[:11] for row in rows]
    slower = next(row for row in rows if row[:2] == ["info_nce", "half"])
    assert " ".join(slower[2:]) == "cpu * 1.0e-03 of 4.0e-03 3 2 right, but slower"
    assert ["augment", "double"] not in [row[:2] for row in rows], "it has none"
    assert ["backend", "reference", "can", "run", "here"] in rows

    count = len(asked)
    assert cli.main(["doctor", "--device", "cpu"]) == 0
    assert len(asked) == count and "trying" not in capsys.readouterr().err
    assert cli.main(["doctor", "--device", "cpu", "--again"]) == 0
    assert len(asked) == 2 * count


@pytest.mark.parametrize(
    "verdict",
    [
        store.Verdict(False, "wrong: x of 'two' in float32: off by 1.0e+00"),
        store.Verdict(False, "its process died (SIGSEGV) at 'two' in float32"),
        store.Verdict(False, "it hung: 60 s without an end at 'two' in float32"),
    ],
)
def test_doctor_ends_with_1_where_something_is_wrong(verdict, trials, capsys):
    found, _ = trials
    found["BLOCK", "single"] = verdict
    assert cli.main(["doctor", "--device", "cpu", "--json"]) == 1
    printed = json.loads(capsys.readouterr().out)
    (row,) = [r for r in printed["verdicts"] if r["verdict"] == verdict.reason]
    assert row["operator"] == "stgcn_block" and not row["qualified"] and row["runs"]
    assert printed["device"] == "cpu" and printed["backends"]["cpu"] == ""


def test_doctor_refuses_a_device_and_an_environment_that_are_not_there(trials, capsys, monkeypatch):
    if not torch.cuda.is_available():
        assert cli.main(["doctor", "--device", "cuda"]) == 2
        assert "torch sees no GPU" in capsys.readouterr().err
    monkeypatch.setenv("MSCLR_BACKEND", "trition")
    for command in ("doctor", "info"):
        assert cli.main([command]) == 2
        out, err = capsys.readouterr()
        assert out == "" and "MSCLR_BACKEND must be one of" in err.splitlines()[-1]


def test_info_says_what_would_run(capsys, monkeypatch):
    monkeypatch.delenv("MSCLR_BACKEND", raising=False)
    assert cli.main(["info"]) == 0
    assert f"{'runs on cpu':18}info_nce: cpu" in capsys.readouterr().out.splitlines()
    monkeypatch.setenv("MSCLR_BACKEND", "reference")
    assert cli.main(["info", "--json"]) == 0
    runs = json.loads(capsys.readouterr().out)["would_run"]["cpu"]
    assert runs["stgcn_block"] == dict.fromkeys(("half", "single", "double"), "reference")
