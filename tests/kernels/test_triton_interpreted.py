"""The tests of Triton's numbers, in Triton's interpreter where there is no GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from msclr.kernels import backends
from tests.kernels.interpreter import passed_in_the_interpreter

pytest.importorskip("triton")


@pytest.mark.unsanitized
@pytest.mark.skipif(not backends()["triton"], reason="those tests run in this process")
@pytest.mark.parametrize(
    ("names", "least"),
    [
        ("contract", 160),
        ("graph_conv graph_conv_triton", 32),
        ("augment_triton", 2),
        ("block_triton", 15),
        ("info_nce_triton", 13),
        ("multi_view_triton", 15),
    ],
)
def test_the_numbers_are_right_in_the_interpreter(names, least):
    files = [Path(__file__).parent / f"test_{name}.py" for name in names.split()]
    assert passed_in_the_interpreter(*files, "-k", "triton") >= least
