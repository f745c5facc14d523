"""What a result was measured on: device, CPU, versions and commit."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

import msclr

ROOT = Path(__file__).parents[1]
CPUINFO = Path("/proc/cpuinfo")
# Of the CPU's own flags, those that decide which code runs; Arm's are the last three.
FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16", "asimd", "sve", "bf16")
# Variables that hold code back to an older instruction set: PyTorch's, oneDNN's and our own.
LIMITS = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MSCLR_CPU_ISA")


def describe(device: torch.device) -> dict[str, Any]:
    """Device, CPU, versions and commit: what every row of a result needs next to its figures."""
    cpu = describe_cpu()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu["model"]
    return {
        "device": name,
        "cpu": cpu,
        "threads": torch.get_num_threads(),
        "malloc": os.environ.get("GLIBC_TUNABLES", "as it comes"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "msclr": msclr.__version__,
        "commit": commit(),
    }


def describe_cpu() -> dict[str, Any]:
    """Model and instruction set: PyTorch's choice, the CPU's flags, and what limits either."""
    lines = CPUINFO.read_text().splitlines() if CPUINFO.is_file() else []
    pairs = [line.split(":", 1) for line in lines if ":" in line]
    fields = {key.strip(): value.strip() for key, value in reversed(pairs)}  # of the first core
    flags = fields.get("flags", fields.get("Features", "")).split()
    return {
        "model": fields.get("model name") or platform.processor() or platform.machine(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "flags": [flag for flag in FLAGS if flag in flags],
        "environment": limits(),
    }


def limits() -> dict[str, str]:
    """The variables that are set and hold code back to an older instruction set."""
    return {name: os.environ[name] for name in LIMITS if os.environ.get(name)}


def setting(device: torch.device, backend: str | None) -> str:
    """The part of a file's name that says how: malloc's tuning on a CPU, the backend on a GPU."""
    if device.type == "cpu":
        return "tuned" if "GLIBC_TUNABLES" in os.environ else "plain"
    return backend or "default"


def commit() -> str:
    """The commit's short name, with "-dirty" where files differ from it; "unknown" without git."""
    try:
        return _git("rev-parse", "--short", "HEAD") + "-dirty" * bool(changes())
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def changes() -> list[str]:
    """Files that differ from the commit or are new to it. Published results do not count, so that
    several can be measured before all are committed."""
    everything = ":(top)", ":(top,exclude,glob)**/benchmarks/results/**"
    return _git("status", "--porcelain", "--", *everything).splitlines()


def _git(*command: str) -> str:
    done = subprocess.run(["git", *command], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.rstrip()
