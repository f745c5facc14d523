"""A block as one operator: when it can be, and how its modules become arguments.

A block describes itself by :class:`BlockParts`: ours (block.py) and those of other projects
(accelerate/) alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules import module as _hooks_of_all_modules

from msclr import kernels
from msclr.kernels import PackedRows
from msclr.nn.graph_conv import Graph
from msclr.nn.norm import BatchNorm
from msclr.nn.operands import Operands

TEMPORAL_KERNEL = 9
_FUSING = ("cpu", "triton")  # backends of stgcn_block that are faster than the modules
_NO_COMPILED = kernels.backends()["cpu"]
_NONE_FUSES = _NO_COMPILED if kernels.backends()["triton"] else ""


class BlockParts(NamedTuple):
    """The modules of ``y = relu(dropout(norm(tconv9(relu(norm(gconv(x)))))) + residual(x))``."""

    graph_conv: nn.Conv2d  # 1x1, to K*C_out channels
    partitions: int  # K
    graph_norm: nn.BatchNorm2d
    time_conv: nn.Conv2d
    time_norm: nn.BatchNorm2d
    dropout: nn.Dropout | None
    residual: bool  # whether there is one: x itself, or of the two below
    residual_conv: nn.Conv2d | None = None  # 1x1
    residual_norm: nn.BatchNorm2d | None = None
    residual_strides: bool = True  # whether its conv has the stride, or x is sliced before it

    @property
    def norms(self) -> list[nn.BatchNorm2d]:
        last = [] if self.residual_norm is None else [self.residual_norm]
        return [self.graph_norm, self.time_norm, *last]

    @property
    def convs(self) -> list[nn.Conv2d]:
        last = [] if self.residual_conv is None else [self.residual_conv]
        return [self.graph_conv, self.time_conv, *last]


def misfit(parts: BlockParts) -> str | None:
    """Why the operator is not what these modules compute, on whatever input; None where it is."""
    if _NONE_FUSES:
        return f"the compiled operators cannot run: {_NONE_FUSES}"
    return (
        _misfit_of_convs(parts)
        or _misfit_of_norms(parts)
        or (parts.dropout is not None and _misfit_of_dropout(parts.dropout))
        or None
    )


def _misfit_of_convs(parts: BlockParts) -> str | None:
    if not all(type(conv) is nn.Conv2d for conv in parts.convs):
        return "a convolution is no plain Conv2d"
    graph, time, residual = parts.graph_conv, parts.time_conv, parts.residual_conv
    c_in, c_out, stride = graph.in_channels, time.out_channels, time.stride[0]
    if graph.out_channels != parts.partitions * c_out:
        return f"{graph.out_channels} channels are not {c_out} in {parts.partitions} partitions"
    if not _is_conv(graph, (1, 1), (1, 1), (0, 0)):
        return "the graph convolution's is no plain 1x1 convolution"
    if time.kernel_size != (TEMPORAL_KERNEL, 1):
        return f"its temporal kernel is {time.kernel_size}, only (9, 1) is fused"
    if time.stride not in ((1, 1), (2, 1)):
        return f"its temporal stride is {time.stride}, only (1, 1) and (2, 1) are fused"
    same = time.in_channels == c_out and time.bias is not None
    if not same or not _is_conv(time, (TEMPORAL_KERNEL, 1), time.stride, (4, 0)):
        return "its temporal convolution has other padding, dilation, groups, channels, or no bias"
    if residual is None:
        unlike = parts.residual and (c_in != c_out or stride != 1)
        return "the residual is x itself, of another shape than the output" if unlike else None
    wanted = time.stride if parts.residual_strides else (1, 1)
    fits = residual.in_channels == c_in and residual.out_channels == c_out
    if not fits or not _is_conv(residual, (1, 1), wanted, (0, 0)):
        return "the residual's convolution is no plain 1x1 convolution of the block's stride"
    return None


def _is_conv(conv: nn.Conv2d, kernel_size: tuple, stride: tuple, padding: tuple) -> bool:
    return (
        conv.kernel_size == kernel_size
        and conv.stride == stride
        and conv.padding in (padding, "same" if stride == (1, 1) else padding)
        and conv.dilation == (1, 1)
        and conv.groups == 1
        and conv.padding_mode == "zeros"
    )


def _misfit_of_norms(parts: BlockParts) -> str | None:
    norms = parts.norms
    for norm in norms:
        if type(norm) not in (nn.BatchNorm2d, BatchNorm):
            return f"a norm is {type(norm).__name__}, only BatchNorm2d is fused"
        if norm.weight is None or norm.bias is None:
            return "a norm has no weight and bias"
        if not norm.track_running_stats or norm.running_mean is None or norm.running_var is None:
            return "a norm keeps no running statistics"
        if norm.num_features != parts.time_conv.out_channels:
            return f"a norm of {norm.num_features} channels is not of the block's"
    if any((norm.eps, norm.momentum) != (norms[0].eps, norms[0].momentum) for norm in norms):
        return "its norms differ in eps or momentum"
    if any(_group_of(norm) is not _group_of(norms[0]) for norm in norms):
        return "its norms differ in their process group"
    return None


def _misfit_of_dropout(dropout: nn.Module) -> str | None:
    if type(dropout) is not nn.Dropout:
        return f"its dropout is {type(dropout).__name__}, only Dropout is fused"
    return None if dropout.p < 1 else "its dropout leaves nothing"


def can_fuse(
    block: nn.Module, parts: BlockParts, x: Tensor, graphs: Sequence[Tensor | Graph]
) -> bool:
    """Whether the fused operator computes what the block's modules would, one after the other.

    Of x, its rows or whatever makes them, device and dtype are looked at. On a GPU it must also be
    faster, so a backend has to have qualified there for the rows' dtype, or to be asked for.
    """
    return (
        misfit(parts) is None
        and _has_backend(x)
        and all(not isinstance(g, Graph) or g.layout_index is None for g in graphs)
        and _alike(x, _operands(parts, graphs))
        and _one_mode(parts)
        and hooked(block) is None
    )


def _has_backend(x: Tensor) -> bool:
    """Whether rows that x becomes are for a backend that is worth it."""
    if x.device.type == "cpu":  # its reference, where it is asked for, does for all backends
        return not _NO_COMPILED
    return kernels.block_backend(x.device, _dtype_of_rows(x)) in _FUSING


def _dtype_of_rows(x: Tensor) -> torch.dtype:
    """What activations are kept in: half precision under autocast, and computed in float32."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def hooked(block: nn.Module) -> str | None:
    """The name of a module inside that must run by itself: it has hooks, or all modules have."""
    if _hooks_of_all_modules._has_any_global_hook():
        return "every module"
    for name, module in block.named_modules():
        if module is not block and (_has_hooks(module) or "forward" in module.__dict__):
            return name
    return None


