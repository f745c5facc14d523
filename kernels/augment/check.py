"""Argument checks of augment, shared by every backend; a GPU is never waited for."""

from __future__ import annotations

import torch

from msclr.kernels._arguments import want, want_one_device, want_within
from msclr.kernels.augment.operator import Arguments
from msclr.kernels.augment.reference import STREAMS, VIEWS

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def check_arguments(arguments: Arguments) -> None:
    """Raise ValueError naming the first argument that does not fit the others."""
    clips, index, numbers, epochs, *_ = arguments
    flip, parents, dtype = arguments.flip, arguments.parents, arguments.dtype
    want(clips.dim() == 5 and clips.shape[4] == 3, "clips", clips, "(N, M, T, V, 3)")
    want(0 not in clips.shape[1:], "clips", clips, "(N, M, T, V, 3), M, T, V >= 1")
    want(clips.dtype in _DTYPES, "clips", clips, "float32, float16 or bfloat16")
    if not clips.is_contiguous():
        raise ValueError(f"clips must be contiguous, got strides {clips.stride()}")
    want(index.dim() == 1 and index.dtype == torch.int64, "index", index, "int64 (B,)")
    for name, tensor in (("numbers", numbers), ("epochs", epochs)):
        fits = tensor.shape == index.shape and tensor.dtype == torch.int64
        want(fits, name, tensor, f"int64 ({len(index)},) as index")
    joints = clips.shape[3]
    used = VIEWS[arguments.view], STREAMS[arguments.stream]
    for name, table, use in (("flip", flip, "extreme"), ("parents", parents, "bone")):
        if table is None and use in used:
            raise ValueError(f"{name} must be int64 ({joints},) for {use!r}, got None")
        if table is not None:
            fits = table.shape == (joints,) and table.dtype == torch.int64
            want(fits, name, table, f"int64 ({joints},)")
            want_within(name, table, 0, joints - 1, f"be joints 0..{joints - 1}")
    if dtype not in _DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(map(str, _DTYPES))}, got {dtype}")
    tensors = {k: t for k, t in arguments._asdict().items() if torch.is_tensor(t)}
    want_one_device(**tensors)
    last = len(clips) - 1
    want_within("index", index, 0, last, f"be rows of clips 0..{last}")


def place(name: str, value: str, choices: tuple[str, ...]) -> int:
    """The position of a choice among those there are; ValueError for any other."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
    return choices.index(value)
