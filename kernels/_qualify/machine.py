"""What a verdict holds for: a device, its driver, and the versions that kernels are made by."""

from __future__ import annotations

import hashlib
import platform
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

import torch

from msclr.kernels import _backend, _block_sizes
from msclr.kernels._qualify.subjects import Subject

_KERNELS = Path(__file__).resolve().parents[1]
_LIBRARY = {"cpu": "_C.so", "cuda": "_C_cuda.so"}


@dataclass(frozen=True)
class Machine:
    """A device and what drives it."""

    device: str
    capability: str
    driver: str
    torch: str
    triton: str


def describe(device: torch.device) -> Machine:
    """The machine that a device is part of."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        major, minor = torch.cuda.get_device_capability(device)
        capability, driver = f"sm_{major}{minor}", _nvidia_driver()
    else:
        name, driver = _processor(), ""
        compiled = _backend.instruction_set() if _backend.load_library() else "none"
        capability = f"{compiled}, {torch.backends.cpu.get_cpu_capability()}"
    return Machine(name, capability, driver, torch.__version__, _triton_version())


def takes_gpu_backends(device: torch.device) -> bool:
    """Whether a GPU is of sm_80 or later; any other device is not asked for it."""
    return device.type != "cuda" or torch.cuda.get_device_capability(device) >= (8, 0)


def sources_of(subject: Subject, backend: str) -> str:
    """A hash of all that a backend's code is made of, and of what judges it."""
    folders = [subject.folder, *(_KERNELS / part for part in subject.parts)]
    files = [path for folder in folders for path in sorted(folder.glob("*.py"))]
    files += sorted([*_KERNELS.glob("*.py"), *(_KERNELS / "_qualify").glob("*.py")])
    if backend in _LIBRARY:
        files.append(_KERNELS / _LIBRARY[backend])
    return _hash_of(tuple(files), _block_sizes.block_sizes_hash() if backend == "triton" else "")


@cache
def _hash_of(files: tuple[Path, ...], more: str) -> str:
    digest = hashlib.sha256(more.encode())
    for path in files:
        digest.update(path.name.encode())
        digest.update(path.read_bytes() if path.is_file() else b"")
    return digest.hexdigest()[:16]


def _triton_version() -> str:
    try:
        version = metadata.version("triton")
    except metadata.PackageNotFoundError:
        return ""
    return f"{version}, interpreted" if _backend.interpreted() else version


def _nvidia_driver() -> str:
    loaded = Path("/sys/module/nvidia/version")
    if loaded.is_file():
        return loaded.read_text(encoding="utf-8").strip()
    return str(torch._C._cuda_getDriverVersion())


@cache
def _processor() -> str:
    described = Path("/proc/cpuinfo")
    if described.is_file():
        for line in described.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
