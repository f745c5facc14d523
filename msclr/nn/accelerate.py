"""Swap the graph convolutions of other projects' ST-GCN models for the kernel, in place.

Modules are told by their structure, then tried: a copy with random weights must give what the
kernel gives. A module that passes gets a class of ours put before its own class, as
``torch.nn.utils.parametrize`` does it. So parameters, buffers, hooks, state_dict keys and
``isinstance`` stay what they were, and the module's own forward stays at hand as the fallback.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from msclr import kernels
from msclr.nn.graph_conv import GraphConv


@dataclass(frozen=True)
class Summary:
    """What :func:`accelerate` did.

    swapped: paths of the modules that now run on the kernel.
    left: path -> reason, for the graph convolutions that keep their own forward.
    """

    swapped: tuple[str, ...]
    left: dict[str, str]

    def __str__(self) -> str:
        lines = [f"{len(self.swapped)} graph convolutions swapped, {len(self.left)} left"]
        lines += [f"  swapped  {path}" for path in self.swapped]
        lines += [f"  left     {path}: {reason}" for path, reason in self.left.items()]
        return "\n".join(lines)


def accelerate(model: nn.Module) -> Summary:
    """Run the graph convolutions of ``model`` by :func:`msclr.kernels.masked_graph_conv`.

    Known are the ``ConvTemporalGraphical`` of ST-GCN, AimCLR, CrosSCLR and MS-CLR, with a 1x1
    convolution, and pyskl's ``unit_gcn`` with ``conv_pos="pre"``, whatever their classes are
    called. Weights and outputs stay the same; so do state_dict keys, hooks, and what ``to``,
    ``train``, ``deepcopy``, pickling and DDP do. A call that the kernel cannot take (an adjacency
    not of shape (K, V, V), more than 128 joints, hooks on the 1x1 convolution) goes to the
    module's own forward. To do it twice is harmless; :func:`restore` undoes it.

    Where the adjacency is a fixed graph times learned importance, the kernel is told so and runs
    its sparse path: pyskl's buffer ``A`` (``adaptive=None`` or ``"importance"``), and a model with
    a buffer ``A`` (K, V, V) and ``edge_importance`` of that shape around the layers, the only
    parameters of a graph's shape in it. Outside torch.compile, autograd must show the product too.

    As the modules' own forward does, outputs leave contiguous unless the model was moved to
    ``channels_last``; then they leave in the memory format of the input.

    Returns:
        the paths of all modules that run on the kernel now, and those left alone with the reason.

    Raises:
        TypeError: ``model`` is no module.

    Source: Yan et al., ST-GCN (AAAI 2018), eq. 5, for the convolution.
    """
    _check_is_module(model)
    swapped, left = [], {}
    for path, module in model.named_modules():
        form = _form_of(module)
        if isinstance(module, _GraphConvolution):
            swapped.append(path)
        elif form is None:
            continue
        elif reason := form.misfit(module) or _difference(module, form):
            left[path] = reason
        else:
            _swap(module, form)
            swapped.append(path)
    for module in model.modules():
        if _holds_fixed_graph(module) and not isinstance(module, _GraphHolder):
            _swap(module, _GraphHolder)
        if isinstance(module, _GraphHolder):
            module._tell_layers()
    left |= {path: "no form that is known here" for path in _unknown(model, [*swapped, *left])}
    return Summary(tuple(swapped), left)


def restore(model: nn.Module) -> None:
    """Give every module that :func:`accelerate` changed its own class and forward back."""
    _check_is_module(model)
    for module in model.modules():
        if isinstance(module, _Swapped):
            vars(module).pop("_around", None)
            module.__class__ = type(module).__bases__[1]


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


class _Swapped:
    """Base of the classes that are put before a module's own; ``super().forward`` is its own."""

    def __reduce__(self):  # the joint class has no name to be found by: it is made anew
        return _new, type(self).__bases__, self.__getstate__()


class _GraphConvolution(_Swapped):
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
        # A view of x comes out in channels_last. The module's own forward gives a contiguous y, and
        # what follows in an NCHW model was never run on anything else.
        moved_to_channels_last = weight.stride(3) > 1
        return y if moved_to_channels_last else y.contiguous()


class _TakesGraph(_GraphConvolution):
    """ST-GCN's form: ``forward(x, A) -> (y, A)`` with ``conv`` and K as ``kernel_size``."""

    _around: _GraphHolder | None = None  # past nn.Module.__setattr__: it is no child

    @staticmethod
    def misfit(module: nn.Module) -> str | None:
        extra = _names(module) - {"conv"}
        if extra:
            return f"holds {', '.join(sorted(extra))} beside conv"
        return _conv_misfit(module.conv, module.kernel_size)

    @staticmethod
    def trial(module: nn.Module, generator: torch.Generator) -> tuple[Tensor, ...]:
        x = _random((2, module.conv.in_channels, 3, 5), generator)
        return x, _random((module.kernel_size, 5, 5), generator)

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

    def __getstate__(self):  # a copy of the layer shall not bring a copy of the model
        return {key: value for key, value in super().__getstate__().items() if key != "_around"}


