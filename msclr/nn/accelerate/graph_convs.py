"""The graph convolutions of other projects, and the models that give them their graph."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from msclr import kernels
from msclr.nn.accelerate.swapping import Swapped, moved_to_channels_last, names
from msclr.nn.accelerate.trial import positive
from msclr.nn.graph_conv import GraphConv


class GraphConvolution(Swapped):
    """A swapped graph convolution: ``conv`` and an adjacency."""

    def _runs_on_kernel(self, x: Tensor, adjacency: object) -> bool:
        if not (torch.is_tensor(x) and torch.is_tensor(adjacency) and x.dim() == 4):
            return False
        joints = x.shape[3]
        square = adjacency.dim() == 3 and adjacency.shape[1:] == (joints, joints)
        return (
            square and 1 <= joints <= kernels.MAX_JOINTS and _pointwise(self.conv, len(adjacency))
        )

    def _convolve(self, x: Tensor, adjacency: Tensor, support: Tensor | None) -> Tensor:
        weight, bias = self.conv.weight, self.conv.bias
        y = kernels.masked_graph_conv(x, weight, bias, adjacency, support=support)
        # The operator's y is in channels_last memory. The module's own forward gives a contiguous
        # one, and what follows in an NCHW model was never run on anything else.
        return y if moved_to_channels_last(weight) else y.contiguous()


class TakesGraph(GraphConvolution):
    """ST-GCN's form: ``forward(x, A) -> (y, A)`` with ``conv`` and K as ``kernel_size``."""

    _around: GraphHolder | None = None  # past nn.Module.__setattr__: it is no child

    @staticmethod
    def misfit(module: nn.Module) -> str | None:
        extra = names(module) - {"conv"}
        if extra:
            return f"holds {', '.join(sorted(extra))} besides conv"
        return _conv_misfit(module.conv, module.kernel_size)

    @staticmethod
    def trial(module: nn.Module, generator: torch.Generator) -> tuple[Tensor, ...]:
        x = positive((2, module.conv.in_channels, 3, 5), generator)
        return x, positive((module.kernel_size, 5, 5), generator)

    def forward(self, *args, **kwargs):
        if kwargs or len(args) != 2:
            return super().forward(*args, **kwargs)
        x, adjacency = args
        fits = self._runs_on_kernel(x, adjacency) and len(adjacency) == self.kernel_size
        if not fits:
            return super().forward(x, adjacency)
        return self._convolve(x, adjacency, self._support(adjacency)), adjacency

    def _support(self, adjacency: Tensor) -> Tensor | None:
        holder = self._around
        if holder is None or holder.A.shape != adjacency.shape or not holder._weighs(adjacency):
            return None
        # the holder's graph is looked up by name, so what it says never decides an output
        fixed = kernels.graph_support(holder.A).to(adjacency.device)
        return fixed | (adjacency.detach() != 0)

    def __getstate__(self):  # so that a copied layer does not bring a copy of the model
        return {key: value for key, value in super().__getstate__().items() if key != "_around"}


class OwnsGraph(GraphConvolution):
    """pyskl's form: ``forward(x) -> act(bn(y) + residual)`` with ``A``, and ``PA`` to adapt it."""

    @staticmethod
    def misfit(module: nn.Module) -> str | None:
        extra = names(module) - {"conv", "bn", "act", "down", "A", "PA"}
        if extra:
            return f"holds {', '.join(sorted(extra))} besides what pyskl's unit_gcn holds"
        if module.conv_pos != "pre":
            return f'conv_pos is {module.conv_pos!r}, only "pre" is swapped'
        if module.adaptive not in (None, "init", "offset", "importance"):
            return f"adaptive is {module.adaptive!r}"
        if module.adaptive in ("offset", "importance"):
            adapter = getattr(module, "PA", None)
            if not torch.is_tensor(adapter) or adapter.shape != module.A.shape:
                return "PA is not of the shape of A"
        return _conv_misfit(module.conv, len(module.A))

    @staticmethod
    def trial(module: nn.Module, generator: torch.Generator) -> tuple[Tensor, ...]:
        joints = module.A.shape[-1]
        return (positive((2, module.conv.in_channels, 3, joints), generator),)

    def forward(self, x, A=None, **kwargs):
        if A is not None or kwargs or not self._runs_on_kernel(x, self.A):
            return super().forward(x, A, **kwargs)
        residual = self.down(x) if self.with_res else 0
        return self.act(self.bn(self._convolve(x, *self._graph())) + residual)

    def _graph(self) -> tuple[Tensor, Tensor | None]:
        """The adjacency (K, V, V) as it is weighted, and its support where that is fixed."""
        adjacency, support = self.A, None
        if self.adaptive == "offset":
            adjacency = self.A + self.PA
        elif not self.A.requires_grad and self.adaptive in (None, "importance"):
            support = kernels.graph_support(self.A)
        if self.adaptive == "importance":
            adjacency = self.A * self.PA
        return adjacency, support


