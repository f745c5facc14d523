"""A block of ST-GCN over packed rows: the public function."""

from __future__ import annotations

from msclr.kernels.block import operator
from msclr.kernels.block.operator import Arguments
__all__ = ["Arguments"]
