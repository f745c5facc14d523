"""The README's example runs as it is printed."""

from __future__ import annotations

import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_the_example_of_the_readme_runs_and_prints_what_it_says(tmp_path, monkeypatch, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    assert len(code.strip().splitlines()) <= 12
    monkeypatch.chdir(tmp_path)
    for _ in range(2):  # the second time its data are there
        exec(compile(code, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert printed.count("{'kinectv2_25': (8, 256), 'smplx_42': (8, 256)}") == 2
