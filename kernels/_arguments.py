"""What the operators' functions have in common before they run: checks and conversions."""

from __future__ import annotations

import torch
from torch import Tensor


def want(holds: bool, name: str, tensor: Tensor, wanted: str) -> None:
    """Raise ValueError unless an argument is as it must be."""
    if not holds:
        raise ValueError(f"{name} must be {wanted}, got {tuple(tensor.shape)} {tensor.dtype}")


def want_one_device(**tensors: Tensor | None) -> None:
    """Raise ValueError unless all are where the first is."""
    (first, origin), *_ = tensors.items()
    for name, tensor in tensors.items():
        if tensor is not None and tensor.device != origin.device:
            raise ValueError(f"{name} is on {tensor.device}, but {first} is on {origin.device}")


def want_one_precision(**tensors: Tensor | None) -> None:
    """Half-precision tensors are computed in float32, so they go with it; float64 goes alone."""
    (first, origin), *_ = tensors.items()
    for name, tensor in tensors.items():
        double = tensor is not None and tensor.dtype == torch.float64
        if tensor is not None and double != (origin.dtype == torch.float64):
            raise ValueError(f"{name} is {tensor.dtype}, but {first} is {origin.dtype}")


def has_values(tensor: Tensor) -> bool:
    """Whether values can be read without waiting: not on a GPU, and a trace has none."""
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()


def want_within(name: str, tensor: Tensor, low: int, high: int, what: str) -> None:
    """Raise ValueError for whole numbers outside low..high, where values can be read."""
    if not tensor.numel() or not has_values(tensor):
        return
    values = tensor.numpy()
    least, most = values.min(), values.max()
    if least < low or most > high:
        raise ValueError(f"{name} must {what}, got values from {least} to {most}")


def want_positive(name: str, scalar: Tensor) -> None:
    """Raise ValueError unless a tensor is one positive number."""
    if scalar.numel() != 1:
        raise ValueError(f"{name} must be a scalar, got {tuple(scalar.shape)}")
    if has_values(scalar) and not scalar > 0:
        raise ValueError(f"{name} must be positive, got {float(scalar)}")


def as_positive(name: str, number: float | Tensor) -> Tensor:
    """The tensor, or a number as one of float64 on the CPU; ValueError unless positive."""
    if torch.is_tensor(number):
        want_positive(name, number)
    elif not number > 0:
        raise ValueError(f"{name} must be positive, got {number}")
    return number if torch.is_tensor(number) else torch.tensor(number, dtype=torch.float64)


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision is computed in float32; float32 and float64 stay as they are."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def like(tensor: Tensor) -> Tensor:
    """An empty contiguous tensor of the same shape, dtype and device."""
    return tensor.new_empty(tensor.shape)
