"""Tests of Triton's numbers without a GPU: Triton reads TRITON_INTERPRET when a program is
defined, so test_triton_interpreted.py runs them in another process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest
import torch

from msclr.kernels import backends
from msclr.kernels._backend import interpreted

ROOT = Path(__file__).resolve().parents[2]
DEVICE = "cpu" if interpreted() else "cuda"  # of the tests of numbers

numbers = pytest.mark.skipif(bool(backends()["triton"]), reason=backends()["triton"])
compiled = pytest.mark.skipif(interpreted(), reason="the interpreter compiles nothing")


def passed_in_the_interpreter(*arguments: str | Path) -> int:
    """How many tests pass; fails if one does not.

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


@contextmanager
def bfloat16_to_nearest() -> Iterator[None]:
    """Inside the block, the interpreter rounds to bfloat16 as a GPU does; else it cuts bits off."""
    if not interpreted():
        yield
        return
    from triton import language
    from triton.runtime import interpreter

    convert = interpreter._convert_float

    def nearest(data, given, wanted, mode):
        if (given, wanted) != (language.float32, language.bfloat16):
            return convert(data, given, wanted, mode)
        rounded = torch.from_numpy(data.copy()).bfloat16()
        return rounded.view(torch.int16).numpy().view("uint16")

    with mock.patch.object(interpreter, "_convert_float", nearest):
        yield
