"""What the operators' awkward inputs (``kernels/<op>/cases.py``) are drawn and converted with."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class Draw:
    """Numbers from a seed, float64 on the CPU."""

    def __init__(self, seed: int = 0):
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator, dtype=torch.float64)

    def unit(self, *shape: int) -> Tensor:
        """Rows of length 1."""
        return F.normalize(self.normal(*shape), dim=-1)

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        """Whole numbers of low..high, both of them included."""
        return torch.randint(low, high + 1, shape, generator=self.generator)


def converted(arguments: Any, dtype: torch.dtype, device: torch.device | str = "cpu") -> Any:
    """The same named tuple on a device, its floating point tensors in ``dtype``.

    A scalar tensor, such as a temperature, stays in float64.
    """

    def convert(value: Any) -> Any:
        if not torch.is_tensor(value):
            return value
        floating = value.is_floating_point() and value.dim() > 0
        return value.to(device, dtype) if floating else value.to(device)

    return type(arguments)(*map(convert, arguments))
