"""Where a cleaned clip is put: the frame and the size that its coordinates are given in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from msclr.data._store_files import CENTRED, FRAMES, SIZES
from msclr.data.prepare._want import want_one_of
from msclr.data.prepare.steps import center_bodies, resample
from msclr.data.skeleton.frame import Frame, Landmarks, body_frame, tells_frame
from msclr.data.skeleton.shoulders import shoulder_line, turn
from msclr.errors import InputError
from msclr.layouts.layout import Layout

DEFAULT_FRAME = "body"  # docs/data.md says how it was decided


SHOULDERS = ("lsho", "rsho")


class Filled(NamedTuple):
    """The bodies of a clip without gaps.

    xyz: (B, T, V, 3) float64 metres; seen: (B, T, V) bool, which of them were measured and not
    filled in; ever: (B, V) bool, which joints were measured in any frame, the others are 0.
    """

    xyz: np.ndarray
    seen: np.ndarray
    ever: np.ndarray


class Placed(NamedTuple):
    """A clip in its frame: xyz (B, frames, V, 3) float64, the constants that led there (of a
    centred frame the scale alone), and whether it should be turned but no shoulders are in sight.
    """

    xyz: np.ndarray
    frame: Frame
    unturned: bool = False


@dataclass(frozen=True)
class Placement:
    """A frame and a size, as `prepare_arrays` describes them.

    published: the frame "ntu" as NTU's own files have it. Shoulders are the joints lsho and rsho,
        and a layout without them is not turned; else they are landmarks of the layout. Clips are
        also resampled first, which is quicker and differs in the last bits alone.
    """

    frame: str = "camera"
    size: str = "none"
    published: bool = False

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
        """Whether constants found from its body change a clip."""
        return self.frame == "body" or self.size == "torso"

    def place(self, clip: Filled, layout: Layout, frames: int, main: int = 0) -> Placed:
        """A clip resampled and put into the frame; the body `main` decides."""
        found = Frame(np.eye(3), np.zeros(3))
        if self.finds_body:
            found = body_frame(clip.xyz, layout, clip.seen, main)
            if self.frame != "body":
                found = Frame(np.eye(3), np.zeros(3), found.scale, found.lacking)
            elif self.size == "none":
                found = Frame(found.rotation, found.origin, 1.0, found.lacking)
        if self.centred:
            early = resample(clip.xyz, frames) if self.published else clip.xyz
            xyz = center_bodies(early, clip.ever, layout.center_index)
            xyz = xyz if self.published else resample(xyz, frames)
            unturned = self.frame == "ntu" and self._turn(xyz, clip, layout, main)
            return Placed(xyz / found.scale if self.finds_body else xyz, found, unturned)
        xyz = resample(clip.xyz, frames)
        return Placed(found.apply(xyz, ~clip.ever[:, None]) if self.finds_body else xyz, found)

    def _turn(self, xyz: np.ndarray, clip: Filled, layout: Layout, main: int) -> bool:
        """Turn xyz, in place, by the shoulders of the clip's main body; True: none are seen."""
        if not self.published:
            body = Landmarks(clip.xyz[main], clip.seen[main], layout)
            sides = (body.place({"lshoulder": 1.0}), body.place({"rshoulder": 1.0}))
        elif all(joint in layout.joints for joint in SHOULDERS):
            joints = [layout.joints.index(joint) for joint in SHOULDERS]
            seen = clip.seen[main][:, joints, None]  # (T, 2, 1)
            sides = np.where(seen, clip.xyz[main][:, joints], np.nan).swapaxes(0, 1)
        else:
            return False
        line = shoulder_line(*sides)  # of (T, 3) each
        if line is not None:
            turn(xyz, *line)
        return line is None


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
    want_one_of(frame, "frame", FRAMES)
    if size is None:
        size = "torso" if frame == "body" else "none"
    want_one_of(size, "size", SIZES)
    return Placement(frame, size), why
