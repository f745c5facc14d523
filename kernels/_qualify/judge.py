"""Whether a backend is right: its results and gradients against the reference in float64."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor

from msclr.kernels._cases import converted
from msclr.kernels._choice import FAMILIES
from msclr.kernels._qualify.subjects import Subject

_POISON_BYTES = 64 * 2**20
_M_PERTURB = -6  # of mallopt
_HALVES = (torch.bfloat16, torch.float16)


class NotRightError(Exception):
    """What is wrong with a backend's numbers."""


class Judge:
    """Tries a backend of one operator on one device.

    Args:
        note: called with what is about to be tried, whenever something is.
    """

    def __init__(
        self,
        subject: Subject,
        backend: str,
        device: torch.device,
        note: Callable[[str], None] = lambda at: None,
    ):
        self.subject, self.backend, self.device, self.note = subject, backend, device, note
        self.error = self.allowed = 0.0  # the worst so far: the one nearest to what is allowed

    def try_family(self, family: str) -> None:
        """Raise NotRightError unless all cases in all dtypes of a family are right."""
        subject = self.subject
        cases = [(name, subject.cases.CASES[name]) for name in subject.cases.QUALIFYING]
        usual = subject.cases.CASES[subject.usual]
        cases.append((f"{subject.usual}, strided", lambda: strided(usual())))
        for dtype in FAMILIES[family]:
            for name, make in cases:
                at = f"{name!r} in {str(dtype).removeprefix('torch.')}"
                self.try_case(at, make(), dtype, name)

    def try_case(self, at: str, arguments: Any, dtype: torch.dtype, case: str = "") -> None:
        """Raise NotRightError unless one call is right. ``case``: its name among the cases."""
        arguments = in_dtype(arguments, dtype, self.device)
        misfit = self.subject.run.supports.get(self.backend)
        if misfit is not None and misfit(arguments):
            return
        self.note(f"the reference of {at}")
        exact = in_float64(self.subject, arguments)
        plain = results_of(self.subject, "reference", arguments)
        self.note(at)
        found = results_of(self.subject, self.backend, arguments)
        with poisoned(self.device):
            again = results_of(self.subject, self.backend, arguments)
        if found.keys() != exact.keys():
            raise NotRightError(f"{at}: results {', '.join(found)}, not {', '.join(exact)}")
        rounded = self._rounded(arguments, dtype, plain)
        for name, wanted in exact.items():
            self._compare(f"{name} of {at}", found[name], wanted, dtype)
            if not _same_bits(found[name], again[name]):
                raise NotRightError(
                    f"{name} of {at}: other bits the second time, or scratch memory is read"
                )
            if wanted.is_floating_point():
                limit = self._limit(arguments, dtype, wanted, plain[name], rounded[name])
                self._hold(f"{name} of {at}", error_of(found[name], wanted), limit)
                if dtype in _HALVES and case == self.subject.halves:
                    theirs = max(rms_of(r[name], wanted) for r in (plain, rounded))
                    floor = 1e-6 * _largest(wanted)  # of what is float32 all the same
                    self._hold(f"{name} of {at}", rms_of(found[name], wanted), 1.1 * theirs + floor)

    def _rounded(
        self, arguments: Any, dtype: torch.dtype, plain: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """The reference with products of rounded weights, as PyTorch's own are in half."""
        if dtype not in _HALVES:
            return plain
        with self.subject.half_throughout():
            return results_of(self.subject, "reference", arguments)

    def _compare(self, at: str, found: Tensor, wanted: Tensor, dtype: torch.dtype) -> None:
        if found.shape != wanted.shape:
            raise NotRightError(f"{at}: shape {tuple(found.shape)}, not {tuple(wanted.shape)}")
        if wanted.is_floating_point():
            if (wanted.isfinite() & ~found.isfinite()).any():
                raise NotRightError(f"{at}: not finite")
        elif dtype == torch.float64 and not torch.equal(found, wanted):
            raise NotRightError(f"{at}: other whole numbers")

    def _limit(
        self, arguments: Any, dtype: torch.dtype, wanted: Tensor, plain: Tensor, rounded: Tensor
    ) -> float:
        if dtype == torch.float64:
            return 1e-9
        allowed = self.subject.conditioning * 2e-6
        if dtype in _HALVES:
            allowed = self.subject.conditioning * torch.finfo(dtype).eps
        allowed += 4 * max(error_of(plain, wanted), error_of(rounded, wanted))
        # The log-sum-exp is rounded between the passes, to digits of the largest logit.
        return allowed + 2**-23 * self.subject.largest_logit(arguments)

    def _hold(self, at: str, error: float, allowed: float) -> None:
        if not self.allowed or error / allowed > self.error / self.allowed:
            self.error, self.allowed = error, allowed
        if not error <= allowed:
            raise NotRightError(f"{at}: off by {error:.1e}, allowed are {allowed:.1e}")


def in_dtype(arguments: Any, dtype: torch.dtype, device: torch.device | str = "cpu") -> Any:
    """A case's arguments in ``dtype``, and so the result where the operator is given its dtype."""
    arguments = converted(arguments, dtype, device)
    return arguments._replace(dtype=dtype) if "dtype" in arguments._fields else arguments


def in_float64(subject: Subject, arguments: Any) -> dict[str, Tensor]:
    """The reference's results from the same, already rounded, numbers, where they are."""
    device = next(t.device for t in arguments if torch.is_tensor(t))
    wide = converted(arguments, torch.float64, device)
    wide = wide._replace(dtype=torch.float64) if "dtype" in wide._fields else wide
    return results_of(subject, "reference", wide)


def run(subject: Subject, backend: str, arguments: Any) -> dict[str, Tensor]:
    """The results by name; those not asked for are None from the reference, else empty (0,)."""
    found = subject.run(backend, arguments)
    found = found if isinstance(found, tuple) else (found,)
    given = enumerate(found[: subject.results])
    return {f"result {i}": r for i, r in given if r is not None and r.shape != (0,)}


def results_of(subject: Subject, backend: str, arguments: Any) -> dict[str, Tensor]:
    """The results and every gradient of a fixed function of them, by name, on the CPU."""
    leaves = {
        name: value.detach().requires_grad_()  # with its strides
        for name in subject.gradients
        if (value := getattr(arguments, name)) is not None
    }
    named = run(subject, backend, arguments._replace(**leaves))
    if leaves:
        wanted = list(leaves.values())
        gradients = torch.autograd.grad(weighted_sum(named), wanted, materialize_grads=True)
        named |= dict(zip(leaves, gradients, strict=True))
    return {name: tensor.detach().cpu() for name, tensor in named.items()}


def weighted_sum(results: dict[str, Tensor]) -> Tensor:
    """The sum of all differentiable results, every number with another weight."""
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
    return error / max(_largest(exact), 0.1)


def rms_of(found: Tensor, exact: Tensor) -> float:
    return (found.double() - exact).square().mean().sqrt().item()


def strided(arguments: Any) -> Any:
    """The same numbers, every second of rows twice as long; clips are taken contiguous alone."""
    tensors = {n: t for n, t in arguments._asdict().items() if torch.is_tensor(t) and t.dim()}
    tensors.pop("clips", None)
    apart = {n: t.repeat_interleave(2, -1)[..., ::2] for n, t in tensors.items()}
    return arguments._replace(**apart)


@contextmanager
def poisoned(device: torch.device) -> Iterator[None]:
    """Inside the block, new tensors hold NaN, and so does memory that allocators reuse."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.full((_POISON_BYTES // 4,), float("nan"), device=device)  # given back at once
    _fill_memory(0x80)
    torch.use_deterministic_algorithms(True, warn_only=True)  # under which torch.empty is filled
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        _fill_memory(0)


def _fill_memory(byte: int) -> None:
    """Let glibc's malloc hand out memory filled with the byte's complement; 0: as it comes."""
    if sys.platform == "linux":
        with suppress(AttributeError, OSError):  # another C library
            ctypes.CDLL(None).mallopt(_M_PERTURB, byte)


def _same_bits(one: Tensor, other: Tensor) -> bool:
    """NaN is like NaN; shapes are known to be alike."""
    # A copy, for what counts as contiguous may have any strides where sizes are 1.
    plain = (t.clone(memory_format=torch.contiguous_format).view(-1) for t in (one, other))
    return torch.equal(*(t.view(torch.uint8) for t in plain))


def _largest(x: Tensor) -> float:
    return x.abs().max().item() if x.numel() else 0.0
