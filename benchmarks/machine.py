"""Seconds, memory and the ceilings of the machine that a measurement is taken on."""

from __future__ import annotations

import ctypes
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

WARM_UP = 2  # rounds before those that count


def side_by_side(
    candidates: dict[str, Callable[[], Any]], device: torch.device, rounds: int = 15
) -> dict[str, dict[str, float]]:
    """Seconds of each candidate: median, p20 and p80 of rounds in which all take turns."""
    seconds = _seconds_on_gpu if device.type == "cuda" else _seconds
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for round_number in range(rounds + WARM_UP):
        for name, run in candidates.items():
            took = seconds(run)
            if round_number >= WARM_UP:
                times[name].append(took)
    return {name: spread(values) for name, values in times.items()}


def _seconds(run: Callable[[], Any]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def _seconds_on_gpu(run: Callable[[], Any], calls: int = 5) -> float:
    """Of one of several calls in a row, so that the GPU does not wait for Python's first."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    for _ in range(calls):
        run()
    end.record()
    torch.cuda.synchronize()
    return 1e-3 * start.elapsed_time(end) / calls


def spread(values: Sequence[float]) -> dict[str, float]:
    p20, *_, p80 = statistics.quantiles(values, n=5, method="inclusive")
    return {"median": statistics.median(values), "p20": p20, "p80": p80}


def peak_extra_bytes(run: Callable[[], Any], device: torch.device) -> int:
    """How far memory grows at most while ``run`` runs: what it returns counts as well.

    On a CPU that is the process's resident memory (Linux), all allocators' together.
    """
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    ctypes.CDLL(None).malloc_trim(0)  # what was freed before would be used again unseen
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = _resident("VmRSS")
    run()
    return _resident("VmHWM") - before


def free_bytes(device: torch.device) -> int:
    """Memory that is to be had on a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return _kilobytes(Path("/proc/meminfo"), "MemAvailable")


def _resident(which: str) -> int:
    return _kilobytes(Path("/proc/self/status"), which)


def _kilobytes(path: Path, which: str) -> int:
    lines = path.read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(which))


def ceilings(device: torch.device, dtype: torch.dtype) -> dict[str, float]:
    """GB/s of a large copy (read plus written) and GFLOP/s of a large matrix product."""
    size = 2**26 if device.type == "cpu" else 2**29
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    n = 2048 if device.type == "cpu" else 8192
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    times = side_by_side(
        {"copy": lambda: target.copy_(source), "gemm": lambda: torch.mm(a, b, out=out)}, device, 7
    )
    return {
        "copy_gb_s": 2e-9 * size / times["copy"]["median"],
        "gemm_gflop_s": 2e-9 * n**3 / times["gemm"]["median"],
    }
