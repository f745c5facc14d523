"""An operator that is made up, with backends that are wrong in every way."""

from __future__ import annotations

import ctypes
import os
import time
from functools import partial
from types import SimpleNamespace
from typing import NamedTuple

import torch
from torch import Tensor

from msclr.kernels._cases import Draw
from msclr.kernels._operator import Operator
from msclr.kernels._qualify.subjects import GRAPH_CONV, Subject
from msclr.kernels.graph_conv import cases as graph_conv_cases


class Arguments(NamedTuple):
    x: Tensor  # (N,)
    factor: Tensor  # (N,)


def reference(x, factor):
    time.sleep(0.002)
    return x * factor


def right(x, factor):
    return x * factor


def wrong(x, factor):
    return x * factor + (0 if len(x) < 5 else 0.01)


def not_finite(x, factor):
    return x * factor / (x != x[0])


def wrong_gradient(x, factor):
    return x.detach() * factor + 2 * (x - x.detach())


def restless(x, factor, calls=[0]):  # noqa: B006
    calls[0] += 1
    return x * factor * (1 + 1e-7 * calls[0])


def slow(x, factor):
    time.sleep(0.02)
    return x * factor


def reads_scratch(x, factor):
    return x * factor + 0 * torch.empty(10_000_000)[0]


def raises(x, factor):
    raise RuntimeError("an illegal memory access was encountered\nand more")


def short_of_memory(x, factor):
    raise torch.OutOfMemoryError("out of memory")


def crashes(x, factor):
    ctypes.string_at(0)


def make(count: int) -> Arguments:
    draw = Draw()
    return Arguments(draw.normal(count), draw.normal(count))


fake = Operator(
    "fake",
    reference=reference,
    right=right,
    wrong=wrong,
    not_finite=not_finite,
    wrong_gradient=wrong_gradient,
    restless=restless,
    slow=slow,
    reads_scratch=reads_scratch,
    raises=raises,
    short_of_memory=short_of_memory,
    crashes=crashes,
    leaves=lambda x, factor: os._exit(0),
    hangs=lambda x, factor: time.sleep(1000),
    picky=right,
    supports={"picky": lambda a: "at least 5 rows" if len(a[0]) < 5 else ""},
)
CASES = {"three": partial(make, 3), "seven": partial(make, 7)}
FAKE = Subject(
    "fake",
    fake,
    SimpleNamespace(
        CASES=CASES,
        QUALIFYING=("three", "seven"),
        TIMED=partial(make, 9),
        __file__=__file__,
        __package__=__package__,
    ),
    "three",
    "seven",
    ("x", "factor"),
    results=1,
    dtypes=(torch.float64, torch.float32),
)

# Few small cases, for Triton's interpreter.
FEW = Subject(
    "graph_conv",
    GRAPH_CONV.run,
    SimpleNamespace(
        CASES=graph_conv_cases.CASES,
        QUALIFYING=("two joints, odd channels",),
        TIMED=graph_conv_cases.CASES["one joint"],
        __file__=graph_conv_cases.__file__,
        __package__=graph_conv_cases.__package__,
    ),
    "one joint",
    "one joint",
    GRAPH_CONV.gradients,
    results=1,
)
