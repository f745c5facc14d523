"""Augmented batches in Triton: what is launched, with which blocks.

A view of B clips reads B M T V 3 numbers and writes as many; an extreme view makes about twice its
noise, for tiles of 16 frames overlap by 14 where they are blurred, and reads its clips as often.
"""

from __future__ import annotations

import torch
from torch import Tensor

from msclr.kernels._triton import cdiv
from msclr.kernels.augment import triton_kernels as programs
from msclr.kernels.augment.amounts import LEAST_BLUR, Amounts
from msclr.kernels.augment.operator import Arguments

# Unmeasured yet: chosen by what ptxas makes of them for sm_80 and sm_90, no spills.
_BLOCKS = {"BLOCK_T": 16, "BLOCK_S": 32, "BLOCK_V": 32, "BLOCK_N": 1024, "num_warps": 4}


def forward(*given) -> Tensor:
    """``msclr::augment_triton``: (B, M, T, V, 3)."""
    clips, index, numbers, epochs, seed, purpose, view, flip, stream, parents, planar, *_ = given
    dtype, amounts = Arguments(*given).dtype, Amounts(*Arguments(*given).amounts)
    held, bodies, frames, joints, _ = clips.shape
    out = torch.empty((len(index), *clips.shape[1:]), dtype=dtype, device=clips.device)
    if out.numel() == 0:
        return out
    grid = (
        len(index) * bodies,
        cdiv(frames, _BLOCKS["BLOCK_T"]),
        cdiv(joints, _BLOCKS["BLOCK_V"]),
    )
    with torch.cuda.device_of(clips):
        programs.augment[grid](
            clips, index.contiguous(), numbers.contiguous(), epochs.contiguous(),
            None if flip is None else flip.contiguous(),
            None if parents is None else parents.contiguous(),
            out, held, bodies, frames, joints, seed, purpose,
            int(amounts.pad), amounts.shear, amounts.rotation / 45, amounts.noise,
            amounts.blur - LEAST_BLUR, amounts.flip, amounts.axis,
            VIEW=view, STREAM=stream, PLANAR=planar, **_BLOCKS,
        )  # fmt: skip
    return out
