"""What the Triton programs of this folder share, and their launches."""

from __future__ import annotations

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
LOG2_E = tl.constexpr(1.4426950408889634)


def block_size(size: int, most: int = 2**20) -> int:
    """The power of two that covers a size; a product takes no less than 16."""
    return min(most, max(16, triton.next_power_of_2(size)))


def wide_products() -> bool:
    """Whether products take their operands from shared memory (sm_90), not from registers."""
    return not interpreted() and triton.runtime.driver.active.get_current_target().arch >= 90


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
