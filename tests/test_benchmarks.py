"""Result files can be read by what makes tables and summaries of them."""

from __future__ import annotations

import json
import re

import pytest

from benchmarks import summary, tables

RESULTS = {path: json.loads(path.read_text()) for path in sorted(tables.RESULTS.glob("*.json"))}


@pytest.mark.parametrize("path", [p for p in RESULTS if "rows" in RESULTS[p]], ids=lambda p: p.name)
def test_a_summary_has_a_line_with_a_ratio_for_each_row(path):
    lines = list(summary.lines(RESULTS[path]))
    assert len(lines) == len(RESULTS[path]["rows"])
    assert all(re.search(r"\d\.\d\dx", line) for line in lines)


@pytest.mark.parametrize("page", tables.PAGES, ids=lambda p: p.name)
def test_the_tables_are_those_of_the_result_files(page):
    text = page.read_text()
    assert tables.render(text) == text, "run python -m benchmarks.tables"
