"""Every operator on its usual case, forward and backward, once: what compute-sanitizer watches."""

from __future__ import annotations

import torch

from benchmarks.gpu.lab import Lab
from benchmarks.gpu.operators import call_of
from msclr.kernels._qualify.judge import in_dtype
from msclr.kernels._qualify.subjects import SUBJECTS, Subject


def measure(lab: Lab) -> None:
    for subject in SUBJECTS.values():
        for backend in lab.backends()[1:]:
            if backend not in subject.run.backends:
                continue
            for dtype in (torch.bfloat16, torch.float32):
                of = {"op": subject.name, "backend": backend, "dtype": str(dtype)}
                lab.row(lambda s=subject, b=backend, d=dtype: _run(lab, s, b, d), **of)


def _run(lab: Lab, subject: Subject, backend: str, dtype: torch.dtype) -> dict[str, str]:
    arguments = in_dtype(subject.cases.CASES[subject.usual](), dtype, lab.device)
    misfit = subject.run.supports.get(backend)
    if misfit and (why := misfit(arguments)):
        return {"not_run": why}
    call_of(subject, backend, arguments, bool(subject.gradients))()
    return {}
