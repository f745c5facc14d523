"""What the operators in Triton share: element types, precision, launches, pieces of programs."""

from __future__ import annotations

import functools

import torch
import triton
import triton.language as tl
from torch import Tensor

from msclr.kernels._backend import interpreted

ELEMENTS = {
    torch.float16: tl.float16,
    torch.bfloat16: tl.bfloat16,
    torch.float32: tl.float32,
    torch.float64: tl.float64,
}
_INTERPRETED = interpreted()  # Triton, too, asks once
LOG2_E = tl.constexpr(1.4426950408889634)


class Types:
    """What numbers of ``dtype`` are multiplied and added up in."""

    def __init__(self, dtype: torch.dtype, sum_dtype: torch.dtype | None = None):
        self.sum_dtype = sum_dtype or sum_dtype_of(dtype)
        # Others' precision is not asked for: it takes as long as a launch.
        self.tf32 = dtype == torch.float32 and torch.backends.cuda.matmul.fp32_precision == "tf32"
        # Sums of true float32 and float64 are made one product at a time, without tensor cores, and
        # each needs registers of its own.
        self.product_by_product = dtype.itemsize >= 4 and not self.tf32
        # The interpreter cannot multiply bfloat16: it gets the same numbers, rounded, as float32.
        operand = torch.float32 if dtype == torch.bfloat16 and _INTERPRETED else dtype
        self.constants = {
            "SUM": ELEMENTS[self.sum_dtype],
            "OPERAND": ELEMENTS[operand],
            "PRECISION": "tf32" if self.tf32 else "ieee",
        }


def sum_dtype_of(dtype: torch.dtype) -> torch.dtype:
    """float64 is added up in float64, all else in float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def check_dtype(name: str, tensor: Tensor) -> None:
    """Raise ValueError unless a tensor is of one of the dtypes that programs take."""
    if tensor.dtype not in ELEMENTS:
        raise ValueError(
            f"{name} must be one of {', '.join(map(str, ELEMENTS))}, got {tensor.dtype}"
        )


def multiprocessors(tensor: Tensor, in_interpreter: int = 2) -> int:
    """How many multiprocessors a tensor's GPU has; more than one in the interpreter, so that sums
    have parts there as well."""
    if not tensor.is_cuda:
        return in_interpreter
    return _multiprocessors(tensor.device)


@functools.cache
def _multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count


def cdiv(a: int, b: int) -> int:
    """a / b, rounded up, ten times faster than Triton's own."""
    return -(-a // b)


def next_power_of_2(n: int) -> int:
    """The least power of two that is no less than n, which is at least 1."""
    return 1 << (n - 1).bit_length()


def column_pieces(columns: int, dim: int, most: int) -> dict[str, int]:
    """How ``dim`` columns, rounded up to ``columns``, are cut into blocks."""
    block = min(columns, most)
    return {
        "BLOCK_D": block,
        "PIECES": cdiv(dim, block),
        "maxnreg": 255,  # all there are; without this ptxas sometimes spills to use fewer
    }


def block_size(size: int, most: int = 2**20) -> int:
    """The power of two that covers a size; a product takes no less than 16."""
    return min(most, max(16, next_power_of_2(size)))


def wide_products() -> bool:
    """Whether products take their operands from shared memory (sm_90), not from registers."""
    return not _INTERPRETED and _arch(triton.runtime.driver.active.get_current_device()) >= 90


@functools.cache
def _arch(device: int) -> int:
    """Of the GPU that is current."""
    return triton.runtime.driver.active.get_current_target().arch


def on_device(temperature: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """A scalar on the CPU becomes one on the GPU without a copy that would wait for it."""
    if temperature.device == device:
        return temperature.detach().to(dtype)
    return torch.full((), temperature.item(), dtype=dtype, device=device)


@triton.jit
def load_rows(base, stride, rows, exist, columns, dim, OPERAND: tl.constexpr):
    """Rows of a matrix whose columns lie side by side, and 0 outside of it."""
    at = base + rows.to(tl.int64)[:, None] * stride + columns[None, :]
    return tl.load(at, mask=exist[:, None] & (columns < dim)[None, :], other=0).to(OPERAND)


@triton.jit
def products_in_pieces(
    left, left_stride, i, lefts, right, right_stride, j, rights, dim, s,
    OPERAND: tl.constexpr, PRECISION: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """s and the products of rows i of one matrix with rows j of another, some columns at a time."""
    d = tl.arange(0, BLOCK_D)
    for start in range(0, dim, BLOCK_D):
        a = load_rows(left, left_stride, i, i < lefts, start + d, dim, OPERAND)
        b = load_rows(right, right_stride, j, j < rights, start + d, dim, OPERAND)
        s = tl.dot(a, tl.trans(b), s, PRECISION, out_dtype=s.dtype)
    return s
