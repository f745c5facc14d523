"""What a training step in bfloat16 should take on an H100, from the operators that it calls.

The step is that of `step`, with ours and with plain PyTorch's under autocast, counted on the CPU
(counting.py). Each contestant's calls are counted with few clips, twice: operators are the same for
any number of clips, and bytes and operations grow by the same amount with each, so those of a large
batch follow without running it. A call takes the longest of three times,

    its bytes over MEMORY_RATE; its matrix operations over MATRIX_RATE; its launches, KERNEL each

A captured step is the sum of these. An eager one takes that or the host's time for all calls,
whichever is longer. None of it was measured: a GPU is to confirm or refute it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import torch

from benchmarks import step
from benchmarks.counting import Call, Counter
from benchmarks.options import positive
from benchmarks.runner import Case, Part, Setup

MEMORY_RATE = 3.0e12  # bytes per second, read and written
MATRIX_RATE = 600e12  # bfloat16 operations a second, of products that are large enough
KERNEL = 2.0e-6  # seconds that a captured kernel takes at the least
KERNELS_OF_OURS = 3  # that an operator of msclr launches: lists or tables, the work, its sums
HOST = 6e-6  # seconds of the host for an operator of PyTorch
HOST_FORWARD, HOST_BACKWARD = 60e-6, 120e-6  # for one of msclr; these are targets
FORMS = ("ours", "exact", "padded")
QUEUE = 32768  # keys
FEW = 2, 4  # clips that are counted


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--clips", type=positive, default=128, help="of a batch (default: 128)")
    parser.add_argument("--frames", type=positive, default=50, help="of a clip (default: 50)")


def cases(args: argparse.Namespace) -> list[Case]:
    rest = {"B": args.clips, "M": 2, "T": args.frames, "width": step.CHANNELS, "D": step.DIM}
    rest |= {"Q": QUEUE, "dtype": "bfloat16"}
    return [Case({"op": "predict", "query": q, "key": k, **rest}) for q, k in step.PAIRS]


def parts(case: Case, args: argparse.Namespace) -> Iterator[Part]:
    steps = {name: predicted(calls(name, case.sizes)) for name in FORMS}
    ours = steps["ours"]["captured"]
    ratio = {f"{name} over ours, captured": steps[name]["captured"] / ours for name in FORMS[1:]}
    yield Part({}, more={"steps": steps, "ratio": ratio})


def calls(name: str, sizes: dict[str, Any]) -> list[Call]:
    """The calls of a step of ``sizes["B"]`` clips, from those of steps of few."""
    fewer, more = (_counted(name, sizes | {"B": clips}) for clips in FEW)
    if [call.operator for call in fewer] != [call.operator for call in more]:
        raise RuntimeError(f"{name} calls other operators with {FEW[0]} and with {FEW[1]} clips")
    steps = (sizes["B"] - FEW[0]) / (FEW[1] - FEW[0])
    return [
        Call(a.operator, *(round(x + steps * (y - x)) for x, y in zip(a[1:], b[1:], strict=True)))
        for a, b in zip(fewer, more, strict=True)
    ]


def _counted(name: str, sizes: dict[str, Any]) -> list[Call]:
    run = step.step_of(name, sizes, step.batch(sizes))
    with torch.autocast("cpu", torch.bfloat16):
        run()  # what is made once and kept
    with torch.autocast("cpu", torch.bfloat16), Counter() as found:
        run()
    return found.each


def predicted(calls: list[Call]) -> dict[str, float]:
    """Seconds of a step, and what they are made of."""
    moved, operations = (sum(call[place] for call in calls) for place in (1, 2))
    device, host = sum(map(_device, calls)), sum(map(_host, calls))
    return {
        "operator_calls": len(calls),
        "bytes_moved": moved,
        "operations": operations,
        "byte_limit": moved / MEMORY_RATE,
        "captured": device,
        "eager": max(device, host),
        "host": host,
    }


def _device(call: Call) -> float:
    kernels = KERNELS_OF_OURS if call.operator.startswith("msclr::") else 1
    return max(call.bytes / MEMORY_RATE, call.operations / MATRIX_RATE, kernels * KERNEL)


def _host(call: Call) -> float:
    if not call.operator.startswith("msclr::"):
        return HOST
    return HOST_BACKWARD if call.operator.endswith("_backward") else HOST_FORWARD


SETUP = Setup("2 minutes", file="h100-bfloat16", rounds=0, devices=("cpu",))
