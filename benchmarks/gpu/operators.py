"""Each operator on each backend: microseconds of the host and of the device, eager and captured."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from benchmarks.gpu.lab import Lab
from msclr.kernels._qualify.judge import in_dtype, run
from msclr.kernels._qualify.subjects import GRAPH_CONV, SUBJECTS, Subject
from msclr.kernels.graph_conv import cases as graph_conv

DTYPES = (torch.bfloat16, torch.float32)
UNWANTED = ("bank", "temperature", "keys")  # gradients that training does not ask for
# Joints, channels in and out, and frames of ST-GCN's layers; 256 tracks each.
LAYERS = [(25, 3, 16, 50), (25, 16, 16, 50), (25, 32, 32, 25), (25, 64, 64, 13), (42, 64, 64, 13)]
LAYERS += [(25, 64, 256, 13), (25, 64, 64, 50), (25, 256, 256, 13)]


def measure(lab: Lab) -> None:
    for name, subject, make in shapes(lab):
        made = make()
        for dtype in DTYPES[1:] if lab.dry else DTYPES:
            for backend in lab.backends():
                if backend in subject.run.backends and dtype in subject.dtypes:
                    row(lab, name, subject, made, dtype, backend)


def shapes(lab: Lab) -> list[tuple[str, Subject, Callable]]:
    """A name, a subject and what makes its arguments."""
    if lab.dry:
        return [(s.usual, s, s.cases.CASES[s.usual]) for s in SUBJECTS.values()]
    usual = [("a usual call", s, s.cases.TIMED) for s in SUBJECTS.values()]
    layers = [
        (f"{v} joints, {c} to {o}, {t} frames", GRAPH_CONV, partial(_layer, v, c, o, t))
        for v, c, o, t in LAYERS
    ]
    return usual + layers


def _layer(joints: int, channels: int, out: int, frames: int) -> Any:
    return graph_conv.make(256, channels, out, frames, joints, 3, dense=False)


def row(lab: Lab, name: str, subject: Subject, made: Any, dtype, backend: str) -> None:
    arguments = in_dtype(made, dtype, lab.device)
    of = {"op": subject.name, "shape": name, "dtype": str(dtype), "backend": backend}
    misfit = subject.run.supports.get(backend)
    if misfit and (why := misfit(arguments)):
        lab.write(**of, not_run=why)
        return
    lab.row(lambda: lab.times(call_of(subject, backend, arguments, False)), **of, part="forward")
    if subject.gradients:
        both = {**of, "part": "forward and backward"}
        lab.row(lambda: lab.times(call_of(subject, backend, arguments, True)), **both)


def call_of(subject: Subject, backend: str, arguments: Any, backward: bool) -> Callable:
    """A call of an operator, with the gradients that training asks for."""
    wanted = [name for name in subject.gradients if name not in UNWANTED]
    leaves = {
        name: value.detach().requires_grad_(backward)
        for name in wanted
        if (value := getattr(arguments, name)) is not None
    }
    given = arguments._replace(**leaves)

    def call() -> Any:
        result = run(subject, backend, given)["result 0"]
        if not backward:
            return result
        return torch.autograd.grad(result, list(leaves.values()), torch.ones_like(result))

    return call
