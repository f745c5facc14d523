"""The benchmark of whole models runs, times what it says, and its table is made from its file."""

from __future__ import annotations

import json

import pytest
from torch import nn

from benchmarks import options, runner, stgcn, summary, tables


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(stgcn, "WIDTHS", (16,))
    monkeypatch.setattr(stgcn, "FRAMES", 8)
    return ["--samples", "2", "--rounds", "2", "--device", "cpu"]


def test_it_writes_a_row_for_each_mode_and_the_table_has_the_best_ratio(
    small, tmp_path, monkeypatch
):
    result = runner.run(stgcn, [*small, "--out", str(tmp_path / "stgcn-cpu-float32.json")])
    assert json.loads((tmp_path / "stgcn-cpu-float32.json").read_text()) == result
    assert [row["mode"] for row in result["rows"]] == ["eval", "train"]
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    head, *rows = tables.table("stgcn_cpu")
    assert [row[:3] for row in rows] == [["16", "25", mode] for mode in ("eval", "train")]
    found = result["rows"][1]
    seconds = {name: of["median"] for name, of in found["seconds"].items()}
    before, after = (
        min((f"{order}_{when}" for order in stgcn.ORDERS), key=seconds.__getitem__)
        for when in ("before", "after")
    )
    assert (found["best_other"], found["best_ours"]) == (before, after)
    assert found["ratio"] == seconds[before] / seconds[after]
    assert rows[1][-1] == f"{found['ratio']:.2f}x"
    assert rows[1][3].startswith(f"{1e3 * seconds['nchw_before']:.1f} (")
    assert rows[1][6].startswith(f"{1e3 * seconds['channels_last_after']:.1f} (")
    assert len(head) == 8 and {len(row) for row in rows} == {8}
    assert f"ms, {found['ratio']:.2f}x of {before}" in summary.line(found)
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


def test_with_compile_the_compiled_models_take_part_before_only(small, monkeypatch):
    compiled, accelerated, accelerate = [], [], stgcn.accelerate
    monkeypatch.setattr(stgcn, "accelerate", lambda m: accelerated.append(m) or accelerate(m))
    monkeypatch.setattr(stgcn.torch, "compile", lambda model: compiled.append(model) or model)
    args, _ = options.parsed(stgcn, [*small, "--compile"])
    assert runner.file_name(stgcn, args) == "stgcn-cpu-float32-compiled"
    case = stgcn.cases(args)[0]
    part = next(stgcn.parts(case, args))
    others = set(part.runs) - set(part.ours)
    assert others == {f"{o}_before{c}" for o in stgcn.ORDERS for c in ("", "_compiled")}
    assert set(part.runs) == set(case.contestants) and len(compiled) == len(stgcn.ORDERS)
    assert not {id(model) for model in compiled} & {id(model) for model in accelerated}


def test_the_ratio_is_that_of_the_fastest_on_either_side():
    seconds = dict(
        zip((*stgcn.NAMES, *stgcn.COMPILED), (9.0, 4.0, 8.0, 5.0, 7.0, 6.0), strict=True)
    )
    times = {name: {"median": s, "p20": s, "p80": s} for name, s in seconds.items()}
    row = {"width": 16, "V": 25, "mode": "eval", "seconds": times}
    _, cells = tables.stgcn({"rows": [row]})
    assert cells[-1] == "1.50x"  # 6 over 4
