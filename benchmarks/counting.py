"""How many operators a piece of code calls, and how many bytes they read and write.

What PyTorch's dispatcher is asked for counts, in the forward and in the backward pass. Not counted
are views (results that lie in the memory of an argument) and allocations. A call reads each tensor
it is given and writes each that it returns or changes, whole, once; what is repeated by a stride of
0 is read once, and what an operator only overwrites is not read. That is what goes between memory
and operators if no cache keeps anything from one call to the next; what an operator moves within
itself, such as a convolution that reorders its input, is not seen.

An operator of msclr that is composed of others (a block of ST-GCN) does not count: those that it is
made of do, each with what it reads and writes. Code that torch.compile made does not go through the
dispatcher and cannot be counted.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.operations import operations
from msclr import kernels  # noqa: F401 (declares torch.ops.msclr)
from msclr.kernels.block import fused

COMPOSED = {
    torch.ops.msclr.stgcn_block.default: fused.forward,
    torch.ops.msclr.stgcn_block_backward.default: fused.backward,
}
ALLOCATIONS = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}
OVERWRITES = {"bernoulli_", "copy_", "fill_", "normal_", "random_", "uniform_", "zero_"}


class Call(NamedTuple):
    operator: str  # with its namespace
    bytes: int
    operations: int  # multiplications and additions of its matrix products


class Counter(TorchDispatchMode):
    """``with Counter() as counted: ...``; then ``counted.calls`` and ``counted.bytes``, and
    ``counted.each``, the calls in their order."""

    def __init__(self) -> None:
        super().__init__()
        self.each: list[Call] = []

    @property
    def calls(self) -> dict[str, int]:
        """Operator -> how often."""
        return dict(collections.Counter(call.operator for call in self.each))

    @property
    def bytes(self) -> int:
        return sum(call.bytes for call in self.each)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None) -> Any:
        kwargs = kwargs or {}
        composed = COMPOSED.get(func) or (func.decompose if _is_composed(func) else None)
        if composed:
            with self:
                return composed(*args, **kwargs)
        out = func(*args, **kwargs)
        name = func._schema.name.partition("::")[2]
        if name not in ALLOCATIONS and not _is_view(func, args, out):
            moved = sum(map(_bytes, _moved(func, name, args, kwargs, out)))
            self.each.append(Call(func._schema.name, moved, operations(func, args, kwargs, out)))
        return out


def counted(run: Callable[[], Any]) -> dict[str, int]:
    """Of one run: operator_calls and bytes_moved."""
    with Counter() as found:
        run()
    return {"operator_calls": len(found.each), "bytes_moved": found.bytes}


def _is_composed(func: Any) -> bool:
    """Whether PyTorch makes it of others; autograd has taken most of these apart already."""
    return torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd")


def _is_view(func: Any, args: tuple, out: Any) -> bool:
    if func._schema.is_mutable:
        return False
    given = {_storage(x) for x in _tensors(args)}
    results = list(_tensors(out))
    return bool(results) and all(_storage(x) in given for x in results)


def _moved(func: Any, name: str, args: tuple, kwargs: dict, out: Any) -> Iterator[Tensor]:
    """Each tensor that is read, then each that is written."""
    changed = []
    for place, argument in enumerate(func._schema.arguments):
        value = args[place] if place < len(args) else kwargs.get(argument.name)
        written = argument.alias_info is not None and argument.alias_info.is_write
        changed += _tensors(value) if written else []
        if not (written and (name in OVERWRITES or argument.is_out)):
            yield from _tensors(value)
    yield from changed
    known = {id(x) for x in changed}
    yield from (x for x in _tensors(out) if id(x) not in known)


def _tensors(tree: Any) -> Iterator[Tensor]:
    return (x for x in tree_leaves(tree) if isinstance(x, Tensor))


def _storage(x: Tensor) -> int:
    return x.untyped_storage()._cdata


def _bytes(x: Tensor) -> int:
    sizes = zip(x.shape, x.stride(), strict=True)
    return x.element_size() * prod(size for size, stride in sizes if stride or not size)
