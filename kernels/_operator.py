"""How an operator is declared: schema, fake tensors, autograd, autocast and backends, in one place.

A declaration (``kernels/<op>/operator.py``) gives the schema and what cannot be read off it; all
else follows. ``msclr::<name>`` is compiled code (``csrc/<op>/``), ``msclr::<name>_triton`` the same
operator in Triton, which needs no compiler. The gradients are one more operator each,
``<name>_backward(grads of the outputs, *arguments, *kept outputs, *wanted) -> gradients``, with
an empty tensor in place of a gradient that is not wanted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from msclr.kernels import _choice
from msclr.kernels._backend import backends, device_types, has_triton, load_library


def define(
    name: str,
    schema: str,
    *,
    fake: Callable,
    triton: str | None = None,
    composed: str | None = None,
    gradients: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
    differentiable: int = 1,
    keeps: tuple[str, ...] = (),
    forgets: Callable[[dict[str, bool]], tuple[str, ...]] = lambda wanted: (),
) -> None:
    """Define ``msclr::<name>`` and ``msclr::<name>_triton``, with their backward operators.

    Args:
        name: as in ``STABLE_TORCH_LIBRARY_IMPL(msclr, CPU, m)`` of ``csrc/<op>/cpu.cpp``.
        schema: arguments and results, ``(Tensor x, ..) -> (Tensor loss, ..)``.
        fake: the operator on fake tensors: empty results.
        triton: the module whose ``forward`` and ``backward`` run on Triton; imported when called.
            None where there is no Triton code.
        composed: the module whose ``forward`` and ``backward`` make the operator of others on the
            CPU, where it has no C++ of its own.
        gradients: arguments that can have one, and what makes an empty gradient from each; None
            where nothing is differentiable.
        differentiable: how many results, counted from the first, have gradients.
        keeps: the results that the backward pass is given.
        forgets: from which gradients are wanted, the arguments that the backward pass then does not
            read: they are not kept, and None takes their place.
    """
    parsed = torch._C.parse_schema(f"msclr::{name}{schema}")
    spec = _Spec(
        [a.name for a in parsed.arguments],
        [r.name for r in parsed.returns],
        dict(gradients or {}),
        differentiable,
        keeps,
        forgets,
    )
    for op in (name, f"{name}_triton") if triton else (name,):
        torch.library.define(f"msclr::{op}", schema)
        torch.library.register_fake(f"msclr::{op}", fake)
        if gradients:
            backward_schema = _backward_schema(schema, spec)
            torch.library.define(f"msclr::{op}_backward", backward_schema)
            torch.library.register_fake(f"msclr::{op}_backward", spec.fake_backward)
            _differentiate(op, spec)
    for op, module, devices in (
        (f"{name}_triton", triton, ("cpu", "cuda")),
        (name, composed, ("cpu",)),
    ):
        if module:
            torch.library.impl(f"msclr::{op}", devices, _lazily(module, "forward"))
        if module and gradients:
            torch.library.impl(f"msclr::{op}_backward", devices, _lazily(module, "backward"))


class Operator:
    """A public function's backends: the operators of :func:`define`, and the reference."""

    def __init__(
        self,
        name: str,
        autocast: bool = False,
        supports: Mapping[str, Callable[[tuple], str]] | None = None,
        **backends: Callable,
    ):
        """
        Args:
            name: of the public function.
            autocast: whether the first argument becomes autocast's dtype where that is on.
            supports: of backends that do not take all that the public function does: why not these
                arguments, "" where they do. Without a device's values; asked in each call.
            backends: name -> what runs it.
        """
        self.name, self.autocast, self.declared = name, autocast, tuple(backends)
        self.supports = dict(supports or {})
        usable = {"reference": True, "triton": has_triton()}
        self.backends = {b: run for b, run in backends.items() if usable.get(b, load_library())}
        self._orders: dict[Any, tuple] = _choice.remembers({})
        self._named: dict[tuple[str, str], Callable] = {}

    def __call__(self, backend: str | None, arguments: tuple) -> Any:
        """Run the named backend, or the one that is chosen for these arguments."""
        first, *rest = arguments
        mixed = torch.is_autocast_enabled(first.device.type)
        if mixed and self.autocast:
            first = first.to(torch.get_autocast_dtype(first.device.type))
        run = self.choose(backend, (first, *rest))
        if forward_ad._current_level >= 0 and run is not self.backends["reference"]:
            self._refuse_tangents(arguments)
        if not mixed:
            return run(*arguments)
        with torch.autocast(first.device.type, enabled=False):
            return run(first, *rest)

    def choose(self, backend: str | None, arguments: tuple) -> Callable:
        """The implementation to run: the named one; or that of an override; or else the fastest
        that is known to be right here and takes the arguments."""
        first = arguments[0]
        if backend is None:
            backend = _choice.forced()
            if backend is None or backend not in self.declared:
                for run, misfit in self._default(first.device, first.dtype):
                    if misfit is None or not misfit(arguments):
                        return run
        key = backend, first.device.type
        run, misfit = self._named.get(key) or self._check(*key), self.supports.get(backend)
        if misfit is not None and (why := misfit(arguments)):
            raise ValueError(f"{why}; backend='reference' takes any")
        return run

    def order(self, device: torch.device, family: str) -> tuple[str, ...]:
        """The names of what runs for tensors on a device, the first that takes the arguments."""
        names, _ = _choice.order(self.name, device, family)
        return tuple(name for name in names if name in self.backends)

    def runs_on(self, device: torch.device, dtype: torch.dtype) -> str:
        """The backend of a call that names none, if it takes the rest of the arguments."""
        asked = _choice.forced()
        if asked is not None and asked in self.declared:
            return asked
        return self.order(device, _choice.family_of(device, dtype))[0]

    def _default(self, device: torch.device, dtype: torch.dtype) -> tuple:
        """(implementation, why not these arguments) in the order to try."""
        key = device, dtype
        if device.type == "cuda" and dtype == torch.float32 and _choice.tf32():
            key = device, "tf32"
        known = self._orders.get(key)
        if known is None:
            family = _choice.family_of(device, dtype)
            names, lasting = _choice.order(self.name, device, family)
            known = tuple((self.backends[n], self.supports.get(n)) for n in names
                          if n in self.backends)  # fmt: skip
            if lasting and not torch.compiler.is_compiling():
                self._orders[key] = known
        return known

    def _check(self, backend: str, device_type: str) -> Callable:
        """The implementation of a backend that somebody asked for, or why it cannot run."""
        tracing = torch.compiler.is_compiling()
        # What is being traced cannot look at files and devices; the operator then fails by itself.
        if not tracing and (problem := backends().get(backend)):
            raise ValueError(f"backend {backend!r} of {self.name} cannot run here: {problem}")
        if backend not in self.backends:
            raise ValueError(
                f"backend must be one of {', '.join(self.backends)} or None for {self.name}, "
                f"got {backend!r}"
            )
        if device_type not in device_types(backend):
            raise ValueError(
                f"backend {backend!r} of {self.name} takes tensors on "
                f"{' or '.join(device_types(backend))}, got {device_type}"
            )
        if not tracing:
            self._named[backend, device_type] = self.backends[backend]
        return self.backends[backend]

    def _refuse_tangents(self, arguments: tuple) -> None:
        """The dispatcher would drop them, and derivatives would silently be 0."""
        for argument in arguments:
            if torch.is_tensor(argument) and forward_ad.unpack_dual(argument).tangent is not None:
                raise NotImplementedError(
                    f"{self.name} has no forward-mode derivatives here; backend='reference' has"
                )


