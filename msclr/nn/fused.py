"""A block as one operator: when it can be, and how its modules become arguments."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from msclr import kernels
from msclr.kernels import PackedRows
from msclr.nn.graph_conv import Graph

_COMPILED = not kernels.backends()["cpu"]


def can_fuse(block: nn.Module, x: PackedRows, graphs: Sequence[Tensor | Graph]) -> bool:
    """Whether the fused operator computes what the block's modules would, one after the other."""
    rows = x.rows
    return (
        _COMPILED
        and rows.device.type == "cpu"
        and rows.dtype in (torch.float32, torch.float64)
        and rows.dtype == block.tcn.weight.dtype
        and not torch.is_autocast_enabled("cpu")
        and all(not isinstance(g, Graph) or g.layout_index is None for g in graphs)
        and not any(_has_hooks(m) for m in block.modules() if m is not block)
        and all(norm.training == block.training for norm in _norms(block))
    )


def run_fused(
    block: nn.Module,
    x: PackedRows,
    graphs: Sequence[Tensor | Graph],
    seed: Tensor | None,
    number: int,
) -> PackedRows:
    """y, and the running statistics moved on."""
    norms = _norms(block)
    running = [b for norm in norms for b in (norm.running_mean, norm.running_var)]
    p = block.dropout.p if block.dropout.training else 0.0
    if p > 0 and seed is None:
        seed = draw_seed()
    adjacency, support = _flat(graphs)
    conv = block.residual.conv if block.residual is not None else None
    group = norms[0].process_group
    y, moments = kernels.stgcn_block(
        x,
        adjacency,
        support,
        block.gcn.conv.weight.flatten(1),
        block.gcn.conv.bias,
        block.tcn.weight.squeeze(3),
        block.tcn.bias,
        torch.stack([p for norm in norms for p in (norm.weight, norm.bias)]),
        torch.stack(running),
        partitions=block.gcn.kernel_size,
        stride=block.tcn.stride[0],
        residual=block.residual is not None,
        residual_weight=None if conv is None else conv.weight.flatten(1),
        residual_bias=None if conv is None else conv.bias,
        training=block.training,
        dropout=p,
        seed=seed,
        block=number,
        eps=norms[0].eps,
        group="" if group is None else group.group_name,
    )
    if block.training:
        _advance(norms, running, moments)
    return y


def draw_seed() -> Tensor:
    """Of a pass's dropout, from PyTorch's generator of the CPU."""
    return torch.randint(2**63 - 1, ())


@torch.no_grad()
def _advance(norms: list[nn.Module], running: list[Tensor], moments: Tensor) -> None:
    tracked = [norm.num_batches_tracked for norm in norms]
    torch._foreach_add_(tracked, 1)
    momentum = norms[0].momentum
    if momentum is None:  # a cumulative average
        momentum = 1.0 / int(tracked[0])
    torch._foreach_lerp_(running, list(moments.unbind()), momentum)


def _norms(block: nn.Module) -> list[nn.Module]:
    of_residual = block.residual is not None and block.residual.conv is not None
    return [block.gcn_norm, block.tcn_norm, *([block.residual.norm] if of_residual else [])]


def _flat(graphs: Sequence[Tensor | Graph]) -> tuple[Tensor, Tensor]:
    """The adjacencies and supports one after the other."""
    given = [g if isinstance(g, Graph) else Graph(g) for g in graphs]
    parts = [g.adjacency.flatten() for g in given]
    supports = [
        torch.ones_like(g.adjacency, dtype=torch.bool).flatten()
        if g.support is None
        else g.support.flatten()
        for g in given
    ]
    if len(parts) == 1:
        return parts[0], supports[0]
    return torch.cat(parts), torch.cat(supports)


def _has_hooks(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )
