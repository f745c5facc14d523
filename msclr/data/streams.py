"""The three input streams of a clip: joint, motion and bone."""

from __future__ import annotations

import torch
from torch import Tensor

from msclr.errors import InputError
from msclr.kernels import STREAMS
from msclr.layouts import Layout

__all__ = ["STREAMS", "to_stream"]


def to_stream(x: Tensor, stream: str, layout: Layout, planar: bool = False) -> Tensor:
    """A stream of clips (B, M, T, V, 3).

    joint: x itself. motion: ``x[t+1] - x[t]``, the last frame 0. bone: ``x[joint] - x[parent]`` by
    the layout's own bones, 0 at the root. Planar joints are (x, y, score), and keep their score.

    Source: CrosSCLR (CVPR 2021), section 3.3; each layout's own bones as MS-CLR has them.
    """
    if stream == "joint":
        return x
    if stream == "motion":
        made = torch.zeros_like(x)
        made[:, :, :-1] = x[:, :, 1:] - x[:, :, :-1]
    elif stream == "bone":
        made = x - x[:, :, :, layout.parents.to(x.device)]
    else:
        raise InputError(f"stream must be one of {', '.join(STREAMS)}, got {stream!r}")
    if planar:
        made[..., 2] = x[..., 2]
    return made
