"""``msclr::augment``: its declaration, and where the code of each backend is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from msclr.kernels._operator import Operator, define
from msclr.kernels.augment import reference


class Arguments(NamedTuple):
    """See :func:`msclr.kernels.augment`; view and stream count in ``VIEWS`` and ``STREAMS``."""

    clips: Tensor
    index: Tensor
    numbers: Tensor
    epochs: Tensor
    seed: int  # 64 bits, signed
    purpose: int
    view: int
    flip: Tensor | None
    stream: int
    parents: Tensor | None
    planar: bool
    dtype: torch.dtype
    amounts: Sequence[float]  # as amounts.Amounts has them


def _fake(clips, index, *rest):
    dtype = Arguments(clips, index, *rest).dtype
    return clips.new_empty((index.shape[0], *clips.shape[1:]), dtype=dtype)


define(
    "augment",
    "(Tensor clips, Tensor index, Tensor numbers, Tensor epochs, int seed, int purpose, int view, "
    "Tensor? flip, int stream, Tensor? parents, bool planar, ScalarType dtype, "
    "float[] amounts) -> Tensor",
    fake=_fake,
    triton="msclr.kernels.augment.triton_launch",
)

augment = Operator(
    "augment",
    reference=reference.augment,
    cpu=torch.ops.msclr.augment,  # csrc/augment/cpu.cpp
    triton=torch.ops.msclr.augment_triton,  # triton_launch.py
)
