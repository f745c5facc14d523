"""An encoder built from a checkpoint's weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from msclr.errors import InputError
from msclr.layouts import Layout
from msclr.nn.stgcn import STGCN


def build(
    weights: Mapping[str, Tensor], layouts: Sequence[Layout], options: Mapping[str, Any]
) -> STGCN:
    """The encoder of these weights' widths that holds them, in their widest type or float32.

    Raises:
        InputError: weights that are missing, of another shape, unknown or quantised.
    """
    try:
        encoder = STGCN(
            layouts,
            len(weights["blocks.0.gcn_norm.weight"]),
            len(weights["blocks.9.gcn_norm.weight"]),
            in_channels=weights["blocks.0.gcn.conv.weight"].shape[1],
            **options,
        ).to(_widest(weights))
    except KeyError as error:
        raise InputError(f"the checkpoint has no {error} in its encoder") from None
    wanted = encoder.state_dict()
    _check(weights, wanted)
    encoder.load_state_dict({**wanted, **weights})
    return encoder.eval()


def _widest(weights: Mapping[str, Tensor]) -> torch.dtype:
    """Half precision was for the disk: the CPU computes in float32 at least."""
    types = [x.dtype for x in weights.values() if x.is_floating_point() and x.itemsize >= 4]
    return reduce(torch.promote_types, types, torch.float32)


def _check(weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    for key, tensor in wanted.items():
        if key not in weights:
            if not _optional(key, weights):
                raise InputError(f"the checkpoint has nothing for {key} of the encoder")
            continue
        got = weights[key]
        if got.shape != tensor.shape:
            raise InputError(
                f"the checkpoint has shape {tuple(got.shape)} for {key} of the encoder, "
                f"wanted {tuple(tensor.shape)}"
            )
        if got.is_floating_point() != tensor.is_floating_point():
            raise InputError(f"the checkpoint has {got.dtype} for {key}, wanted {tensor.dtype}")
    if unknown := [key for key in weights if key not in wanted]:
        raise InputError(f"the checkpoint has {unknown[0]} in its encoder, which is unknown here")


def _optional(key: str, weights: Mapping[str, Tensor]) -> bool:
    """What a checkpoint may lack: old ones did not count batches, some learn no importance."""
    kind = key.partition(".")[0]
    learns_importance = any(name.startswith("edge_importance.") for name in weights)
    return key.endswith("num_batches_tracked") or (
        kind == "edge_importance" and not learns_importance
    )
