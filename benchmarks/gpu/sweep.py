"""Block sizes of the Triton kernels: the rule's, and each number of them doubled and halved.

The rows say which kernel's blocks were changed, from what to what, and the microseconds of the
operator that they are part of. Nothing is kept: a table is made of the rows by hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from unittest import mock

import torch

from benchmarks.gpu.lab import Lab
from benchmarks.gpu.operators import call_of
from msclr.kernels import _block_sizes
from msclr.kernels._qualify.judge import in_dtype
from msclr.kernels._qualify.subjects import BLOCK, GRAPH_CONV, INFO_NCE, MULTI_VIEW, Subject

SUBJECTS = (INFO_NCE, BLOCK, GRAPH_CONV, MULTI_VIEW)
DTYPES = (torch.bfloat16, torch.float32)


class Sizes:
    """In place of the table of block sizes: notes what rules choose, and replaces one choice."""

    def __init__(self, replaced: tuple[str, str] | None = None, by: dict[str, int] | None = None):
        self.chosen: dict[tuple[str, str], None] = {}  # (kernel, choice), each once
        self.replaced, self.by = replaced, by or {}

    def get(self, kernel: str) -> _OfKernel:
        return _OfKernel(self, kernel)


class _OfKernel:
    def __init__(self, sizes: Sizes, kernel: str):
        self.sizes, self.kernel = sizes, kernel

    def get(self, choice: str, default: dict[str, int]) -> dict[str, int]:
        place = self.kernel, choice
        self.sizes.chosen[place] = None
        return self.sizes.by if place == self.sizes.replaced else default


def using(sizes: Sizes | Mapping):
    """Inside the block, a table goes before the rules, and there is no other."""
    return mock.patch.object(_block_sizes, "sizes", lambda: sizes)


def measure(lab: Lab) -> None:
    if "triton" not in lab.backends():
        lab.write(not_run="there is no Triton here")
        return
    for subject in SUBJECTS[:1] if lab.dry else SUBJECTS:
        for dtype in DTYPES[1:] if lab.dry else DTYPES:
            _sweep(lab, subject, dtype)


def _sweep(lab: Lab, subject: Subject, dtype: torch.dtype) -> None:
    make = subject.cases.CASES[subject.usual] if lab.dry else subject.cases.TIMED
    call = call_of(subject, "triton", in_dtype(make(), dtype, lab.device), True)
    of = {"op": subject.name, "dtype": str(dtype)}
    plain = Sizes()
    with using(plain):
        lab.row(lambda: lab.times(call), **of, kernel="all", blocks="the rules'")
    for place in list(plain.chosen)[: 1 if lab.dry else None]:
        for other in list(changes(place[1]))[: 1 if lab.dry else None]:
            changed = Sizes(place, other)
            with using(changed):
                lab.row(
                    lambda: lab.times(call), **of, kernel=place[0], blocks=place[1], changed=other
                )


def changes(choice: str) -> Iterator[dict[str, int]]:
    """Each number of a choice doubled and halved; of stages, one more and one less."""
    for name, text in (pair.split("=") for pair in choice.split(",")):
        value = int(text)
        if name == "num_stages":
            others = value + 1, value - 1
        elif name in ("BLOCK_M", "BLOCK_N", "num_warps"):
            others = 2 * value, value // 2
        else:
            continue
        least = {"num_stages": 1, "num_warps": 4}.get(name, 16)
        yield from ({name: other} for other in others if other >= least)
