"""Sums that programs left in parts, added up in Triton by one program for each few numbers."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from msclr.kernels._triton import ELEMENTS, cdiv

_BLOCK = 256


def sum_of_parts(sums: Tensor, first: Tensor, second: Tensor | None = None) -> None:
    """``sums`` (parts, n) over the parts: the first numbers into ``first``, others into ``second``.

    Either may be of another dtype; numbers past both are left out.
    """
    parts, size = sums.shape
    wanted = first.numel() + (0 if second is None else second.numel())
    if wanted:
        add_up[(cdiv(wanted, _BLOCK),)](
            sums, first, second, parts, first.numel(), wanted, size,
            SUM=ELEMENTS[sums.dtype], BLOCK=_BLOCK, num_warps=4,
        )  # fmt: skip


@triton.jit(do_not_specialize=["parts", "first_size", "wanted"])
def add_up(
    sums,  # (parts, size)
    first,  # of first_size
    second,  # None, or of the others
    parts,
    first_size,
    wanted,
    size,
    SUM: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Each number's sum over the parts, in their order."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), SUM)
    at = sums + i
    for _ in range(parts):
        total += tl.load(at, mask=i < wanted, other=0)
        at += size
    tl.store(first + i, total.to(first.dtype.element_ty), mask=i < first_size)
    if second is not None:
        rest = (i >= first_size) & (i < wanted)
        tl.store(second + (i - first_size), total.to(second.dtype.element_ty), mask=rest)
