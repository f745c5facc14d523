"""The benchmark of whole models runs, times what it says, and its table is made from its file."""

from __future__ import annotations

import json

import pytest
from torch import nn

from benchmarks import runner, stgcn, tables


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(stgcn, "WIDTHS", (16,))
    monkeypatch.setattr(stgcn, "FRAMES", 8)
    return ["--samples", "2", "--rounds", "2", "--device", "cpu"]


def test_it_writes_a_row_for_each_mode_and_the_table_has_each_order(small, tmp_path, monkeypatch):
    result = runner.run(stgcn, [*small, "--out", str(tmp_path / "stgcn-cpu-float32.json")])
    assert json.loads((tmp_path / "stgcn-cpu-float32.json").read_text()) == result
    assert [row["mode"] for row in result["rows"]] == ["eval", "train"]
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    head, *rows = tables.table("stgcn_cpu")
    assert [row[:4] for row in rows] == [
        ["16", "25", mode, order] for mode in ("eval", "train") for order in stgcn.ORDERS
    ]
    seconds = result["rows"][1]["seconds"]
    before, after = (seconds[f"nchw_{when}"]["median"] for when in ("before", "after"))
    assert rows[2][4].startswith(f"{1e3 * before:.1f} (")
    assert rows[2][6] == f"{before / after:.2f}x"
    assert len(head) == 7 and {len(row) for row in rows} == {7}
    assert tables.table("stgcn_cuda") == [["not yet measured"]]


def test_a_model_that_computes_something_else_gets_no_figure(small, tmp_path, monkeypatch):
    def wrong(model: nn.Module):
        model.fc.bias.data += 1
        return accelerate(model)

    accelerate = stgcn.accelerate
    monkeypatch.setattr(stgcn, "accelerate", wrong)
    with pytest.raises(RuntimeError, match="nchw_after computes something else"):
        runner.run(stgcn, [*small, "--out", str(tmp_path / "stgcn.json")])
    assert not (tmp_path / "stgcn.json").exists()
