"""A whole bfloat16 training step of MS-AimCLR by each backend, eager and captured: its time, what
it launches, its longest kernels, and where it waits for the device."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import step
from benchmarks.gpu.lab import Lab
from msclr import kernels
from msclr.methods import Batch, View

SIZES = {"M": 2, "T": 50, "width": step.CHANNELS, "D": step.DIM}
TOP = 12  # kernels that are named


def measure(lab: Lab) -> None:
    few = {"B": 2, "Q": 64} if lab.dry else {"B": 128, "Q": 32768}
    pairs = step.PAIRS[:1] if lab.dry else step.PAIRS
    for query, key in pairs:
        sizes = SIZES | few | {"query": query, "key": key}
        for backend in ("auto",) if lab.dry else ("auto", *lab.backends()):
            lab.row(lambda s=sizes, b=backend: _figures(lab, s, b), **sizes, backend=backend)


def _figures(lab: Lab, sizes: dict[str, Any], backend: str) -> dict[str, Any]:
    run = step_of(lab, sizes, backend)
    run(), run()
    waits = _waits(lab, run)
    found = {"waits": len(waits), "where": sorted(set(waits)), **_profile(lab, run)}
    return found | lab.times(run)


def step_of(lab: Lab, sizes: dict[str, Any], backend: str) -> Callable[[], None]:
    """As pretraining makes it, of the same clips each time."""
    model = step.contestant("ours", sizes).to(lab.device)
    clips = [x.to(lab.device) for x in step.batch(sizes)]
    rows, present = torch.arange(sizes["B"]), torch.ones(sizes["B"], sizes["M"], dtype=torch.bool)
    query, extreme, key = (View(x, rows, present) for x in clips)
    views = Batch({sizes["query"]: query}, {sizes["key"]: key}, {sizes["query"]: extreme})
    parameters = list(model.query.parameters())
    optimizer = torch.optim.SGD(parameters, 0.01, momentum=0.9, weight_decay=1e-4, fused=True)
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)

    def run() -> None:
        with torch.autocast(lab.device.type, torch.bfloat16), kernels.use_backend(backend):
            out = model(views)
        optimizer.zero_grad(set_to_none=False)
        out.loss.backward()
        optimizer.step()
        model.enqueue(out.keys)

    return run


def _waits(lab: Lab, run: Callable[[], None]) -> list[str]:
    """The lines at which the host waited for the device."""
    with warnings.catch_warnings(record=True) as caught, _debugged(lab):
        warnings.simplefilter("always")
        run()
    return [f"{w.filename}:{w.lineno}" for w in caught if "synchroniz" in str(w.message)]


@contextmanager
def _debugged(lab: Lab) -> Iterator[None]:
    if lab.dry:
        yield
        return
    torch.cuda.set_sync_debug_mode("warn")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def _profile(lab: Lab, run: Callable[[], None]) -> dict[str, Any]:
    """How much is launched, and the longest in all: name, calls, microseconds."""
    kind = ProfilerActivity.CPU if lab.dry else ProfilerActivity.CUDA
    with profile(activities=[kind]) as profiler:
        run()
        lab.wait()
    of = "self_cpu_time_total" if lab.dry else "self_device_time_total"
    found = sorted(profiler.key_averages(), key=lambda event: -getattr(event, of))
    top = [[e.key[:120], e.count, getattr(e, of)] for e in found[:TOP]]
    return {"launches": sum(event.count for event in found), "top": top}
