"""Triton programs compiled for a GPU that is not there, and what can be read off the result."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from unittest import mock

import triton
from triton.backends import nvidia
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

SHARED_BYTES = {80: 163 * 1024, 90: 227 * 1024}  # that a program may have, by compute capability


@dataclass
class Program:
    """A compiled program."""

    name: str
    shared: int  # bytes of shared memory
    registers: int  # a thread
    stack: int  # bytes of local memory a thread: more than 0 where registers did not suffice
    cubin: bytes

    @cached_property
    def sass(self) -> str:
        return _tool("nvdisasm", self.cubin)

    def count(self, instruction: str) -> int:
        """How often an instruction, a regular expression, occurs in the machine code."""
        return len(re.findall(rf"\b{instruction}\b", self.sass))


class _AbsentGPU:
    """The part of Triton's driver that is asked before a launch."""

    def __init__(self, capability: int):
        self.capability = capability

    def get_current_device(self) -> int:
        return self.capability  # programs are cached by device

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.capability, 32)


def compile_launches(capability: int, call: Callable[[], object]) -> list[Program]:
    """Every program that ``call`` would launch, with the very arguments; nothing is run.

    Args:
        capability: of the GPU, 80 or 90.
        call: a function that launches; its tensors may lie on the CPU, what it returns is noise.
    """
    compiled = []
    with _launches(capability, compiled.append):
        call()
    return [_examine(kernel) for kernel in compiled]


@contextmanager
def _launches(capability: int, take: Callable) -> Iterator[None]:
    run = JITFunction.run

    def compile_only(self, *args, grid, warmup, **options):
        take(run(self, *args, grid=grid, warmup=True, **options))

    before = driver._active
    driver.set_active(_AbsentGPU(capability))
    try:
        with mock.patch.object(JITFunction, "run", compile_only):
            yield
    finally:
        driver._active = before


def _examine(kernel: triton.compiler.CompiledKernel) -> Program:
    cubin = kernel.asm["cubin"]
    usage = _tool("cuobjdump", cubin, "-res-usage")
    registers, stack = map(int, re.search(r"REG:(\d+) STACK:(\d+)", usage).groups())
    return Program(kernel.metadata.name, kernel.metadata.shared, registers, stack, cubin)


def _tool(name: str, cubin: bytes, *options: str) -> str:
    """What one of the programs that come with Triton prints of machine code."""
    program = Path(nvidia.__file__).parent / "bin" / name
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [program, *options, file.name]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
