"""What the machine is, whether both libraries load, and its ceilings: a copy and a product."""

from __future__ import annotations

import torch

from benchmarks import machine
from benchmarks.gpu.lab import Lab
from benchmarks.origin import describe
from msclr import kernels


def measure(lab: Lab) -> None:
    lab.row(lambda: describe(lab.device), what="machine")
    lab.row(kernels.backends, what="backends")
    for dtype in (torch.bfloat16,) if lab.dry else (torch.bfloat16, torch.float32):
        lab.row(lambda dtype=dtype: _ceilings(lab, dtype), what="ceilings", dtype=str(dtype))


def _ceilings(lab: Lab, dtype: torch.dtype) -> dict[str, float]:
    return {} if lab.dry else machine.ceilings(lab.device, dtype)