class GraphHolder(Swapped):
    """A model that multiplies its buffer ``A`` by ``edge_importance`` for the layers within.

    They look A up when they run, so that a moved, copied or newly loaded A is never out of date,
    and what they do is the same when a checkpointed block runs again in the backward pass.
    """

    def _tell_layers(self) -> None:
        for layer in self.modules():
            if isinstance(layer, TakesGraph):
                vars(layer)["_around"] = self

    def _weighs(self, adjacency: Tensor) -> bool:
        """Whether all that learns in this adjacency is one of the importances, as a factor."""
        if torch.compiler.is_compiling() or not adjacency.requires_grad:
            return True
        made_by = adjacency.grad_fn
        if made_by is None or made_by.name() != "MulBackward0":
            return False
        learned = [function for function, _ in made_by.next_functions if function is not None]
        return len(learned) == 1 and any(
            getattr(learned[0], "variable", None) is x for x in self.edge_importance
        )

    def __setstate__(self, state):
        super().__setstate__(state)
        self._tell_layers()


def form_of(module: nn.Module) -> type[GraphConvolution] | None:
    """Which form to try on a module, by its attributes; None where it resembles neither."""
    if isinstance(module, (GraphConvolution, GraphConv)):
        return None
    has = module.__dict__.keys() | names(module)
    if not isinstance(getattr(module, "conv", None), nn.Conv2d):
        return None
    if has >= {"A", "adaptive", "conv_pos", "with_res", "bn", "act"} and _is_graph(module.A):
        return OwnsGraph
    partitions = getattr(module, "kernel_size", None)
    called_with_two = len(inspect.signature(type(module).forward).parameters) > 2  # self, x, A
    if isinstance(partitions, int) and partitions > 0 and called_with_two:
        return TakesGraph
    return None


def _conv_misfit(conv: nn.Conv2d, partitions: int) -> str | None:
    if conv.kernel_size != (1, 1):
        return f"conv has kernel size {conv.kernel_size}, only (1, 1) is swapped"
    if not _pointwise(conv, partitions):
        return f"conv is no plain 1x1 convolution to {partitions} partitions, or has hooks"
    return None


def _pointwise(conv: nn.Module, partitions: int) -> bool:
    """Whether conv does W x + b and nothing else, so that its weights can be used past it."""
    return (
        isinstance(conv, nn.Conv2d)
        and conv.kernel_size == conv.stride == (1, 1)
        and conv.padding in ((0, 0), 0, "valid")
        and conv.groups == 1
        and conv.out_channels % partitions == 0
        and not (conv._forward_hooks or conv._forward_pre_hooks)
        and not (conv._backward_hooks or conv._backward_pre_hooks)
    )


def holds_fixed_graph(module: nn.Module) -> bool:
    graph = module._buffers.get("A")
    importance = getattr(module, "edge_importance", None)
    if not _is_graph(graph) or not isinstance(importance, (list, tuple, nn.ParameterList)):
        return False
    fits = all(
        x.shape == graph.shape if torch.is_tensor(x) else isinstance(x, (int, float))
        for x in importance
    )
    others = any(
        p.shape[-2:] == graph.shape[-2:] and not any(p is x for x in importance)
        for p in module.parameters()
    )
    return fits and not others and any(isinstance(x, TakesGraph) for x in module.modules())


def unknown(model: nn.Module, named: list[str]) -> Iterator[str]:
    """Innermost modules with weights that hold a graph or bear its name, and are not named yet."""
    found = list(named)
    for path, module in reversed(list(model.named_modules())):  # the inner ones first
        graph_like = _is_graph(getattr(module, "A", None)) or any(
            hint in type(module).__name__.lower() for hint in ("gcn", "graph")
        )
        if isinstance(module, GraphConv) or any(isinstance(m, GraphConv) for m in module.modules()):
            continue
        related = any(_within(other, path) or _within(path, other) for other in found)
        if graph_like and not related and any(True for _ in module.parameters()):
            found.append(path)
            yield path


def _within(inner: str, outer: str) -> bool:
    return inner == outer or not outer or inner.startswith(f"{outer}.")


def _is_graph(value: object) -> bool:
    return torch.is_tensor(value) and value.dim() == 3 and value.shape[1] == value.shape[2]
