"""What benchmarks refuse, in one line and before the first measurement; above all, to publish."""

from __future__ import annotations

import json
import subprocess

import pytest

from benchmarks import __main__ as command
from benchmarks import info_nce, machine, origin


def refused(arguments: list[str], capsys) -> str:
    """The one line that a command line ends with."""
    assert command.main(arguments) == 2
    printed, error = capsys.readouterr()
    assert printed == "" and error.startswith("benchmarks: error: ") and error.count("\n") == 1
    return error


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("", "info_nce, multi_view"),
        ("nonsense --rounds 3", "'nonsense --rounds'"),
        ("data nonsense", "data read, data prepare"),
        ("data --rounds 3", "data read, data prepare"),
        ("graph_conv --rounds 1", "--rounds: '1': a whole number of 2 or more"),
        ("info_nce --rounds many", "--rounds: 'many'"),
        ("data read --rounds -3", "--rounds"),
        ("info_nce --sizes 32x4096 32y4096", "--sizes: '32y4096': BxQ is wanted"),
        ("info_nce --sizes 0x4096", "--sizes: '0x4096': BxQ is wanted"),
        ("info_nce --sizes", "--sizes: expected at least one argument"),
        ("info_nce --sizes 8x999999999999 --device cpu", "GB are free on cpu; choose smaller"),
        ("multi_view --clips 999999999999 --device cpu", "GB are free on cpu; choose smaller"),
        ("graph_conv --samples 999999999 --device cpu", "GB are free on cpu; choose smaller"),
        ("stgcn --samples 999999999 --device cpu", "GB are free on cpu; choose smaller"),
        ("step --clips 999999999", "GB are free on cpu; choose smaller"),
        ("step --frames 0", "--frames: '0'"),
        ("data batches --frames 999999999 --device cpu", "GB are free on cpu; choose smaller"),
        ("info_nce --dim 0", "--dim: '0': a whole number of 1 or more"),
        ("graph_conv --samples 0", "--samples: '0'"),
        ("multi_view --clips 1.5", "--clips: '1.5'"),
        ("stgcn --joints 26", "--joints: invalid choice: 26"),
        ("data batches --layouts nonsense --device cpu", "unknown layout 'nonsense'"),
        ("data step --batch 0", "--batch: '0'"),
        ("data prepare --workers 0", "--workers: '0'"),
        ("toy_supervised --epochs 0", "--epochs: '0'"),
        ("stgcn --threads 0", "--threads: '0'"),
        ("multi_view --device cuda:99", "cuda:99 is absent: torch sees"),
        ("data step --device nonsense", "'nonsense' is not known; try cpu or cuda"),
        ("stgcn --device mps", "'mps' is not known; try cpu or cuda"),
        ("graph_conv --dtype int8", "--dtype: invalid choice: 'int8'"),
        ("graph_conv --backend nonsense", "--backend: invalid choice: 'nonsense'"),
        ("graph_conv --device cpu --backend cuda", "--backend cuda "),
        ("info_nce --nonsense", "--nonsense"),
        ("info_nce --out {tmp}", "is a folder; name a file, such as"),
        ("info_nce --out {tmp}/absent/x.json", "absent is no folder to write to"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_measured(line, text, tmp_path, monkeypatch, capsys):
    def measured(*_):
        raise AssertionError("something was measured")

    monkeypatch.setattr(machine, "side_by_side", measured)
    monkeypatch.setattr(origin, "ROOT", tmp_path)
    assert text in refused(line.format(tmp=tmp_path).split(), capsys)
    assert list(tmp_path.rglob("*.json")) == []


@pytest.fixture
def results(tmp_path, monkeypatch):
    """The folder of published results of a clean git tree; the full set of info_nce is tiny."""
    folder = tmp_path / "benchmarks" / "results"
    folder.mkdir(parents=True)
    (tmp_path / "code.py").write_text("1\n")
    (tmp_path / ".gitignore").write_text("/build/\n")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=A", "-c", "user.email=a@example.org"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *words], check=True)
    monkeypatch.setattr(origin, "ROOT", tmp_path)
    monkeypatch.setattr(info_nce, "SIZES", [(2, 16), (4, 16)])
    monkeypatch.setattr(machine, "ceilings", lambda *_: {"gemm_gflop_s": 99.0})
    for name in ("GLIBC_TUNABLES", *origin.LIMITS):
        monkeypatch.delenv(name, raising=False)
    return folder


NAME = "info_nce-cpu-float32-plain.json"


def publish(folder, options="", name=NAME) -> list[str]:
    return ["info_nce", "--device", "cpu", *options.split(), "--out", str(folder / name)]


def test_a_full_run_is_published_and_published_again(results, capsys):
    assert command.main(publish(results)) == 0
    first = json.loads((results / NAME).read_text())
    assert "dirty" not in first["commit"] and first["commit"] != "unknown"
    assert command.main(publish(results, "--rounds 8")) == 0  # new results make no dirty tree
    second = json.loads((results / NAME).read_text())
    assert (first["rounds"], second["rounds"]) == (7, 8)
    assert [p.name for p in results.iterdir()] == [NAME]
    capsys.readouterr()
    assert "without 8 rounds" in refused(publish(results), capsys)
    assert json.loads((results / NAME).read_text()) == second


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ("--rounds 6", "a partial one, without 7 rounds"),
        ("--loss plain", "without loss aimclr dtype float32 P 3 B 2 Q 16 D 128"),
        ("--sizes 2x16", "without loss aimclr dtype float32 P 3 B 4 Q 16 D 128"),
        ("--dim 256", "without loss aimclr dtype float32 P 3 B 2 Q 16 D 128"),
        ("--dtype bfloat16", "this one's is info_nce-cpu-bfloat16-plain.json"),
        ("--compile", "this one's is info_nce-cpu-float32-plain-compiled.json"),
    ],
)
def test_a_partial_run_replaces_no_published_file(options, text, results, capsys):
    sizes = {"op": "info_nce", "loss": "plain", "dtype": "float32", "P": 1, "D": 128}
    row = {**sizes, "B": 2, "Q": 16, "seconds": {"ours": {}, "usual": {}}}
    (results / NAME).write_text(json.dumps({"rows": [row]}))
    before = (results / NAME).read_bytes()
    assert text in refused(publish(results, options), capsys)
    assert (results / NAME).read_bytes() == before


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"seconds": {"ours": {}, "usual_compiled": {}}}, "without usual_compiled at loss plain"),
        ({"forward": {"seconds": {"other": {}}}}, "without other at loss plain"),
        ({"Q": 17}, "without loss plain dtype float32 P 1 D 128 B 2 Q 17"),
    ],
)
def test_nothing_of_a_published_file_is_lost(change, text, results, capsys):
    sizes = {"op": "info_nce", "loss": "plain", "dtype": "float32", "P": 1, "D": 128}
    (results / NAME).write_text(json.dumps({"rows": [{**sizes, "B": 2, "Q": 16, **change}]}))
    assert text in refused(publish(results), capsys)