def _one_mode(parts: BlockParts) -> bool:
    training = parts.graph_norm.training
    drops = parts.dropout is not None and parts.dropout.training and parts.dropout.p > 0
    return all(norm.training == training for norm in parts.norms) and (training or not drops)


def _operands(parts: BlockParts, graphs: Sequence[Tensor | Graph]) -> Iterator[Tensor]:
    for graph in graphs:
        yield graph.adjacency if isinstance(graph, Graph) else graph
    for conv in parts.convs:
        yield conv.weight
        if conv.bias is not None:
            yield conv.bias
    for norm in parts.norms:
        yield from (norm.weight, norm.bias, norm.running_mean, norm.running_var)


def _alike(x: Tensor, operands: Iterator[Tensor]) -> bool:
    """Whether all is of one device and of x's precision; autocast leaves parameters in float32."""
    dtype = x.dtype
    if torch.is_autocast_enabled(x.device.type) and dtype in (
        torch.float32,
        torch.bfloat16,
        torch.float16,
    ):
        dtype = torch.float32
    elif dtype not in (torch.float32, torch.float64):
        return False
    return all(tensor.dtype == dtype and tensor.device == x.device for tensor in operands)


def run_fused(
    parts: BlockParts,
    x: PackedRows,
    operands: Operands,
    seed: Tensor | None = None,
    number: int = 0,
) -> PackedRows:
    """y; in training ``operands.moments`` gets what running statistics move to, see advance()."""
    norms = parts.norms
    training = norms[0].training
    dropout = parts.dropout
    p = dropout.p if dropout is not None and dropout.training else 0.0
    if p > 0 and seed is None:
        seed = draw_seed()
    x = x._replace(rows=x.rows.to(_dtype_of_rows(x.rows)))
    conv, group = parts.residual_conv, _group_of(norms[0])
    y, moments = kernels.stgcn_block(
        x,
        operands.adjacency,
        operands.support,
        parts.graph_conv.weight.flatten(1),
        parts.graph_conv.bias,
        parts.time_conv.weight.squeeze(3),
        parts.time_conv.bias,
        operands.norms,
        operands.running,
        partitions=parts.partitions,
        stride=parts.time_conv.stride[0],
        residual=parts.residual,
        residual_weight=None if conv is None else conv.weight.flatten(1),
        residual_bias=None if conv is None else conv.bias,
        training=training,
        dropout=p,
        seed=seed,
        block=number,
        eps=norms[0].eps,
        group="" if group is None else group.group_name,
    )
    if training:
        operands.moments.append(moments)
    return y


_seeds: ContextVar[Iterator[Tensor] | None] = ContextVar("msclr_seeds", default=None)


def draw_seed() -> Tensor:
    """Of a pass's dropout, from PyTorch's generator of the CPU, or from :func:`seeds_from`."""
    given = None if torch.compiler.is_compiling() else _seeds.get()  # no graph traces the latter
    return torch.randint(2**63 - 1, ()) if given is None else next(given)


@contextmanager
def seeds_from(seeds: Tensor) -> Iterator[None]:
    """Inside, passes take the seeds (n,) of their dropout one after the other: numbers in memory,
    which a CUDA graph reads when it is replayed."""
    token = _seeds.set(iter(seeds.unbind()))
    try:
        yield
    finally:
        _seeds.reset(token)


def _group_of(norm: nn.Module) -> object | None:
    """The process group that a norm's statistics are over."""
    return getattr(norm, "process_group", None)


def _has_hooks(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )
