"""Augmented batches of clips: the public functions."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from msclr.kernels.augment import operator
from msclr.kernels.augment.amounts import amounts_of
from msclr.kernels.augment.check import check_arguments, place
from msclr.kernels.augment.operator import Arguments
from msclr.kernels.augment.philox import philox
from msclr.kernels.augment.reference import STREAMS, VIEWS

__all__ = ["augment", "philox"]


def augment(
    clips: Tensor,
    index: Tensor,
    epochs: Tensor,
    *,
    seed: int,
    purpose: int,
    view: str = "none",
    numbers: Tensor | None = None,
    flip: Tensor | None = None,
    stream: str = "joint",
    parents: Tensor | None = None,
    strengths: Mapping[str, float] | None = None,
    planar: bool = False,
    dtype: torch.dtype = torch.float32,
    backend: str | None = None,
) -> Tensor:
    """One view of a batch of clips as an encoder takes it, gathered and augmented in one pass.

    "normal": a temporal crop (T/6 frames mirrored onto both ends, T frames from a random one on)
    and a shear (off-diagonals U(-0.5, 0.5)). "extreme": those; then a left-right flip (p 0.5), a
    rotation (one axis U(0, 30) degrees, the others U(0, 1)), Gaussian noise of sd 0.01 (p 0.5), a
    Gaussian blur over time of 15 taps and sd U(0.1, 2) (p 0.5), one coordinate axis set to zero
    (p 0.5). "none": the clips as they are. Then the stream: joint; motion ``x[t+1] - x[t]``, the
    last frame 0; or bone ``x[joint] - x[parent]``.

    Random numbers depend on (seed, epoch, number of the clip, purpose) alone, by the table in
    kernels/augment/reference.py; bodies of a clip share all but the noise. Whole numbers are the
    same on every backend, coordinates agree up to rounding (a few 1e-7 of the largest).

    Args:
        clips: (N, M, T, V, 3) float32, float16 or bfloat16, contiguous, metres; M bodies, of which
            an absent one is all zero, and stays so. Computed in float32.
        index: (B,) int64, the rows of ``clips`` to take. On a CPU one that is not there is an
            error; a compiled GPU backend makes it NaN, for it does not wait to tell.
        epochs: (B,) int64, which pass over the data each clip is in.
        seed: of the run, 64 bits.
        purpose: a number that sets independent draws apart (query view, key view, ...).
        view: "none", "normal" or "extreme".
        numbers: (B,) int64, the clips' own numbers where ``clips`` holds a part of the data set;
            None: ``index``. Like epochs and purpose, its lower 32 bits count.
        flip: (V,) int64, the layout's left-right permutation; wanted for "extreme".
        stream: "joint", "motion" or "bone".
        parents: (V,) int64, each joint's parent, a root its own; wanted for "bone".
        strengths: of augmentations, where they are not to be as above. Of every view: "shear", the
            largest off-diagonal (0.5), and "crop", the share of the frames that is mirrored (1/6);
            of "extreme": "rotation" in degrees (30), "noise" by its standard deviation (0.01),
            "blur" by its largest one in frames (2), and the probabilities of "flip" and "axis"
            (0.5). 0 switches one off, and changes nothing that is drawn for the others.
        planar: joints are (x, y, score): matrices, noise and the zeroed axis are for x and y alone,
            motion and bone keep the joint's score, the blur takes the score along.
        dtype: of the result: float32, float16 or bfloat16.
        backend: "cpu", "triton" or "reference" (see :func:`msclr.kernels.backends`), or None for
            the fastest that can run here. Neither batch, its order nor threads change a clip.

    Returns:
        (B, 3, T, V, M), a view of (B, M, T, V, 3) memory. There is no gradient.

    Raises:
        ValueError: an argument of the wrong shape, dtype, device or range; it is named.

    Sources: AimCLR (AAAI 2022), section 3.2; CrosSCLR (CVPR 2021), section 3.3 (streams); Salmon
    et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).

    Code: ``kernels/augment/operator.py``; C++ ``csrc/augment/cpu.cpp``, Triton
    ``kernels/augment/triton_launch.py``.
    """
    arguments = Arguments(
        clips,
        index,
        index if numbers is None else numbers,
        epochs,
        (seed + 2**63) % 2**64 - 2**63,  # the same 64 bits, signed
        purpose,
        place("view", view, VIEWS),
        flip,
        place("stream", stream, STREAMS),
        parents,
        planar,
        dtype,
        amounts_of(strengths, clips.shape[2] if clips.dim() == 5 else 1),
    )
    check_arguments(arguments)
    made = operator.augment(backend, arguments)  # (B, M, T, V, 3)
    return made.permute(0, 4, 2, 3, 1)
