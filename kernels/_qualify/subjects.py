"""The operators that are tried, and what must be known to try one; tests use the same."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType

import torch

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

_FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Subject:
    """An operator and how it is tried.

    ``cases`` is a module with ``CASES``, ``QUALIFYING`` (the names of those that are tried here)
    and ``TIMED``, which makes the arguments of a usual call.
    """

    name: str  # of torch.ops.msclr
    run: Operator
    cases: ModuleType
    usual: str  # the case that is tried with other strides as well
    halves: str  # the case that is large enough for an error to be more than chance
    gradients: tuple[str, ...]
    results: int  # that are compared; those after them are kept for the backward pass
    dtypes: tuple[torch.dtype, ...] = _FLOATS
    conditioning: float = 1.0  # of an operator that divides by deviations of few rows
    parts: tuple[str, ...] = ()  # folders of other operators whose code it runs

    @property
    def folder(self) -> Path:
        return Path(self.cases.__file__).parent

    def largest_logit(self, arguments) -> float:
        """A bound of the operators that have logits; 0 of others."""
        if not hasattr(arguments, "temperature") or not arguments[0].numel():
            return 0.0
        return (arguments[0].norm(dim=-1).max() / arguments.temperature).item()

    @contextmanager
    def half_throughout(self) -> Iterator[None]:
        """Inside the block, the reference computes in half precision what is given so."""
        module = sys.modules[f"{self.cases.__package__}.reference"]
        before = getattr(module, "at_least_float32", None)
        module.at_least_float32 = lambda t: t
        try:
            yield
        finally:
            if before is None:
                del module.at_least_float32
            else:
                module.at_least_float32 = before


GRAPH_CONV = Subject(
    "graph_conv",
    graph_conv.masked_graph_conv,
    graph_conv_cases,
    "mixed layouts, one without joints",
    "16 channels, any adjacency",
    ("x", "weight", "bias", "adjacency"),
    results=1,
)
INFO_NCE = Subject(
    "info_nce",
    info_nce.info_nce,
    info_nce_cases,
    "mined",
    "forty columns",
    ("queries", "keys", "bank", "temperature"),
    results=4,
)
MULTI_VIEW = Subject(
    "multi_view_info_nce",
    multi_view.multi_view_info_nce,
    multi_view_cases,
    "two views",
    "two tiles",
    ("views", "temperature", "candidates", "bank"),
    results=1,
)
AUGMENT = Subject(
    "augment",
    augment.augment,
    augment_cases,
    "extreme, bone",
    "extreme, bone",
    (),
    results=1,
    dtypes=_FLOATS[1:],
)
BLOCK = Subject(
    "stgcn_block",
    block.stgcn_block,
    block_cases,
    "a little dropout, odd channels",
    "stride 2",
    block.GRADIENTS,
    results=2,
    conditioning=8.0,
    parts=("graph_conv", "temporal_conv"),
)
DROP_POOL = Subject(
    "drop_pool",
    drop_pool.drop_pool,
    drop_pool_cases,
    "odd channels, three layouts",
    "wide",
    ("x",),
    results=3,
)
# What a training step needs most comes first: time may run out.
SUBJECTS = {
    f"{__name__}:{attribute}": globals()[attribute]
    for attribute in ("BLOCK", "GRAPH_CONV", "INFO_NCE", "AUGMENT", "DROP_POOL", "MULTI_VIEW")
}


def find(where: str) -> Subject:
    """The subject that "module:name" tells a process where to find."""
    module, _, attribute = where.partition(":")
    return getattr(import_module(module), attribute)
