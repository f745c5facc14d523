"""A layout that an encoder has not been trained on, attached by what it shares with one that it
has: the landmarks of the body."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from msclr.data.streams import to_stream
from msclr.layouts.passages import Passage, nearest_joint
from msclr.nn import STGCN


@torch.no_grad()
def attach(encoder: STGCN, passage: Passage) -> None:
    """Let the encoder take `passage.source`, in which it then has its own name.

    Each link has the edge importance of the link between its joints' counterparts in
    `passage.target`, which the encoder knows, or else the mean of its partition there. The affine
    part of the input norm is that of the counterparts; its statistics are to be fitted.
    """
    source, target = passage.source, passage.target
    if source.name not in encoder.layouts:
        encoder.add_layout(source)
    like = torch.tensor(counterparts(passage), device=next(encoder.parameters()).device)  # (V,)
    known = getattr(encoder, f"adjacency_{target.name}") != 0  # (K, V', V')
    own = getattr(encoder, f"adjacency_{source.name}") != 0  # (K, V, V)
    importances = encoder.edge_importance
    for mine, theirs in zip(importances[source.name], importances[target.name], strict=True):
        mine.copy_(_taken_over(theirs, known, own, like))
        mine.requires_grad_(False)
    channels = encoder.in_channels
    norm, other = (encoder.input_norm[name] for name in (source.name, target.name))
    for part in ("weight", "bias"):
        values = getattr(other, part).view(-1, channels)[like]  # (V, C)
        getattr(norm, part).copy_(values.flatten()).requires_grad_(False)


def counterparts(passage: Passage) -> list[int]:
    """For each joint of the source, the joint of the target that it weighs most in; for one that
    weighs in none, that of the nearest joint along its bones."""
    weight = np.abs(passage.matrix)  # (V_target, V_source)
    used = {
        joint: int(weight[:, v].argmax())
        for v, joint in enumerate(passage.source.joints)
        if weight[:, v].any()
    }
    return [used[nearest_joint(passage.source, joint, used)[0]] for joint in passage.source.joints]


def _taken_over(theirs: Tensor, known: Tensor, own: Tensor, like: Tensor) -> Tensor:
    """Importance (K, V, V) of the links `own`, from that of the links `known` (K, V', V')."""
    count = known.sum(dim=(1, 2)).clamp(min=1)
    mean = (theirs * known).sum(dim=(1, 2)) / count  # (K,)
    values, there = (x[:, like][:, :, like] for x in (theirs, known))  # (K, V, V)
    values = torch.where(there, values, mean[:, None, None].expand_as(values))
    return torch.where(own, values, torch.ones_like(values))


@torch.no_grad()
def fit_input_norm(
    encoder: STGCN, layout: str, batches: Iterable[tuple[Tensor, Tensor]], stream: str, planar: bool
) -> None:
    """Set the statistics of a layout's input norm to those of prepared clips; no labels are used.

    batches: clips (B, M, T, V, 3) and which bodies are there, (B, M) bool.
    """
    norm, about = encoder.input_norm[layout], encoder.layouts[layout]
    count, total, square = 0, 0.0, 0.0
    for clips, present in batches:
        rows = to_stream(clips, stream, about, planar)[present].double()  # (R, T, V, 3)
        rows = rows.flatten(0, 1).flatten(1)  # (R*T, V*3), feature v*3 + c
        count += len(rows)
        total, square = total + rows.sum(dim=0), square + rows.square().sum(dim=0)
    mean = total / max(count, 1)
    variance = (square - count * mean.square()).clamp(min=0) / max(count - 1, 1)
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)
