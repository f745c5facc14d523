"""Which backends can run here, and why not; _choice.py chooses one."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import logging
import os
from pathlib import Path

import torch
from torch import Tensor

_FOLDER = Path(__file__).parent
_REINSTALL = "reinstall with a C++ compiler at hand: pip install --no-build-isolation"

logger = logging.getLogger(__name__)


NAMES = ("reference", "cpu", "triton", "cuda")


def device_types(backend: str) -> tuple[str, ...]:
    """The types of devices whose tensors a backend takes."""
    if backend == "triton" and interpreted():
        return ("cpu", "cuda")
    return {"cpu": ("cpu",), "triton": ("cuda",), "cuda": ("cuda",)}.get(backend, ("cpu", "cuda"))


def misfit_of_dtype(backend: str, name: str, tensor: Tensor, *takes: torch.dtype) -> str:
    """Why a backend that takes some dtypes does not take this argument; "" where it does."""
    if tensor.dtype in takes:
        return ""
    names = " or ".join(str(d).removeprefix("torch.") for d in takes)
    return f"{name} must be {names} for {backend}, got {tensor.dtype}"


def interpreted() -> bool:
    """Whether Triton runs its kernels in its interpreter, on any device and slowly, for tests."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def backends() -> dict[str, str]:
    """Each backend's name -> "" where it can run here, else the reason why it cannot."""
    return {
        "reference": "",
        "cpu": _why_not_cpu(),
        "triton": _why_not_triton(),
        "cuda": _why_not_cuda(),
    }


def load_library() -> bool:
    """Load the compiled operators (schemas and CPU) into ``torch.ops.msclr``, once.

    Returns:
        Whether they are there. Never raises: without them the reference runs.
    """
    return not _library_problem()


@functools.cache
def _library_problem() -> str:
    problem = _load(_FOLDER / "_C.so")
    if not problem and (wanted := os.environ.get("MSCLR_CPU_ISA")):
        instruction_set(wanted)
    return problem


def instruction_set(wanted: str | None = None) -> str:
    """The instruction set of the compiled operators on the CPU: "portable", "avx2" or "avx512".

    Args:
        wanted: comes into use before; None leaves the best one that this processor has, or what the
            environment variable MSCLR_CPU_ISA names.

    Raises:
        ValueError: it is not known, or this processor does not have it.
    """
    choose_set = ctypes.CDLL(str(_FOLDER / "_C.so")).msclr_instruction_set
    choose_set.argtypes, choose_set.restype = [ctypes.c_char_p], ctypes.c_char_p
    found = choose_set(None if wanted is None else wanted.encode()).decode()
    if wanted is not None and found != wanted:
        raise ValueError(
            f"the instruction set must be portable, avx2 or avx512 and one that this processor "
            f"has, got {wanted!r}; it stays at {found}"
        )
    return found


@functools.cache
def _cuda_library_problem() -> str:
    if problem := _library_problem():  # which holds the schemas
        return problem
    return _load(_FOLDER / "_C_cuda.so")


def _load(path: Path) -> str:
    """Load a library of operators; empty where that worked, else the reason why not."""
    if not path.is_file():
        return f"the compiled operators are not installed; {_REINSTALL}"
    try:
        torch.ops.load_library(path)
    except (OSError, RuntimeError) as error:
        logger.warning("%s does not load, the reference runs instead: %s", path, error)
        return f"the compiled operators do not load ({error}); {_REINSTALL}"
    return ""


def _why_not_cpu() -> str:
    if problem := _library_problem():
        return problem
    if not torch._C._dispatch_has_kernel_for_dispatch_key("msclr::graph_conv", "CPU"):
        return "not built yet: the library holds no CPU implementation"
    return ""


@functools.cache
def has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def _why_not_triton() -> str:
    if not has_triton():
        return "needs the triton package: pip install triton"
    if not interpreted() and (problem := _why_not_nvidia()):
        return problem
    if not any(_FOLDER.glob("*/triton_launch.py")):
        return "not built yet: there are no Triton kernels"
    return ""


def _why_not_cuda() -> str:
    if problem := _why_not_nvidia():
        return problem
    return _cuda_library_problem()


def _why_not_nvidia() -> str:
    if torch.version.cuda is None:
        return "needs an NVIDIA GPU of sm_80 or later, and a PyTorch built for CUDA"
    if not torch.cuda.is_available():
        return "needs an NVIDIA GPU of sm_80 or later; PyTorch finds none"
    major, minor = torch.cuda.get_device_capability()
    if major < 8:
        return f"needs an NVIDIA GPU of sm_80 or later; this one is sm_{major}{minor}"
    return ""
