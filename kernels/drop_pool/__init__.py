"""The means of feature maps, and those after AimCLR's attention-guided drop: the function."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from msclr.kernels._arguments import want
from msclr.kernels._segments import PackedRows, check_counts, rows_in
from msclr.kernels.drop_pool import operator, reference
from msclr.kernels.drop_pool.operator import Arguments

__all__ = ["Pooled", "drop_pool"]


class Pooled(NamedTuple):
    """What becomes of feature maps; a track is one sample of one layout."""

    mean: Tensor  # (sum of N, C)
    dropped: Tensor  # (sum of N, C), or (0, C) without the drop
    counts: Tensor  # (4,) float64: joints, joints that are kept, cells, cells that are kept


def drop_pool(x: PackedRows, drop: bool = True, *, backend: str | None = None) -> Pooled:
    """Means of each track over frames and joints, plain and of what the drop leaves.

    Per track and channel, over its frames and joints:
    ``s = sigmoid((x - mean)^2 / (4 (var + 1e-4)) + 0.5)``, var unbiased. The drop zeroes joints
    whose mean s over channels and frames reaches 0.7, and cells (frame, joint, channel) whose own
    s does. What is left is not rescaled: that takes ``counts`` of the whole batch,
    ``joints / kept_joints * cells / kept_cells``. No gradient flows through s.

    Args:
        x: feature maps (sum of N T V, C) of one or several layouts. Surplus tracks, where it has
            ``counts``, have means of 0 and count for nothing; PyTorch's own operators then run.
        drop: whether the means after the drop are wanted.
        backend: "cpu" or "reference" (see :func:`msclr.kernels.backends`), or None for the fastest
            that can run here. "cpu" keeps x and a few numbers of each track and channel for the
            backward pass.

    Returns:
        :class:`Pooled`, in float32 where x is in half precision. A track without frames or joints
        has NaN, as PyTorch's mean of nothing.

    Raises:
        ValueError: x does not have the rows of its segments.

    Source: Guo et al., "AimCLR" (AAAI 2022), section 3.3.

    Code: ``kernels/drop_pool/operator.py``; C++ ``csrc/drop_pool/cpu.cpp``.
    """
    want(x.rows.dim() == 2, "x.rows", x.rows, "(R, C)")
    rows = rows_in(x.segments)
    want(len(x.rows) == rows, "x.rows", x.rows, f"({rows}, C) by its segments {x.segments}")
    if x.counts is not None:
        check_counts(x.counts, x.segments)
        if backend not in (None, "reference"):
            raise ValueError(f"backend must be reference or None where x has counts, got {backend}")
        return Pooled(*reference.drop_pool(x.rows, x.segments, drop, x.counts))
    return Pooled(*operator.drop_pool(backend, Arguments(x.rows, x.segments, drop))[:3])
