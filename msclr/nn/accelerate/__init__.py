"""Run other projects' ST-GCN models on the compiled operators, in place.

Modules are known by their structure, then tried: a copy with random weights must give what the
operator gives. A module that passes gets a class of ours put before its own class (swapping.py).
Graph convolutions are swapped first (graph_convs.py), then the blocks around them (blocks.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from msclr import kernels
from msclr.nn.accelerate.blocks import Block, block_form_of
from msclr.nn.accelerate.graph_convs import (
    GraphConvolution,
    GraphHolder,
    form_of,
    holds_fixed_graph,
    unknown,
)
from msclr.nn.accelerate.swapping import Swapped, swap, swap_back
from msclr.nn.accelerate.trial import difference_of_graph_conv

__all__ = ["Summary", "accelerate", "restore"]


@dataclass(frozen=True)
class Summary:
    """What :func:`accelerate` did.

    swapped: paths of the graph convolutions that now run on the kernel, those within blocks too.
    left: path -> reason, for the graph convolutions that keep their own forward.
    blocks: paths of the blocks that now run whole, as one operator.
    parted: path -> reason, for the blocks of which the graph convolution alone was swapped.
    backends: operator -> the backend that runs it on the model's device, in its precision.
    """

    swapped: tuple[str, ...]
    left: dict[str, str]
    blocks: tuple[str, ...] = ()
    parted: dict[str, str] = field(default_factory=dict)
    backends: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        within = {_child(path, "gcn") for path in self.blocks}
        alone = [path for path in self.swapped if path not in within]
        lines = [
            f"{len(self.blocks)} whole blocks swapped, "
            f"{len(alone)} graph convolutions swapped, {len(self.left)} left"
        ]
        lines += [f"  whole    {path or 'the block itself'}" for path in self.blocks]
        why = {_child(path, "gcn"): reason for path, reason in self.parted.items()}
        lines += [
            f"  swapped  {path}" + (f", not its whole block: {why[path]}" if path in why else "")
            for path in alone
        ]
        lines += [f"  left     {path}: {reason}" for path, reason in self.left.items()]
        lines += [f"  runs     {name} on {backend}" for name, backend in self.backends.items()]
        return "\n".join(lines)


def accelerate(model: nn.Module) -> Summary:
    """Run the blocks and graph convolutions of ``model`` on this library's operators.

    Known are, whatever their classes are called:

    - the ``ConvTemporalGraphical`` of ST-GCN, AimCLR, CrosSCLR and MS-CLR, with a 1x1
      convolution, and pyskl's ``unit_gcn`` with ``conv_pos="pre"``: they run by
      :func:`msclr.kernels.masked_graph_conv`;
    - the blocks around them (``gcn``, ``tcn``, ``residual``, ``relu``), pyskl's with
      ``unit_tcn``, where the temporal convolution has 9 taps and stride 1 or 2: they run whole,
      by :func:`msclr.kernels.stgcn_block`. Where a block does not fit, its graph convolution alone
      is swapped.

    Weights and outputs stay the same; so do running statistics, state_dict keys, hooks, and what
    ``to``, ``train``, ``deepcopy``, pickling and DDP do. A call that an operator cannot take goes
    to the module's own forward: to a graph convolution, one with an adjacency not of shape
    (K, V, V), more than 128 joints or hooks on the 1x1 convolution; to a whole block, also one on
    a GPU, in half precision or under autocast, with hooks on a module inside, with norms partly in
    training mode, on one row or none, or in torch.export. To do it twice is harmless;
    :func:`restore` undoes it.

    A whole block's dropout is drawn from a seed that PyTorch's generator of the CPU gives: under
    ``torch.manual_seed`` it repeats itself, but its masks are not those of ``nn.Dropout``.

    Of a model on a GPU, it is decided first which kernels are right and fast there, where that is
    not known yet: see :func:`msclr.kernels.prepare`. Where torch.distributed is in use, every
    process takes part in that.

    Where the adjacency is a fixed graph times learned importance, the kernel is given that and runs
    its sparse path: pyskl's buffer ``A`` (``adaptive=None`` or ``"importance"``), and a model with
    a buffer ``A`` (K, V, V) and ``edge_importance`` of that shape around the layers, the only
    parameters of a graph's shape in it. Outside torch.compile, autograd must show the product too.

    As the modules' own forward does, outputs leave contiguous unless the model was moved to
    ``channels_last``; then they leave in the memory format of the input, a whole block's in
    channels_last. That is the order whole blocks work in, so a model moved there is the sooner one.

    Returns:
        the paths of all modules that run on the operators now, and those left alone, or swapped
        in part, with the reason.

    Raises:
        TypeError: ``model`` is no module.

    Source: Yan et al., ST-GCN (AAAI 2018), eq. 5, for the convolution.
    """
    _check_is_module(model)
    for device in {p.device for p in model.parameters()}:
        kernels.prepare(device)
    swapped, left = _swap_graph_convs(model)
    blocks, parted = _swap_blocks(model)
    for module in model.modules():
        if holds_fixed_graph(module) and not isinstance(module, GraphHolder):
            swap(module, GraphHolder)
        if isinstance(module, GraphHolder):
            module._tell_layers()
    left |= {path: "no form that is known here" for path in unknown(model, [*swapped, *left])}
    used = ["masked_graph_conv"] * bool(swapped) + ["stgcn_block"] * bool(blocks)
    return Summary(tuple(swapped), left, tuple(blocks), parted, _backends_of(model, used))


def restore(model: nn.Module) -> None:
    """Give every module that :func:`accelerate` changed its own class and forward back."""
    _check_is_module(model)
    for module in model.modules():
        while isinstance(module, Swapped):
            vars(module).pop("_around", None)
            swap_back(module)


def _swap_graph_convs(model: nn.Module) -> tuple[list[str], dict[str, str]]:
    swapped, left = [], {}
    for path, module in model.named_modules():
        form = form_of(module)
        if isinstance(module, GraphConvolution):
            swapped.append(path)
        elif form is None:
            continue
        elif reason := form.misfit(module) or difference_of_graph_conv(module, form):
            left[path] = reason
        else:
            swap(module, form)
            swapped.append(path)
    return swapped, left


def _swap_blocks(model: nn.Module) -> tuple[list[str], dict[str, str]]:
    blocks, parted = [], {}
    for path, module in model.named_modules():
        if isinstance(module, Block):
            blocks.append(path)
        elif isinstance(getattr(module, "gcn", None), GraphConvolution):
            form, reason = block_form_of(module)
            if form is None:
                parted[path] = reason
            else:
                swap(module, form)
                blocks.append(path)
    return blocks, parted


def _backends_of(model: nn.Module, operators: list[str]) -> dict[str, str]:
    """What runs each operator where the model is, in the dtype of its weights."""
    weight = next((p for p in model.parameters() if p.is_floating_point()), None)
    if weight is None or weight.device.type == "meta":
        return {}
    family = {torch.float32: "single", torch.float64: "double"}.get(weight.dtype, "half")
    runs = kernels.would_run(weight.device)
    return {name: runs[name].get(family) or runs[name]["tf32"] for name in operators}


def _child(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _check_is_module(model: object) -> None:
    if isinstance(model, nn.Module):
        return
    if isinstance(model, Mapping):
        mend = "a state_dict has no layers, load it into its model and give that"
    elif isinstance(model, type):
        mend = "give an instance of the class"
    else:
        mend = "give the model itself"
    got = model.__name__ if isinstance(model, type) else type(model).__name__
    raise TypeError(f"model must be a torch.nn.Module, got {got}: {mend}")
