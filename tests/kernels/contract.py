"""The operators that test_contract.py holds against their references, and how they are called."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from msclr import kernels
from msclr.kernels import _backend
from msclr.kernels._cases import converted
from msclr.kernels._operator import Operator
from msclr.kernels.augment import cases as augment_cases
from msclr.kernels.augment import operator as augment
from msclr.kernels.block import cases as block_cases
from msclr.kernels.block import operator as block
from msclr.kernels.drop_pool import cases as drop_pool_cases
from msclr.kernels.drop_pool import operator as drop_pool
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
    halves: str  # the case that is large enough for an error to be more than chance
    public: Callable  # the public function, of the case's Arguments
    gradients: tuple[str, ...]
    results: int  # that are compared; those after them are kept for the backward pass
    dtypes: tuple[torch.dtype, ...]
    autocast: bool = False  # whether the first result has autocast's dtype
    conditioning: float = 1.0  # of an operator that divides by deviations of few rows

    @property
    def differentiable(self) -> bool:
        return bool(self.gradients)

    def largest_logit(self, arguments) -> float:
        """A bound of the operators that have logits; 0 of others."""
        if not hasattr(arguments, "temperature") or not arguments[0].numel():
            return 0.0
        return (arguments[0].norm(dim=-1).max() / arguments.temperature).item()


def packed_block(a, **options) -> Tensor:
    """The rows that come of stgcn_block's arguments."""
    given = a._asdict()
    x = kernels.PackedRows(given.pop("x"), given.pop("segments"))
    return kernels.stgcn_block(x, **given, **options)[0].rows


CONTRACTS = {
    c.name: c
    for c in (
        Contract(
            "graph_conv",
            graph_conv.masked_graph_conv,
            graph_conv_cases,
            "mixed layouts, one without joints",
            "16 channels, any adjacency",
            lambda a, **o: kernels.masked_graph_conv(*a, **o),
            ("x", "weight", "bias", "adjacency"),
            1,
            (torch.float64, torch.float32, *HALVES),
            autocast=True,
        ),
        Contract(
            "info_nce",
            info_nce.info_nce,
            info_nce_cases,
            "mined",
            "forty columns",
            lambda a, **o: kernels.info_nce(
                *a[:4], teacher=a.teacher, top_k=a.top_k, positives="mined", **o
            ).loss,
            ("queries", "keys", "bank", "temperature"),
            4,
            (torch.float64, torch.float32, *HALVES),
        ),
        Contract(
            "multi_view_info_nce",
            multi_view.multi_view_info_nce,
            multi_view_cases,
            "two views",
            "two tiles",
            lambda a, **o: kernels.multi_view_info_nce(a.views, a.temperature, bank=a.bank, **o),
            ("views", "temperature", "candidates", "bank"),
            1,
            (torch.float64, torch.float32, *HALVES),
        ),
        Contract(
            "augment",
            augment.augment,
            augment_cases,
            "extreme, bone",
            "extreme, bone",
            lambda a, **o: kernels.augment(
                a.clips, a.index, a.epochs, numbers=a.numbers, seed=a.seed, purpose=a.purpose,
                view="extreme", flip=a.flip, stream="bone", parents=a.parents, **o,
            ),
            (),
            1,
            (torch.float32, *HALVES),
        ),
        Contract(
            "stgcn_block",
            block.stgcn_block,
            block_cases,
            "a little dropout, odd channels",
            "stride 2",
            lambda a, **o: packed_block(a, **o),
            block.GRADIENTS,
            2,
            (torch.float64, torch.float32, *HALVES),
            conditioning=8.0,
        ),
        Contract(
            "drop_pool",
            drop_pool.drop_pool,
            drop_pool_cases,
            "odd channels, three layouts",
            "wide",
            lambda a, **o: kernels.drop_pool(kernels.PackedRows(*a[:2]), a.drop, **o).dropped,
            ("x",),
            3,
            (torch.float64, torch.float32, *HALVES),
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
    """A case's arguments in ``dtype``, and so the result where the operator is told its dtype."""
    arguments = converted(contract.cases.CASES[case](), dtype, device)
    return arguments._replace(dtype=dtype) if "dtype" in arguments._fields else arguments


def in_float64(contract: Contract, arguments: Any) -> dict[str, Tensor]:
    """The reference's results from the same, already rounded, numbers."""
    wide = converted(arguments, torch.float64)
    wide = wide._replace(dtype=torch.float64) if "dtype" in wide._fields else wide
    return results_of(contract, "reference", wide)


def run(contract: Contract, backend: str, arguments: Any) -> dict[str, Tensor]:
    """The results by name; one that is not asked for is None of the reference, (0,) of others."""
    found = contract.run(backend, arguments)
    found = found if isinstance(found, tuple) else (found,)
    given = enumerate(found[: contract.results])
    return {f"result {i}": r for i, r in given if r is not None and r.shape != (0,)}


def results_of(contract: Contract, backend: str, arguments: Any) -> dict[str, Tensor]:
    """The results and every gradient of a fixed function of them, by name, on the CPU."""
    leaves = {
        name: value.detach().requires_grad_()  # with its strides
        for name in contract.gradients
        if (value := getattr(arguments, name)) is not None
    }
    named = run(contract, backend, arguments._replace(**leaves))
    if leaves:
        wanted = list(leaves.values())
        gradients = torch.autograd.grad(weighted_sum(named), wanted, materialize_grads=True)
        named |= dict(zip(leaves, gradients, strict=True))
    return {name: tensor.detach().cpu() for name, tensor in named.items()}


@contextmanager
def half_throughout(contract: Contract) -> Iterator[None]:
    """Within, the reference computes in half precision what is given so."""
    module = sys.modules[f"{contract.cases.__package__}.reference"]
    with mock.patch.object(module, "at_least_float32", lambda t: t, create=True):
        yield


def weighted_sum(results: dict[str, Tensor]) -> Tensor:
    """Of all that are differentiable, with a weight of its own for every number."""
    total = 0.0
    for place, result in enumerate(results.values()):
        if result.is_floating_point():
            weights = torch.linspace(-1, 2 + place, result.numel(), dtype=torch.float64)
            total = total + (result * weights.view(result.shape).to(result)).sum()
    return total


def error_of(found: Tensor, exact: Tensor) -> float:
    """The largest error, as a part of the largest number, which may be a rounding itself."""
    assert found.shape == exact.shape
    if not exact.numel():
        return 0.0
    error = (found.double() - exact).abs().max().item()
    return error / max(exact.abs().max().item(), 0.1)


def rms_of(found: Tensor, exact: Tensor) -> float:
    return (found.double() - exact).square().mean().sqrt().item()