class _OwnsGraph(_GraphConvolution):
    """pyskl's form: ``forward(x) -> act(bn(y) + residual)`` with ``A``, and ``PA`` to adapt it."""

    @staticmethod
    def misfit(module: nn.Module) -> str | None:
        extra = _names(module) - {"conv", "bn", "act", "down", "A", "PA"}
        if extra:
            return f"holds {', '.join(sorted(extra))} beside what pyskl's unit_gcn holds"
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
        return (_random((2, module.conv.in_channels, 3, joints), generator),)

    def forward(self, x, A=None, **kwargs):
        if A is not None or kwargs or not self._runs_on_kernel(x, self.A):
            return super().forward(x, A, **kwargs)
        residual = self.down(x) if self.with_res else 0
        adjacency, support = self.A, None
        if self.adaptive == "offset":
            adjacency = self.A + self.PA
        elif not self.A.requires_grad and self.adaptive in (None, "importance"):
            support = kernels.graph_support(self.A)
        if self.adaptive == "importance":
            adjacency = self.A * self.PA
        return self.act(self.bn(self._convolve(x, adjacency, support)) + residual)


class _GraphHolder(_Swapped):
    """A model that multiplies its buffer ``A`` by ``edge_importance`` for the layers within.

    They look A up when they run, so that a moved, copied or newly loaded A is never out of date,
    and what they do is the same when a checkpointed block runs again in the backward pass.
    """

    def _tell_layers(self) -> None:
        for layer in self.modules():
            if isinstance(layer, _TakesGraph):
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


def _form_of(module: nn.Module) -> type[_GraphConvolution] | None:
    """Which form to try on a module, by its attributes; None where it resembles neither."""
    if isinstance(module, (_GraphConvolution, GraphConv)):
        return None
    has = module.__dict__.keys() | _names(module)
    if not isinstance(getattr(module, "conv", None), nn.Conv2d):
        return None
    if has >= {"A", "adaptive", "conv_pos", "with_res", "bn", "act"} and _is_graph(module.A):
        return _OwnsGraph
    partitions = getattr(module, "kernel_size", None)
    called_with_two = len(inspect.signature(type(module).forward).parameters) > 2  # self, x, A
    if isinstance(partitions, int) and partitions > 0 and called_with_two:
        return _TakesGraph
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


@torch.no_grad()
def _difference(module: nn.Module, form: type[_GraphConvolution]) -> str | None:
    """Try the form on a copy with random weights against the module's own forward."""
    if "forward" in vars(module):
        return "its forward was replaced on the instance"
    generator = torch.Generator().manual_seed(0)
    try:
        with torch.autocast("cpu", enabled=False):
            trial = copy.deepcopy(module).to("cpu", torch.float64).eval()
            for part in trial.modules():  # no hook of the user's shall see the trial
                part._forward_hooks.clear()
                part._forward_pre_hooks.clear()
            for parameter in trial.parameters():
                parameter.copy_(_random(parameter.shape, generator))
            inputs = form.trial(trial, generator)
            for training in (True, False):
                trial.training = training  # not its norms: random batches prove nothing there
                wanted = trial.forward(*inputs)
                _swap(trial, form)
                got = trial.forward(*inputs)
                restore(trial)
                torch.testing.assert_close(got, wanted, rtol=1e-8, atol=1e-8, equal_nan=True)
    except AssertionError:
        return "its forward computes something else"
    except Exception as error:  # somebody else's code: it may raise anything
        return f"could not be tried: {type(error).__name__}: {str(error).partition(chr(10))[0]}"
    return None


def _holds_fixed_graph(module: nn.Module) -> bool:
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
    return fits and not others and any(isinstance(x, _TakesGraph) for x in module.modules())


def _unknown(model: nn.Module, told: list[str]) -> Iterator[str]:
    """Innermost modules with weights that hold a graph or are named after one, and not yet told."""
    found = list(told)
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


def _names(module: nn.Module) -> set[str]:
    """Names of a module's own children, parameters and buffers."""
    return {*module._modules, *module._parameters, *module._buffers}


def _is_graph(value: object) -> bool:
    return torch.is_tensor(value) and value.dim() == 3 and value.shape[1] == value.shape[2]


def _random(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator, dtype=torch.float64, device="cpu") + 0.5


def _swap(module: nn.Module, form: type[_Swapped]) -> None:
    module.__class__ = _joint_class(form, type(module))


def _new(form: type[_Swapped], own: type[nn.Module]) -> nn.Module:
    joint = _joint_class(form, own)
    return joint.__new__(joint)


@cache
def _joint_class(form: type[_Swapped], own: type[nn.Module]) -> type[nn.Module]:
    names = ("__module__", "__qualname__", "__doc__")
    return type(own.__name__, (form, own), {name: getattr(own, name) for name in names})
