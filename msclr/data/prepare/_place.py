"""Where a cleaned clip is put: the frame and the size that its coordinates are given in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from msclr.data._store_files import CENTRED, FRAMES, SIZES
from msclr.data.prepare._choice import check_choice
from msclr.data.prepare.clean import center_bodies, resample
from msclr.data.skeleton.frame import Frame, Landmarks, body_frame, tells_frame
from msclr.data.skeleton.shoulders import shoulder_line, turn
from msclr.errors import InputError
from msclr.layouts.layout import Layout

DEFAULT_FRAME = "body"  # docs/data.md says how it was decided


class Filled(NamedTuple):
    """The bodies of a clip without gaps.

    xyz: (B, T, V, 3) float64 metres; seen: (B, T, V) bool, which of them were measured and not
    filled in; ever: (B, V) bool, which joints were measured in any frame, the others are 0.
    """

    xyz: np.ndarray
    seen: np.ndarray
    ever: np.ndarray


@dataclass(frozen=True)
class Placement:
    """A frame and a size, as `prepare_arrays` describes them."""

    frame: str = "camera"
    size: str = "none"

    @property
    def centred(self) -> bool:
        """Whether the centre joint is subtracted in each frame."""
        return self.frame in CENTRED

    @property
    def follows_main(self) -> bool:
        """Whether it matters which body is the main one."""
        return self.frame == "ntu" or self.finds_body

    @property
    def finds_body(self) -> bool:
        """Whether a clip is changed by constants that its body tells."""
        return self.frame == "body" or self.size == "torso"

    def place(
        self, clip: Filled, layout: Layout, frames: int, main: int = 0
    ) -> tuple[np.ndarray, Frame]:
        """A clip resampled and put into the frame: (B, frames, V, 3) float64, and its constants.

        main: the body that decides. Of a centred frame the constants are the scale alone.
        """
        found = Frame(np.eye(3), np.zeros(3))
        if self.finds_body:
            found = body_frame(clip.xyz, layout, clip.seen, main)
            if self.frame != "body":
                found = Frame(np.eye(3), np.zeros(3), found.scale, found.lacking)
            elif self.size == "none":
                found = Frame(found.rotation, found.origin, 1.0, found.lacking)
        if self.centred:
            xyz = resample(center_bodies(clip.xyz, clip.ever, layout.center_index), frames)
            if self.frame == "ntu" and (across := _across(clip, layout, main)):
                turn(xyz, *across)
            return (xyz / found.scale if self.finds_body else xyz), found
        xyz = resample(clip.xyz, frames)
        return (found.apply(xyz, ~clip.ever[:, None]) if self.finds_body else xyz), found


def _across(clip: Filled, layout: Layout, main: int) -> tuple[float, float] | None:
    body = Landmarks(clip.xyz[main], clip.seen[main], layout)
    return shoulder_line(body.place({"lshoulder": 1.0}), body.place({"rshoulder": 1.0}))


def choose_placement(
    frame: str | None, size: str | None, coordinates: str, layouts: Sequence[Layout]
) -> tuple[Placement, str]:
    """The placement that is asked for or suits the layouts, checked, and why not the default."""
    why = ""
    if coordinates == "xy_score":
        if frame not in (None, "camera") or size not in (None, "none"):
            raise InputError(
                f"clips of two dimensions have no frame {frame or DEFAULT_FRAME!r} and no size "
                f"{size or 'none'!r}; leave both out"
            )
        return Placement(), why
    if frame is None:
        frame = DEFAULT_FRAME
        blind = [layout.name for layout in layouts if not tells_frame(layout)]
        if frame == "body" and blind:
            frame = "camera"
            why = f"the landmarks of {', '.join(blind)} do not tell the frame of a body"
    check_choice(frame, "frame", FRAMES)
    if size is None:
        size = "torso" if frame == "body" else "none"
    check_choice(size, "size", SIZES)
    return Placement(frame, size), why
