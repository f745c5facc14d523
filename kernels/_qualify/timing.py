"""How long a call takes, as users make it: forward and backward, against the reference's."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from msclr.kernels._qualify.judge import in_dtype, run
from msclr.kernels._qualify.subjects import Subject

_ROUNDS, _SECONDS = 9, 0.5  # as many rounds as fit, at least three


def time_both(
    subject: Subject, backend: str, dtype: torch.dtype, device: torch.device
) -> tuple[float, float]:
    """The least seconds of a few calls of the backend and of the reference, which take turns: what
    else the machine does only adds to them."""
    given = subject.cases.TIMED()
    arguments = in_dtype(given, dtype, device)
    scalars = {  # where users have them
        name: value
        for name, value in given._asdict().items()
        if torch.is_tensor(value) and value.dim() == 0
    }
    calls = [_call(subject, name, arguments._replace(**scalars)) for name in (backend, "reference")]
    for call in calls:
        if _seconds(call, device) < _SECONDS:
            _seconds(call, device)
    times: list[list[float]] = [[], []]
    began = time.perf_counter()
    while len(times[0]) < 3 or (len(times[0]) < _ROUNDS and time.perf_counter() - began < _SECONDS):
        for known, call in zip(times, calls, strict=True):
            known.append(_seconds(call, device))
    return min(times[0]), min(times[1])


@contextmanager
def alone(lock: str | None):
    """Inside the block, no other process with the same lock is timed."""
    if lock is None:
        yield
        return
    try:
        import fcntl
    except ImportError:  # not on Windows
        yield
        return
    with Path(lock).open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _call(subject: Subject, backend: str, arguments: Any) -> Callable[[], None]:
    # As in training, where a bank is a queue and the temperature a number.
    wanted = [n for n in subject.gradients if n not in ("bank", "temperature", "keys")]
    leaves = {
        name: value.detach().requires_grad_()
        for name in wanted
        if (value := getattr(arguments, name)) is not None
    }
    given = arguments._replace(**leaves)

    def call() -> None:
        result = run(subject, backend, given)["result 0"]
        if leaves:
            torch.autograd.grad(result, list(leaves.values()), torch.ones_like(result))

    return call


def _seconds(call: Callable[[], None], device: torch.device) -> float:
    began = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began
