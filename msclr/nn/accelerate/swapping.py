"""A class of ours put before a module's own, as ``torch.nn.utils.parametrize`` does it.

So parameters, buffers, hooks, state_dict keys and ``isinstance`` stay what they were, and the
module's own forward stays as the fallback.
"""

from __future__ import annotations

from functools import cache

from torch import Tensor, nn


class Swapped:
    """Base of the classes that are put before a module's own; ``super().forward`` is its own."""

    def __reduce__(self):  # the joint class has no name to be found by: it is made again
        return _new, type(self).__bases__, self.__getstate__()


def swap(module: nn.Module, form: type[Swapped]) -> None:
    module.__class__ = _joint_class(form, type(module))


def swap_back(module: nn.Module) -> None:
    """Undo :func:`swap`."""
    module.__class__ = type(module).__bases__[1]


def names(module: nn.Module) -> set[str]:
    """Names of a module's own children, parameters and buffers."""
    return {*module._modules, *module._parameters, *module._buffers}


def moved_to_channels_last(weight: Tensor) -> bool:
    """Whether the model of a convolution's weight (O, I, H, W) was moved to channels_last."""
    return weight.stride(3) > 1


def _new(form: type[Swapped], own: type[nn.Module]) -> nn.Module:
    joint = _joint_class(form, own)
    return joint.__new__(joint)


@cache
def _joint_class(form: type[Swapped], own: type[nn.Module]) -> type[nn.Module]:
    kept = ("__module__", "__qualname__", "__doc__")
    return type(own.__name__, (form, own), {name: getattr(own, name) for name in kept})
