"""The operators that test_contract.py holds against their references, and how they are called."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType

import pytest
import torch
from torch import Tensor

from msclr import kernels
from msclr.kernels import _backend
from msclr.kernels._cases import converted
from msclr.kernels._operator import Operator
from msclr.kernels.augment import cases as augment_cases
from msclr.kernels.augment import operator as augment
from msclr.kernels.graph_conv import cases as graph_conv_cases
from msclr.kernels.graph_conv import operator as graph_conv
from msclr.kernels.info_nce import cases as info_nce_cases
from msclr.kernels.info_nce import operator as info_nce
from msclr.kernels.multi_view import cases as multi_view_cases
from msclr.kernels.multi_view import operator as multi_view

HALVES = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Contract:
    """An operator and what tests must know to call it."""

    name: str  # of torch.ops.msclr
    run: Operator
    cases: ModuleType
    usual: str  # the case that tests of wiring take
    public: Callable  # the public function, of the case's Arguments
    gradients: tuple[str, ...]
    results: int  # that are compared; those after them are kept for the backward pass
    dtypes: tuple[torch.dtype, ...]

    @property
    def differentiable(self) -> bool:
        return bool(self.gradients)

    def largest_logit(self, arguments) -> float:
        """A bound of the operators that have logits; 0 of others."""
        if not hasattr(arguments, "temperature") or not arguments[0].numel():
            return 0.0
        return (arguments[0].norm(dim=-1).max() / arguments.temperature).item()


CONTRACTS = {
    c.name: c
    for c in (
        Contract(
            "graph_conv",
            graph_conv.masked_graph_conv,
            graph_conv_cases,
            "any adjacency",
            lambda a, **o: kernels.masked_graph_conv(*a, **o),
            ("x", "weight", "bias", "adjacency"),
            1,
            (torch.float64, torch.float32, *HALVES),
        ),
        Contract(
            "info_nce",
            info_nce.info_nce,
            info_nce_cases,
            "mined",
            lambda a, **o: kernels.info_nce(
                *a[:4], teacher=a.teacher, top_k=a.top_k, positives="mined", **o
            ).loss,
            ("queries", "keys", "bank", "temperature"),
            3,
            (torch.float64, torch.float32, *HALVES),
        ),
        Contract(
            "multi_view_info_nce",
            multi_view.multi_view_info_nce,
            multi_view_cases,
            "two views",
            lambda a, **o: kernels.multi_view_info_nce(a.views, a.temperature, bank=a.bank, **o),
            ("views", "temperature", "candidates", "bank"),
            1,
            (torch.float64, torch.float32, *HALVES),
        ),
        Contract(
            "augment",
            augment.augment,
            augment_cases,
            "extreme",
            lambda a, **o: kernels.augment(
                a.clips, a.index, a.epochs, numbers=a.numbers, seed=a.seed, purpose=a.purpose,
                view="extreme", flip=a.flip, **o,
            ),
            (),
            1,
            (torch.float32, *HALVES),
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


def results_of(contract: Contract, backend: str, arguments) -> dict[str, Tensor]:
    """The results and every gradient of a fixed function of them, by name, on the CPU."""
    leaves = {
        name: value.detach().clone(memory_format=torch.preserve_format).requires_grad_()
        for name in contract.gradients
        if (value := getattr(arguments, name)) is not None
    }
    found = contract.run(backend, arguments._replace(**leaves))
    found = found if isinstance(found, tuple) else (found,)
    given = {i: r for i, r in enumerate(found[: contract.results]) if r is not None and r.numel()}
    named = {f"result {i}": r.detach() for i, r in given.items()}
    if leaves and given:
        total = sum((r * upstream(r, i)).sum() for i, r in given.items())
        gradients = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
        named |= {n: g for n, g in zip(leaves, gradients, strict=True) if g is not None}
    return {name: tensor.cpu() for name, tensor in named.items()}


def upstream(result: Tensor, place: int) -> Tensor:
    """A weight of its own for every number."""
    numbers = torch.linspace(-1, 2 + place, result.numel(), dtype=torch.float64)
    return numbers.view(result.shape).to(result)


def error_of(found: Tensor, exact: Tensor) -> float:
    """The largest error, as a part of the largest number, which may be a rounding itself."""
    assert found.shape == exact.shape
    error = (found.double() - exact).abs().max().item()
    return error / max(exact.abs().max().item(), 0.1)


def rms_of(found: Tensor, exact: Tensor) -> float:
    return (found.double() - exact).square().mean().sqrt().item()


def in_float64(contract: Contract, arguments) -> dict[str, Tensor]:
    """The reference's results from the same, already rounded, numbers."""
    wide = converted(arguments, torch.float64)
    if contract.name == "augment":
        wide = wide._replace(dtype=torch.float64)
    return results_of(contract, "reference", wide)
