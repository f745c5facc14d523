"""Which backend runs a call that names none: an override, what qualified here, or the default.

A backend of a GPU is a default only where it has qualified (see :mod:`msclr.kernels._qualify`); the
one on the CPU is tested wherever this library is built, and needs no trial.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

import torch

from msclr.kernels._backend import NAMES, backends, device_types

AUTO = "auto"
FAMILIES: dict[str, tuple[torch.dtype, ...]] = {
    "half": (torch.bfloat16, torch.float16),
    "single": (torch.float32,),
    "tf32": (torch.float32,),  # where PyTorch multiplies float32 so
    "double": (torch.float64,),
}
_FAMILY_OF = {dtype: name for name in ("half", "single", "double") for dtype in FAMILIES[name]}

qualifying_types = ("cuda",)  # of devices whose backends have to qualify
# os.environ encodes a name in each look-up, which takes longer than all else that choosing does.
_VARIABLE = "MSCLR_BACKEND"
_environment = getattr(os.environ, "_data", os.environ)
_variable = os.environ.encodekey(_VARIABLE) if hasattr(os.environ, "_data") else _VARIABLE
_forced: ContextVar[str | None] = ContextVar("msclr_backend", default=None)
_latest: str | None = None  # what a trace sees, which cannot read context variables

# Of each device whose verdicts are known: (operator, family) -> its backends that qualified, the
# fastest first.
_adopted: dict[torch.device, Mapping[tuple[str, str], tuple[str, ...]]] = {}
_lock = threading.Lock()
_orders: list[dict] = []  # what operators remember, to be forgotten when verdicts come
_said: set[str] = set()

logger = logging.getLogger(__name__)


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Inside the block, operators run on this backend; those without it run on their default.

    It counts for the calls of this thread (or task) that name no backend themselves, and goes
    before the environment variable ``MSCLR_BACKEND``. A call whose tensors are on a device that the
    backend does not take is an error.

    Args:
        name: "reference", "cpu", "triton" or "cuda" (see :func:`msclr.kernels.backends`); or
            "auto" for the defaults, whatever is in force around it.

    Raises:
        ValueError: no such backend, or it cannot run here.
    """
    global _latest
    check_override(name)
    token, before = _forced.set(name), _latest
    _latest = name
    try:
        yield
    finally:
        _latest = before
        _forced.reset(token)


def check_override(name: str, device: torch.device | None = None) -> None:
    """Raise ValueError unless a backend can be asked for, for tensors on ``device`` if given."""
    if name in ("", AUTO):
        return
    if name not in NAMES:
        raise ValueError(f"backend must be one of {', '.join(NAMES)} or {AUTO}, got {name!r}")
    if problem := backends()[name]:
        raise ValueError(f"backend {name!r} cannot run here: {problem}")
    if device is not None and device.type not in device_types(name):
        types = " or ".join(device_types(name))
        raise ValueError(f"backend {name!r} takes tensors on {types}, not on {device.type}")


def forced() -> str | None:
    """The backend that an override asks for, or None."""
    if torch.compiler.is_compiling():
        name = _latest or os.environ.get(_VARIABLE)
    else:
        name = _forced.get()
        if name is None and _environment.get(_variable) is not None:
            name = os.environ[_VARIABLE]
    if name is None or name in ("", AUTO):
        return None
    if name not in NAMES:
        raise ValueError(f"MSCLR_BACKEND must be one of {', '.join(NAMES)} or {AUTO}, got {name!r}")
    return name


def qualification_is_on() -> bool:
    """Whether backends may qualify, by the environment variable ``MSCLR_QUALIFY``."""
    value = os.environ.get("MSCLR_QUALIFY", "on")
    if value not in ("on", "off", ""):
        raise ValueError(f"MSCLR_QUALIFY must be on or off, got {value!r}")
    return value != "off"


def family_of(device: torch.device, dtype: torch.dtype) -> str:
    """The family that a call's dtype is of, for each of which there are verdicts; or ""."""
    if dtype == torch.float32 and device.type == "cuda" and tf32():
        return "tf32"
    return _FAMILY_OF.get(dtype, "")


def tf32() -> bool:
    return torch.backends.cuda.matmul.fp32_precision == "tf32"


def order(operator: str, device: torch.device, family: str) -> tuple[tuple[str, ...], bool]:
    """Names of the backends to try, the fastest first; and whether that is to be remembered."""
    if device.type not in qualifying_types:
        return (("cpu", "reference") if device.type == "cpu" else ("reference",)), True
    verdicts = _adopted.get(device)
    if verdicts is None:
        if torch.compiler.is_compiling() or _capturing(device):
            _say_unknown(str(device))
            return ("reference",), False
        verdicts = _load(device)
    return (*verdicts.get((operator, family), ()), "reference"), True


def adopt(device: torch.device, verdicts: Mapping[tuple[str, str], tuple[str, ...]]) -> None:
    """From now on, operators run on what qualified on a device."""
    with _lock:
        _adopted[device] = dict(verdicts)
        for known in _orders:
            known.clear()


def remembers(known: dict) -> dict:
    """A dictionary that is emptied when verdicts come."""
    _orders.append(known)
    return known


def first_time(what: str) -> bool:
    """Whether this process asks for the first time."""
    with _lock:
        first = what not in _said
        _said.add(what)
    return first


def _load(device: torch.device) -> Mapping[tuple[str, str], tuple[str, ...]]:
    """The verdicts that are on disk; nothing is decided in the middle of somebody's call."""
    from msclr.kernels._qualify import stored

    there = device.type != "cuda" or torch.cuda.is_available()  # or it is a fake tensor's
    verdicts, complete = stored(device) if there and qualification_is_on() else ({}, True)
    with _lock:
        _adopted.setdefault(device, verdicts)
    if not complete:
        _say_unknown(str(device))
    return _adopted[device]


def _capturing(device: torch.device) -> bool:
    on_gpu = device.type == "cuda" and torch.cuda.is_available()
    return on_gpu and torch.cuda.is_current_stream_capturing()


@torch.compiler.assume_constant_result
def _say_unknown(device: str) -> bool:
    """Once a device. A trace runs it on the spot, and takes its result for a constant."""
    if first_time(device):
        logger.warning(
            "it is not decided yet which kernels are right and fast on %s, so PyTorch's own run; "
            "msclr.kernels.prepare(%r) before, or `msclr doctor` once, decides",
            device,
            device,
        )
    return True
