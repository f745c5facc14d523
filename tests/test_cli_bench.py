"""`msclr bench`: the benchmarks of a checkout, and of an installed package."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from msclr.cli import bench, main

ROOT = Path(__file__).resolve().parents[1]


def test_benchmarks_are_listed_with_how_long_each_takes(capsys):
    assert main(["bench"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("usage: msclr bench NAME [options]")
    line = next(x for x in said.splitlines() if x.split()[:1] == ["graph_conv"])
    assert "minute" in line


@pytest.mark.parametrize(
    ("given", "wanted"),
    [(["no_such"], "no benchmark of the name"), (["graph_conv", "--no-such"], "--no-such")],
)
def test_a_bad_name_or_option_is_one_line(given, wanted, capsys):
    assert main(["bench", *given]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert wanted in line


def test_options_go_to_the_benchmark(monkeypatch):
    from benchmarks import __main__ as command

    asked = []
    monkeypatch.setattr(command, "run", lambda module, argv: asked.append((module, argv)))
    assert main(["bench", "graph_conv", "--rounds", "2", "--json"]) == 0
    ((module, argv),) = asked
    assert module.__name__ == "benchmarks.graph_conv" and argv == ["--rounds", "2", "--json"]


def test_a_wheel_writes_to_the_folder_that_one_is_in(monkeypatch, tmp_path, capsys):
    from benchmarks import __main__ as command

    asked = []
    monkeypatch.setattr(command, "run", lambda module, argv: asked.append(argv))
    monkeypatch.setattr(bench, "_installed", lambda: tmp_path)
    monkeypatch.setattr(bench, "_benchmarks", lambda: command)
    assert main(["bench", "graph_conv", "--json"]) == 0
    assert main(["bench", "graph_conv", "--out", "x.json"]) == 0
    first, second = asked
    assert first[:2] == ["--json", "--out"] and first[2].startswith("graph_conv-")
    assert second == ["--out", "x.json"]
    for name in ("accuracy", "data"):
        assert main(["bench", name]) == 2 and "needs a checkout" in capsys.readouterr().err


def test_benchmarks_run_from_where_a_wheel_has_them(tmp_path):
    """Without tests/ next to them: those that need it are left out of the list."""
    ignore = shutil.ignore_patterns("results", "__pycache__")
    shutil.copytree(ROOT / "benchmarks", tmp_path / "benchmarks", ignore=ignore)
    code = f"import sys; sys.path = [p for p in sys.path if p not in ('', {str(ROOT)!r})]\n"
    code += f"sys.path.insert(0, {str(tmp_path)!r})\n"
    code += "from benchmarks import __main__ as b; print(b.__file__); print(b.listing())\n"
    code += "sys.exit(b.main(['data', 'read']))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=os.environ
    )
    assert str(tmp_path) in done.stdout and "graph_conv" in done.stdout
    if done.returncode != 2:  # an editable install may bring tests/ along
        pytest.skip("tests/ can be imported from everywhere here")
    assert "data read" not in done.stdout and "needs a checkout" in done.stderr


def test_the_wheel_holds_the_benchmarks():
    from setuptools import find_packages

    names = find_packages(str(ROOT), include=["benchmarks*"])
    assert {"benchmarks", "benchmarks.data", "benchmarks.accuracy"} <= set(names)
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    assert '"msclr._benchmarks.benchmarks": "benchmarks"' in setup
