"""Where the steps of gpu_check.sh measure: a GPU, or in a dry run the CPU, and where rows go."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from msclr import kernels

_FLUSH_BYTES = 128 * 2**20  # more than any second-level cache
_ROUNDS = 11


class Lab:
    """Seconds of runs, and rows that are on disk as soon as they are known."""

    def __init__(self, step: str, out: Path, dry: bool):
        self.step, self.out, self.dry, self.errors = step, out, dry, 0
        self.device = torch.device("cpu" if dry else "cuda")
        self.rounds = 1 if dry else _ROUNDS
        self._flush = torch.empty(8 if dry else _FLUSH_BYTES, dtype=torch.uint8, device=self.device)

    def backends(self) -> list[str]:
        """Those that can run here on this device, the reference first."""
        names = ("reference", "cpu", "triton") if self.dry else ("reference", "triton", "cuda")
        return [name for name in names if not kernels.backends()[name]]

    def write(self, **row: Any) -> None:
        """A line of JSON at the file's end, at once."""
        with self.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": self.step, "dry_run": self.dry, **row}) + "\n")

    def row(self, measure: Callable[[], dict[str, Any]], **of: Any) -> None:
        """A row of what is measured; or of the error, after which the next row is measured."""
        began = time.perf_counter()
        try:
            figures = measure()
            self.wait()
        except Exception as error:  # a kernel may fail in any way on a new GPU
            self.errors += 1
            lines = str(error).splitlines() or [""]
            figures = {"error": f"{type(error).__name__}: {lines[0][:500]}"}
        self.write(**of, **figures, took_s=time.perf_counter() - began)

    def wait(self) -> None:
        if not self.dry:
            torch.cuda.synchronize()

    def captured(self, run: Callable[[], Any]) -> Callable[[], Any]:
        """A replay of a CUDA graph of the run; in a dry run the run itself."""
        if self.dry:
            return run
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                run()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            run()
        return graph.replay

    def times(self, run: Callable[[], Any]) -> dict[str, Any]:
        """Median microseconds: of the host until it has asked for all, and of the device, eager and
        as a graph, its second-level cache flushed before each."""
        run()
        host, eager = self.seconds(run)
        figures = {"host_us": 1e6 * host, "eager_us": 1e6 * eager}
        try:
            _, replay = self.seconds(self.captured(run))
            figures["captured_us"] = 1e6 * replay
        except RuntimeError as error:  # such as a step that waits for the device
            figures["not_captured"] = str(error).splitlines()[0][:500]
            self.wait()
        return figures

    def seconds(self, run: Callable[[], Any]) -> tuple[float, float]:
        """Median seconds of the host and of the device."""
        found = [self._one(run) for _ in range(self.rounds)]
        host, device = zip(*found, strict=True)
        return statistics.median(host), statistics.median(device)

    def _one(self, run: Callable[[], Any]) -> tuple[float, float]:
        self._flush.zero_()
        self.wait()
        if self.dry:
            began = time.perf_counter()
            run()
            took = time.perf_counter() - began
            return took, took
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        began = time.perf_counter()
        run()
        host = time.perf_counter() - began
        end.record()
        end.synchronize()
        return host, 1e-3 * start.elapsed_time(end)