@pytest.mark.parametrize("text", ["no JSON", "[1]", ""])
def test_a_published_file_that_cannot_be_read_stays(text, results, capsys):
    (results / NAME).write_text(text)
    assert "remove it first" in refused(publish(results), capsys)
    assert (results / NAME).read_text() == text


def test_a_run_held_back_to_an_older_instruction_set_replaces_no_other(
    results, monkeypatch, capsys
):
    (results / NAME).write_text(json.dumps({"rows": []}))
    monkeypatch.setenv("MSCLR_CPU_ISA", "avx2")
    error = refused(publish(results), capsys)
    assert "measured with no limits set, this run has {'MSCLR_CPU_ISA': 'avx2'}" in error


@pytest.mark.parametrize(("file", "mark"), [("code.py", " M code.py"), ("new.py", "?? new.py")])
def test_a_dirty_tree_is_not_published(file, mark, results, capsys):
    (results.parents[1] / file).write_text("2\n")
    assert f"the tree has changes ({mark})" in refused(publish(results), capsys)
    assert list(results.iterdir()) == []
    link = results.parents[1] / "build"
    link.symlink_to(results)  # a way around is none
    assert "the tree has changes" in refused(publish(link), capsys)
    assert "the tree has changes" in refused(publish(results / ".." / "results"), capsys)


def test_without_git_nothing_is_published(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "benchmarks" / "results"
    folder.mkdir(parents=True)
    monkeypatch.setattr(origin, "ROOT", tmp_path)
    assert "git does not say which commit this is" in refused(publish(folder), capsys)


def test_a_dirty_tree_may_write_elsewhere(results, tmp_path, capsys):
    (tmp_path / "code.py").write_text("2\n")
    options = "--sizes 2x16 --dim 8 --loss plain --rounds 2"
    assert command.main(publish(tmp_path, options, "x.json")) == 0
    assert json.loads((tmp_path / "x.json").read_text())["commit"].endswith("-dirty")


def test_a_partial_run_may_be_published_under_a_new_name(results):
    options = "--sizes 2x16 --dim 8 --loss plain --rounds 2"
    assert command.main(publish(results, options, "info_nce-small.json")) == 0
    assert len(json.loads((results / "info_nce-small.json").read_text())["rows"]) == 1


def test_a_run_that_fails_leaves_the_file_as_it_was(results, monkeypatch):
    assert command.main(publish(results)) == 0
    before = (results / NAME).read_bytes()
    monkeypatch.setattr(machine, "peak_extra_bytes", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        command.main(publish(results))
    assert (results / NAME).read_bytes() == before
    assert [p.name for p in results.iterdir()] == [NAME]
