"""driver.cpp from Python: the CUDA kernels of masked_graph_conv, run as C++ (see cuda.h)."""

from __future__ import annotations

import ctypes
import shlex
import subprocess
from pathlib import Path

import torch
from torch import Tensor

from msclr.kernels.graph_conv.operator import empty_activations

FOLDER = Path(__file__).parent
SOURCES = FOLDER.parents[2] / "csrc/graph_conv"
FLAGS = shlex.split(
    "-std=c++20 -O1 -g0 -shared -fPIC -fno-strict-aliasing "
    "-fsanitize=undefined -fsanitize-undefined-trap-on-error -U_FORTIFY_SOURCE"
)
ORDERS = ("forward", "backward", "shuffled")  # in which a block's threads take their turns
TYPES = (  # as in csrc/graph_conv/cuda/strided_tensor.h
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int32,
    torch.int64,
    torch.bool,
)
INPUTS = ("x", "weight", "bias", "adjacency", "layout_index", "joint_counts", "support")
GRADIENTS = INPUTS[:4]


class Misuse(RuntimeError):
    """What the machine found wrong."""


class _StridedTensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("type", ctypes.c_int32),
        ("size", ctypes.c_int64 * 4),
        ("stride", ctypes.c_int64 * 4),
    ]

    def __init__(self, tensor: Tensor | None = None):
        missing = 4 - (0 if tensor is None else tensor.dim())
        super().__init__(size=(1,) * 4, stride=(0,) * 4)
        if tensor is None:
            return
        self.data = tensor.data_ptr() or None
        self.type = TYPES.index(tensor.dtype)
        self.size[missing:] = list(tensor.shape)
        self.stride[missing:] = list(tensor.stride())


def _structure(names: tuple[str, ...]) -> type:
    return type(
        "Tensors", (ctypes.Structure,), {"_fields_": [(name, _StridedTensor) for name in names]}
    )


_Problem, _GradientTensors = _structure(INPUTS), _structure(GRADIENTS)


def compile_driver(folder: Path, compiler: str = "g++") -> ctypes.CDLL:
    """The kernels and the machine as a library in ``folder``."""
    path = folder / "cuda_on_cpu.so"
    sources = [FOLDER / "driver.cpp", FOLDER / "machine.cpp"]
    subprocess.run([compiler, *FLAGS, f"-I{FOLDER.parent}", *sources, "-o", path], check=True)
    library = ctypes.CDLL(str(path))
    for name in ("guarded_new", "guarded_data"):
        getattr(library, name).restype = ctypes.c_void_p
    for name in ("graph_conv_forward", "graph_conv_backward", "run_faulty"):
        getattr(library, name).restype = ctypes.c_char_p
    library.guarded_intact.restype = ctypes.c_bool
    return library


class CudaOnCpu:
    """The operator, on tensors copied to memory whose bounds are watched.

    ``blocks`` is how many blocks run at once: with few, a block works on several tiles.
    """

    def __init__(self, library: ctypes.CDLL, order: str = "forward", blocks: int = 2):
        self.library, self.order, self.blocks = library, ORDERS.index(order), blocks
        self.launches = 0  # of the last call

    def forward(self, x: Tensor, *parameters: Tensor | None) -> Tensor:
        """y, from the arguments of the operator."""
        with _Memory(self.library) as memory:
            problem = memory.problem(x, *parameters)
            c_out = parameters[0].shape[0] // parameters[2].shape[-3]
            y = memory.copy_of(empty_activations(x, c_out), poisoned=True)
            launches = ctypes.c_int()
            self._check(
                self.library.graph_conv_forward(
                    ctypes.byref(problem),
                    ctypes.byref(_StridedTensor(y)),
                    self.order,
                    self.blocks,
                    ctypes.byref(launches),
                )
            )
            self.launches = launches.value
            return memory.out(y)

    def backward(
        self, grad: Tensor, *inputs: Tensor | None, wanted: tuple[str, ...] = GRADIENTS
    ) -> dict[str, Tensor]:
        """The wanted gradients by the names of their inputs."""
        with _Memory(self.library) as memory:
            problem = memory.problem(*inputs)
            out = {}
            for name, tensor in zip(GRADIENTS, inputs, strict=False):
                if name in wanted and tensor is not None:
                    is_x = name == "x"
                    like = empty_activations(tensor, tensor.shape[1]) if is_x else tensor
                    out[name] = memory.copy_of(like if is_x else like.contiguous(), poisoned=True)
            gradients = _GradientTensors(*(_StridedTensor(out.get(name)) for name in GRADIENTS))
            self._check(
                self.library.graph_conv_backward(
                    ctypes.byref(problem),
                    ctypes.byref(_StridedTensor(memory.copy_of(grad))),
                    ctypes.byref(gradients),
                    self.order,
                    self.blocks,
                )
            )
            return {name: memory.out(gradient) for name, gradient in out.items()}

    def reverse(self, kind: int) -> Tensor:
        """32 numbers reversed by driver.cpp's kernel with fault ``kind``; 0 has none."""
        with _Memory(self.library) as memory:
            numbers = memory.copy_of(torch.arange(32.0))
            out = memory.copy_of(numbers, poisoned=True)
            pointers = (ctypes.c_void_p(t.data_ptr()) for t in (numbers, out))
            self._check(self.library.run_faulty(kind, *pointers, self.order))
            return memory.out(out)

    @staticmethod
    def _check(problem: bytes) -> None:
        if problem:
            raise Misuse(problem.decode())


class _Memory:
    """Guarded memory for one call."""

    def __init__(self, library: ctypes.CDLL):
        self.library, self.handles = library, []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for handle in self.handles:
            self.library.guarded_delete(handle)

    def problem(self, *inputs: Tensor | None):
        copies = [None if t is None else self.copy_of(t) for t in inputs]
        return _Problem(*(_StridedTensor(t) for t in copies))

    def copy_of(self, tensor: Tensor, poisoned: bool = False) -> Tensor:
        """The same values in the same strides; or NaN."""
        if tensor.numel() == 0:
            return tensor
        span = 1 + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
        if span > 1 << 28:  # far apart on purpose: the memory between is never touched
            return tensor
        handle = ctypes.c_void_p(self.library.guarded_new(ctypes.c_int64(span * tensor.itemsize)))
        self.handles.append(handle)
        address = self.library.guarded_data(handle)
        buffer = (ctypes.c_char * (span * tensor.itemsize)).from_address(address)
        copy = torch.frombuffer(buffer, dtype=tensor.dtype)
        copy = copy.as_strided(tensor.shape, tensor.stride())
        if not poisoned:
            once = tuple(slice(0, None if stride else 1) for stride in tensor.stride())
            copy[once] = tensor[once]
        return copy

    def out(self, tensor: Tensor) -> Tensor:
        if not all(self.library.guarded_intact(handle) for handle in self.handles):
            raise Misuse("wrote past the end of a tensor")
        return tensor.clone()
