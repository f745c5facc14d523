"""AimCLR's energy-based attention-guided drop: what is left makes up for what was zeroed."""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor


def rescaling(counts: Tensor, process_group: object | None = None) -> Tensor:
    """``joints / kept_joints * cells / kept_cells`` of the whole batch, a constant.

    Args:
        counts: (4,) of :func:`msclr.kernels.drop_pool`.
        process_group: where set, counts are those of all its ranks.

    Source: Guo et al., "AimCLR" (AAAI 2022), section 3.3.
    """
    if process_group is not None:
        counts = counts.clone()
        dist.all_reduce(counts, group=process_group)
    totals = counts.clamp(min=1).view(2, 2)
    return (totals[:, 0] / totals[:, 1]).prod()
