"""AimCLR's energy-based attention-guided drop."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

EPSILON = 1e-4
THRESHOLD = 0.7


def attention_guided_drop(
    feature_maps: list[Tensor], process_group: object | None = None
) -> list[Tensor]:
    """Zero the joints, then the cells, that stand out most, and rescale the rest.

    Per track and channel, over its frames and joints:
    ``s = sigmoid((x - mean)^2 / (4 (var + 1e-4)) + 0.5)``, var unbiased. Joints whose mean s over
    channels and frames reaches 0.7 are zeroed, then the channel-joint-time cells whose own s
    does; each time what is left is multiplied by total/kept, counted over the whole batch.
    Masks and factors are constants: no gradient flows through s.

    Args:
        feature_maps: groups (N_g, C, T, V_g) of real joints, one a layout.
        process_group: where set, total and kept are counted over all its ranks.

    Source: Guo et al., "AimCLR" (AAAI 2022), section 3.3.
    """
    masks = [_masks(x) for x in feature_maps]
    counts = torch.stack([_totals(x, *mask) for x, mask in zip(feature_maps, masks, strict=True)])
    counts = counts.sum(0)  # (4,): joints, kept joints, cells, kept cells
    if process_group is not None:
        dist.all_reduce(counts, group=process_group)
    joints, kept_joints, cells, kept_cells = counts.clamp(min=1).unbind()
    factor = (joints / kept_joints) * (cells / kept_cells)
    return [
        x * (joint * cell * factor.to(x.dtype))
        for x, (joint, cell) in zip(feature_maps, masks, strict=True)
    ]


@torch.no_grad()
def _masks(x: Tensor) -> tuple[Tensor, Tensor]:
    """Which joints (N, 1, 1, V) and which cells (N, C, T, V) stay, as 0 or 1 of x's dtype."""
    if len(x) == 0:  # no body of this layout is present: a variance would warn
        return x.new_ones(0, 1, 1, x.shape[3]), torch.ones_like(x)
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    variance, mean = torch.var_mean(wide, dim=(2, 3), keepdim=True)  # unbiased
    s = torch.sigmoid((wide - mean).square() / (4 * (variance + EPSILON)) + 0.5)
    joints = s.mean(dim=(1, 2), keepdim=True) < THRESHOLD
    return joints.to(x.dtype), (s < THRESHOLD).to(x.dtype)


def _totals(x: Tensor, joints: Tensor, cells: Tensor) -> Tensor:
    total_joints = torch.tensor([joints.numel(), x.numel()], dtype=torch.float64, device=x.device)
    kept = torch.stack([mask.sum(dtype=torch.float64) for mask in (joints, cells)])
    return torch.stack([total_joints[0], kept[0], total_joints[1], kept[1]])
