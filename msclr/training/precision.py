"""Which precision a run computes in, and what it costs where the device only emulates it."""

from __future__ import annotations

import os
import time

import torch
import torch.nn.functional as F

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

_ISA_VARIABLES = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")  # the first that is set counts
_ISA_WITH_BF16 = ("ALL", "DEFAULT", "BF16", "FP16", "AMX", "AVX10")  # in the names of those sets
_SHAPE, _KERNEL = (2, 32, 32, 25), (9, 1)  # a narrow block's temporal convolution of two tracks
_RUNS = 2


def choose_precision(device: torch.device) -> str:
    """What ``precision: auto`` is on a device: bf16 where it is native, else fp32."""
    return "bf16" if is_native("bf16", device) else "fp32"


def is_native(precision: str, device: torch.device) -> bool:
    """Whether a device multiplies in a precision itself, forward and backward.

    bf16 is native to GPUs of sm_80 and later, and to CPUs with AVX512_BF16 or AMX unless
    ``ATEN_CPU_CAPABILITY`` or ``ONEDNN_MAX_CPU_ISA`` keeps PyTorch from using them; fp16 to GPUs
    only: on CPUs PyTorch has no fast backward pass of convolutions in it.
    """
    if precision == "fp32":
        return True
    if device.type == "cuda":
        return precision == "fp16" or torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and precision == "bf16" and _cpu_has_bf16()


def _cpu_has_bf16() -> bool:
    isa = next((os.environ[x] for x in _ISA_VARIABLES if os.environ.get(x)), "ALL").upper()
    if not any(name in isa for name in _ISA_WITH_BF16):
        return False
    if not torch.backends.mkldnn.is_available():
        return False
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX512"):
        return False
    asks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # private, so they may go
    return any(getattr(torch.cpu, name, bool)() for name in asks)


def describe(precision: str, asked: str, device: torch.device) -> str:
    """The line that says which precision a run has, and why where the recipe left it open."""
    if asked != "auto":
        return f"precision {precision}"
    if precision != choose_precision(device):
        return f"precision {precision} (auto; as it was when the run began)"
    native = "bf16 is native to" if precision == "bf16" else "no native bf16 on"
    return f"precision {precision} (auto; {native} this {device.type.upper()})"


def emulation_warning(precision: str, device: torch.device) -> str | None:
    """The line that says how much slower than fp32 an emulated precision is; None if it is not."""
    factor = 1.0 if is_native(precision, device) else slowdown(precision, device)
    if factor <= 1:
        return None
    return (
        f"{precision} is emulated on this {device.type.upper()}: a small convolution takes "
        f"{factor:.1f} times as long as in fp32; a new run is faster with precision=auto"
    )


def slowdown(precision: str, device: torch.device) -> float:
    """How many times as long as in float32 a small convolution takes, forward and backward.

    It takes well under a second even where emulation is slowest.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # on a busy machine threads that wait for each other hide the factor
    try:
        return _seconds(precision, device) / _seconds("fp32", device)
    finally:
        torch.set_num_threads(threads)


def _seconds(precision: str, device: torch.device) -> float:
    """The least time of a few runs, after one that is not counted."""
    channels = _SHAPE[1]
    x = torch.ones(_SHAPE, device=device).contiguous(memory_format=torch.channels_last)
    x.requires_grad_()  # (N, C, T, V)
    weight = torch.ones(channels, channels, *_KERNEL, device=device, requires_grad=True)
    # A thread's own time, for a busy machine takes the processor away in the middle of a run.
    clock = time.thread_time if device.type == "cpu" else time.perf_counter
    times = []
    for _ in range(1 + _RUNS):
        began = clock()
        with torch.autocast(device.type, DTYPES[precision], enabled=precision != "fp32"):
            y = F.conv2d(x, weight, padding=(_KERNEL[0] // 2, 0))
        y.backward(torch.ones_like(y))
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(clock() - began)
    return min(times[1:])
