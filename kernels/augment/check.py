"""Argument checks of the augmented batches, shared by every backend."""

from __future__ import annotations

import torch
from torch import Tensor

VIEWS = ("none", "normal", "extreme")
STREAMS = ("joint", "motion", "bone")
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def check_augment(
    clips: Tensor,
    index: Tensor,
    numbers: Tensor,
    epochs: Tensor,
    view: str,
    flip: Tensor | None,
    stream: str,
    parents: Tensor | None,
    dtype: torch.dtype,
) -> None:
    """Raise ValueError naming the first argument of augment that does not fit the others."""
    named = {"clips": clips, "index": index, "numbers": numbers, "epochs": epochs}
    _want(clips.dim() == 5 and clips.shape[4] == 3, "clips", clips, "(N, M, T, V, 3)")
    _want(clips.numel() > 0 or len(clips) == 0, "clips", clips, "(N, M, T, V, 3), M, T, V >= 1")
    _want(0 not in clips.shape[1:], "clips", clips, "(N, M, T, V, 3), M, T, V >= 1")
    _want(clips.dtype in DTYPES, "clips", clips, "float32, float16 or bfloat16")
    if not clips.is_contiguous():
        raise ValueError(f"clips must be contiguous, got strides {clips.stride()}")
    _want(index.dim() == 1 and index.dtype == torch.int64, "index", index, "int64 (B,)")
    for name in ("numbers", "epochs"):
        fits = named[name].shape == index.shape and named[name].dtype == torch.int64
        _want(fits, name, named[name], f"int64 ({len(index)},) as index")
    _choice("view", view, VIEWS)
    _choice("stream", stream, STREAMS)
    joints = clips.shape[3]
    for name, table, use in (("flip", flip, "extreme"), ("parents", parents, "bone")):
        if table is None:
            if use in (view, stream):
                raise ValueError(f"{name} must be int64 ({joints},) for {use!r}, got None")
            continue
        _want(table.shape == (joints,) and table.dtype == torch.int64, name, table,
              f"int64 ({joints},)")  # fmt: skip
        _within(name, table, joints, "joints")
        named[name] = table
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(map(str, DTYPES))}, got {dtype}")
    for name, tensor in named.items():
        if tensor.device != clips.device:
            raise ValueError(f"{name} is on {tensor.device}, but clips is on {clips.device}")
    _within("index", index, len(clips), "rows of clips")


def _within(name: str, tensor: Tensor, count: int, what: str) -> None:
    """Values can be looked at on a CPU only: a GPU would have to be waited for."""
    if tensor.device.type != "cpu" or torch.compiler.is_compiling() or tensor.numel() == 0:
        return
    low, high = (int(x) for x in tensor.aminmax())
    if low < 0 or high >= count:
        raise ValueError(f"{name} must be {what} 0..{count - 1}, got values from {low} to {high}")


def _choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def _want(holds: bool, name: str, tensor: Tensor, wanted: str) -> None:
    if not holds:
        raise ValueError(f"{name} must be {wanted}, got {tuple(tensor.shape)} {tensor.dtype}")