class _Spec(NamedTuple):
    """What autograd needs to know of an operator, see :func:`define`."""

    arguments: list[str]
    results: list[str]
    gradients: dict[str, Callable[[Tensor], Tensor]]
    differentiable: int
    keeps: tuple[str, ...]
    forgets: Callable[[dict[str, bool]], tuple[str, ...]]

    def fake_backward(self, *given: Any) -> Any:
        arguments = dict(zip(self.arguments, given[self.differentiable :], strict=False))
        wanted = given[-len(self.gradients) :]
        found = tuple(
            like(arguments[name]) if want and arguments[name] is not None else given[0].new_empty(0)
            for (name, like), want in zip(self.gradients.items(), wanted, strict=True)
        )
        return found if len(found) > 1 else found[0]

    def save(self, ctx: Any, inputs: tuple, output: Any) -> None:
        results = dict(zip(self.results, output, strict=True)) if self.keeps else {}
        ctx.mark_non_differentiable(*list(results.values())[self.differentiable :])
        ctx.set_materialize_grads(False)  # or zeros of the size of what is kept would be made
        outputs = output if isinstance(output, tuple) else (output,)
        ctx.likes = [(o.shape, o.dtype, o.device) for o in outputs[: self.differentiable]]
        forgotten = self.forgets(self._wanted(ctx))
        kept = [
            None if name in forgotten else value
            for name, value in zip(self.arguments, inputs, strict=True)
        ]
        kept += [results[name] for name in self.keeps]
        ctx.save_for_backward(*(v if torch.is_tensor(v) else None for v in kept))
        ctx.numbers = [None if torch.is_tensor(v) else v for v in kept]

    def restore(self, ctx: Any) -> list[Any]:
        """What the backward operator is given after the results' gradients."""
        pairs = zip(ctx.saved_tensors, ctx.numbers, strict=True)
        kept = [number if tensor is None else tensor for tensor, number in pairs]
        return [*kept, *self._wanted(ctx).values()]

    def spread(self, ctx: Any, found: Any) -> tuple[Tensor | None, ...]:
        """The gradients as autograd wants them, one for each argument."""
        wanted = self._wanted(ctx)
        found = found if isinstance(found, tuple | list) else (found,)  # an operator's only result
        named = {n: g for n, g in zip(self.gradients, found, strict=True) if wanted[n]}
        return tuple(named.get(name) for name in self.arguments)

    def _wanted(self, ctx: Any) -> dict[str, bool]:
        return {g: ctx.needs_input_grad[self.arguments.index(g)] for g in self.gradients}


