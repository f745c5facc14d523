"""The key encoder: an exponential moving average of the query encoder."""

from __future__ import annotations

import copy

import torch
from torch import nn


def momentum_copy(model: nn.Module) -> nn.Module:
    """A copy that no optimiser updates; its batch norms keep statistics of their own."""
    return copy.deepcopy(model).requires_grad_(False)


@torch.no_grad()
def update_momentum(key: nn.Module, query: nn.Module, momentum: float) -> None:
    """``theta_k <- m theta_k + (1 - m) theta_q`` for every parameter (not for buffers)."""
    torch._foreach_lerp_(
        [p.data for p in key.parameters()], [p.data for p in query.parameters()], 1.0 - momentum
    )
