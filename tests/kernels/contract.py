"""The operators that test_contract.py holds against their references, and how they are called."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from msclr import kernels
from msclr.kernels import _backend
from msclr.kernels._qualify import subjects
from msclr.kernels._qualify.judge import (  # noqa: F401 (the tests' own as well)
    error_of,
    in_dtype,
    in_float64,
    results_of,
    rms_of,
    run,
    weighted_sum,
)
from msclr.kernels._qualify.subjects import Subject

HALVES = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Contract:
    """An operator, as backends qualify on it, and what else tests must know to call it."""

    subject: Subject
    public: Callable  # the public function, of the case's Arguments
    autocast: bool = False  # whether the first result has autocast's dtype

    def __getattr__(self, name: str) -> Any:
        return getattr(self.subject, name)

    @property
    def differentiable(self) -> bool:
        return bool(self.subject.gradients)


def packed_block(a, **options) -> Tensor:
    """The rows that come of stgcn_block's arguments."""
    given = a._asdict()
    x = kernels.PackedRows(*map(given.pop, ("x", "segments", "counts")))
    return kernels.stgcn_block(x, **given, **options)[0].rows


CONTRACTS = {
    c.name: c
    for c in (
        Contract(
            subjects.GRAPH_CONV,
            lambda a, **o: kernels.masked_graph_conv(*a, **o),
            autocast=True,
        ),
        Contract(
            subjects.INFO_NCE,
            lambda a, **o: kernels.info_nce(
                *a[:4], teacher=a.teacher, top_k=a.top_k, positives="mined", **o
            ).loss,
        ),
        Contract(
            subjects.MULTI_VIEW,
            lambda a, **o: kernels.multi_view_info_nce(a.views, a.temperature, bank=a.bank, **o),
        ),
        Contract(
            subjects.AUGMENT,
            lambda a, **o: kernels.augment(
                a.clips, a.index, a.epochs, numbers=a.numbers, seed=a.seed, purpose=a.purpose,
                view="extreme", flip=a.flip, stream="bone", parents=a.parents, **o,
            ),
        ),
        Contract(subjects.BLOCK, lambda a, **o: packed_block(a, **o)),
        Contract(
            subjects.DROP_POOL,
            lambda a, **o: kernels.drop_pool(kernels.PackedRows(*a[:2]), a.drop, **o).dropped,
        ),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Backend:
    """A backend, and of the compiled one on the CPU a code path."""

    name: str
    instruction_set: str | None = None

    def __str__(self) -> str:
        return self.instruction_set or self.name

    @property
    def device(self) -> str:
        on_gpu = self.name == "cuda" or (self.name == "triton" and not _backend.interpreted())
        return "cuda" if on_gpu else "cpu"

    @contextmanager
    def chosen(self) -> Iterator[None]:
        """Skips where it cannot run here."""
        if reason := kernels.backends()[self.name]:
            pytest.skip(reason)
        if self.instruction_set is None:
            yield
            return
        before = _backend.instruction_set()
        try:
            _backend.instruction_set(self.instruction_set)
        except ValueError as error:
            pytest.skip(str(error))
        try:
            yield
        finally:
            _backend.instruction_set(before)


BACKENDS = [Backend("cpu", s) for s in ("portable", "avx2", "avx512")]
BACKENDS += [Backend("triton"), Backend("cuda")]


def arguments_of(contract: Contract, case: str, dtype: torch.dtype, device: str = "cpu") -> Any:
    """A case's arguments in ``dtype``, and so the result where the operator is given its dtype."""
    return in_dtype(contract.cases.CASES[case](), dtype, device)