def _differentiate(op: str, spec: _Spec) -> None:
    backward = getattr(torch.ops.msclr, f"{op}_backward")

    def gradients(ctx, *grads):
        given = [
            torch.zeros(shape, dtype=dtype, device=device) if grad is None else grad
            for grad, (shape, dtype, device) in zip(grads, ctx.likes, strict=False)
        ]
        return spec.spread(ctx, backward(*given, *spec.restore(ctx)))

    def refuse(ctx, *_):
        # Without this, autograd would take the gradients for constants.
        raise NotImplementedError(
            f"msclr::{op} has no second derivatives; backend='reference' has them"
        )

    torch.library.register_autograd(f"msclr::{op}", gradients, setup_context=spec.save)
    torch.library.register_autograd(f"msclr::{op}_backward", refuse)


def _backward_schema(schema: str, spec: _Spec) -> str:
    arguments = re.sub(r"=[^,)]+", "", schema[1 : schema.index(") ->")])
    grads = [f"Tensor grad_{i}" for i in range(spec.differentiable)]
    kept = [f"Tensor {name}" for name in spec.keeps]
    wanted = [f"bool want_{name}" for name in spec.gradients]
    found = ", ".join(["Tensor"] * len(spec.gradients))
    return f"({', '.join([*grads, arguments, *kept, *wanted])}) -> ({found})"


def _lazily(module: str, function: str) -> Callable:
    """A function of a module that is imported, and Triton with it, at the first call."""

    def run(*arguments):
        return getattr(import_module(module), function)(*arguments)

    return run
