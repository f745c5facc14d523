"""Features of prepared clips by a frozen encoder, the same whatever clips come with them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from msclr.data.streams import to_stream
from msclr.nn import STGCN

BATCH = 256  # clips
# Matrix products of few rows are added up in another order than those of many, and so differ in
# their last bits. From this many clips on they do not: fewer are filled up with copies.
_FEWEST = 32


@torch.no_grad()
def encode(
    encoder: STGCN,
    x: Tensor,
    bodies: Tensor,
    layout: str,
    stream: str,
    planar: bool = False,
) -> Tensor:
    """Features (N, D) float32 of clips x (N, M, T, V, 3) with bodies (N, M), under one layout.

    On a CPU a clip has the same features to the last bit, alone or among others.
    """
    encoder.eval()
    about = encoder.layouts[layout]
    out = [x.new_empty(0, encoder.hidden_dim)]
    for clips, present in zip(x.split(BATCH), bodies.split(BATCH), strict=True):
        count = len(clips)
        if count == 0:
            break
        if count < _FEWEST:
            rows = torch.arange(_FEWEST, device=x.device) % count
            clips, present = clips[rows], present[rows]
        made = to_stream(clips, stream, about, planar).permute(0, 4, 2, 3, 1)  # (B, 3, T, V, M)
        out.append(encoder(made, layout, present)[:count].float())
    return torch.cat(out)


def mean_cosine(features: Tensor) -> float:
    """The mean cosine of features (N, D) over all pairs, each with itself included.

    It is the squared length of the mean of the normalised features; near 1 they coincide.
    """
    mean = normalize(features.double(), dim=1).mean(dim=0)  # (D,)
    return mean.square().sum().item()
