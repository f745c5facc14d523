"""Awkward inputs of augment, float64 on the CPU: for tests, and to qualify backends."""

from __future__ import annotations

from functools import partial

import torch

from msclr.kernels._cases import Draw
from msclr.kernels.augment.amounts import amounts_of
from msclr.kernels.augment.operator import Arguments
from msclr.kernels.augment.reference import STREAMS, VIEWS


def make(
    view: str,
    stream: str = "joint",
    clips: int = 6,
    bodies: int = 2,
    frames: int = 13,
    joints: int = 17,
    planar: bool = False,
    **strengths: float,
) -> Arguments:
    """Every third clip lacks its last body; clips come in another order, one of them twice."""
    draw = Draw()
    x = draw.normal(clips, bodies, frames, joints, 3)
    x[::3, -1] = 0
    index = torch.cat([torch.arange(clips).flip(0), torch.zeros(min(clips, 1), dtype=torch.int64)])
    return Arguments(
        x,
        index,
        index + 100,
        index % 3,
        -(2**62) - 3,
        2,
        VIEWS.index(view),
        torch.arange(joints).flip(0),
        STREAMS.index(stream),
        torch.arange(joints) // 2,
        planar,
        torch.float32,
        tuple(amounts_of(strengths, frames)),
    )


CASES = {
    **{f"{v}, {s}": partial(make, v, s) for v in VIEWS for s in STREAMS},
    "normal, in the plane": partial(make, "normal", "bone", planar=True),
    "extreme, in the plane": partial(make, "extreme", "motion", planar=True),
    "one frame, one joint": partial(make, "extreme", "bone", 3, 1, 1, 1),
    "shorter than the blur": partial(make, "extreme", "motion", 4, 1, 5, 3),
    "stronger": partial(
        make,
        "extreme",
        shear=0.8,
        crop=0.4,
        rotation=120.0,
        noise=0.1,
        blur=5.0,
        flip=0.9,
        axis=0.2,
    ),
    "weaker": partial(make, "extreme", "motion", rotation=0.5, blur=0.3, flip=0.1, axis=1.0),
    "all off": partial(
        make, "extreme", shear=0, crop=0, rotation=0, noise=0, blur=0, flip=0, axis=0
    ),
    "no clips": partial(make, "extreme", clips=0),
    "two frames, many joints": partial(make, "extreme", "motion", 4, 1, 2, 33),
    "long and wide": partial(make, "extreme", "bone", 9, 2, 70, 43),
}
LARGE = {"long and wide"}  # for Triton's interpreter
QUALIFYING = (  # tried before a backend becomes the default on a GPU
    "normal, motion",
    "extreme, joint",
    "extreme, bone",
    "extreme, in the plane",
    "one frame, one joint",
    "shorter than the blur",
    "stronger",
    "all off",
    "no clips",
    "long and wide",
)
TIMED = partial(make, "extreme", "joint", 128, 2, 50, 25)
