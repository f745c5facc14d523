"""MoCo's queue of past keys."""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn


class Queue(nn.Module):
    """The last ``size`` keys of dimension ``dim``; starts as random unit vectors.

    Args:
        size: Q; the batch need not divide it.
        dim: D.
        dtype: of the stored keys; bfloat16 halves what a step reads of them, and rounds each.

    Source: He et al., "Momentum Contrast" (CVPR 2020), section 3.2.
    """

    def __init__(self, size: int, dim: int, dtype: torch.dtype = torch.float32):
        super().__init__()
        if size < 1:
            raise ValueError(f"size must be at least 1, got {size}")
        keys = F.normalize(torch.randn(size, dim), dim=1).to(dtype)
        self.register_buffer("keys", keys)  # (Q, D)
        # A tensor, so that a CUDA graph moves it on.
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64), persistent=False)

    @torch.no_grad()
    def enqueue(self, keys: Tensor) -> None:
        """Write keys (B, D) in place over the oldest ones; of more than Q, the last Q stay."""
        size = len(self.keys)
        start = self.pointer + max(len(keys) - size, 0)
        moved = (self.pointer + len(keys)) % size
        keys = keys[-size:]
        places = (torch.arange(len(keys), device=keys.device) + start) % size
        self.keys.index_copy_(0, places, keys.to(self.keys.dtype))
        self.pointer.copy_(moved)

    def get_extra_state(self) -> dict[str, int]:
        return {"pointer": int(self.pointer)}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.pointer.fill_(state["pointer"])


@torch.no_grad()
def of_all_ranks(keys: Tensor, process_group: object | None) -> Tensor:
    """Keys (R, ..) of all ranks in rank order, (W * R, ..); a group of None is of one process."""
    if process_group is None:
        return keys
    gathered = [torch.empty_like(keys) for _ in range(process_group.size())]
    dist.all_gather(gathered, keys.contiguous(), group=process_group)
    return torch.cat(gathered)
