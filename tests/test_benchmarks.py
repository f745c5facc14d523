"""Result files are read by what makes tables of them, and written by the commands in the pages."""

from __future__ import annotations

import json
import os
import re
import shlex
from itertools import product

import pytest

from benchmarks import __main__ as command
from benchmarks import info_nce, multi_view, options, output, runner, summary, tables

RESULTS = {path: json.loads(path.read_text()) for path in sorted(tables.RESULTS.glob("*.json"))}
GPU_CHECK = tables.ROOT / "benchmarks" / "gpu_check.sh"


@pytest.mark.parametrize("path", [p for p in RESULTS if "rows" in RESULTS[p]], ids=lambda p: p.name)
def test_a_summary_has_a_line_with_a_ratio_for_each_row(path):
    lines = list(summary.lines(RESULTS[path]))
    assert len(lines) == len(RESULTS[path]["rows"])
    assert all(re.search(r"\d\.\d\dx", line) for line in lines)


@pytest.mark.parametrize("page", tables.PAGES, ids=lambda p: p.name)
def test_the_tables_are_those_of_the_result_files(page):
    text = page.read_text()
    assert tables.render(text) == text, "run python -m benchmarks.tables"


def in_pages() -> list[str]:
    """What follows `python -m benchmarks` in the code blocks of the pages."""
    pages = "\n".join(page.read_text() for page in tables.PAGES)
    # test_benchmark_accuracy.py looks at those of accuracy, which has a command line of its own
    return re.findall(r"^ {4}python -m benchmarks (?!accuracy )(.*)", pages, re.MULTILINE)


def in_gpu_check() -> list[str]:
    """The same of gpu_check.sh, which adds a device, for each value of its loops."""
    script = GPU_CHECK.read_text().replace("\\\n", " ")
    lines = re.findall(r"^ *bench \S+ \d+ (.*)", script, re.MULTILINE)
    values = product(("bfloat16", "float32"), ("triton", "cuda"))
    return list(
        dict.fromkeys(
            line.replace("$dtype", dtype).replace("$backend", backend)
            for (dtype, backend), line in product(values, lines)
        )
    )


@pytest.mark.parametrize("line", [*in_pages(), *in_gpu_check()])
def test_commands_in_pages_and_scripts_are_understood(line):
    words = shlex.split(line.replace("--device cuda", ""), comments=True)
    for name in command.chosen(words):
        options.parser_of(command.load(name)).parse_args(words[len(name.split()) :])


@pytest.mark.parametrize("line", [line for line in in_pages() if "--device" not in line])
def test_commands_in_pages_measure_all_that_the_published_file_holds(line, monkeypatch):
    for module in (info_nce, multi_view):  # the memory of the machine that they were measured on
        monkeypatch.setattr(module, "free_bytes", lambda _: 16e9)
    words = shlex.split(line, comments=True)
    for name in command.chosen(words):
        benchmark = command.load(name)
        args, full = options.parsed(benchmark, words[len(name.split()) :])
        files = set()
        for tuned in (False, True):  # the pages say which it is
            monkeypatch.setattr(os, "environ", {"GLIBC_TUNABLES": "x"} if tuned else {})
            files.add(tables.RESULTS / f"{runner.file_name(benchmark, args)}.json")
        wanted = [(case.sizes, case.contestants) for case in benchmark.cases(full)]
        cases = benchmark.cases(args)
        lost = [
            output.lost(file, file.stem, cases, args.rounds, wanted, full.rounds)
            for file in files & RESULTS.keys()
        ]
        planned = {tables.RESULTS / of for _, of in tables.TABLES.values()} - RESULTS.keys()
        assert "" in lost or not lost and files & planned, (lost, files)
