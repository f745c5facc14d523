"""Tests of Triton's numbers where no GPU is: Triton reads TRITON_INTERPRET when a program is
defined, so they run in a process of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def passed_in_the_interpreter(*arguments: str | Path) -> int:
    """How many tests pass; fails where one does not.

    Args:
        arguments: of pytest: files, options.
    """
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *map(str, arguments), "-q", "-p", "no:cacheprovider"],
        cwd=ROOT,
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    return int(re.search(r"(\d+) passed", done.stdout).group(1))
