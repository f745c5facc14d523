"""The bodies of a clip under one layout: cleaned, resampled, centred, turned to face the sensor."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from msclr.data.prepare._place import Filled, Placement
from msclr.data.prepare.clean import center_bodies, fill_gaps, resample
from msclr.data.prepare.report import ViewReport
from msclr.data.skeleton.frame import Frame
from msclr.data.skeleton.shoulders import shoulder_line, turn
from msclr.errors import InputError
from msclr.layouts.layout import Layout

NTU = Placement("ntu")
SHOULDERS = ("lsho", "rsho")
_FURTHEST = 1e18  # metres; a sum of squares stays within float32


@dataclass
class ViewCounts:
    """What cleaning found under one layout; `add` joins the counts of chunks of clips.

    joints, interpolated, never_seen, trimmed_frames: as in `ViewReport`
    reach: metres from a body's centre to its furthest joint, one of each clip
    unturned: clips whose main body never shows both shoulders
    unframed: clips whose main body does not show what its frame follows from: what -> how many
    """

    joints: int = 0
    interpolated: int = 0
    never_seen: int = 0
    trimmed_frames: int = 0
    unturned: int = 0
    unframed: dict[str, int] = field(default_factory=dict)
    reach: list[float] = field(default_factory=list)

    def add(self, other: ViewCounts) -> None:
        self.joints += other.joints
        self.interpolated += other.interpolated
        self.never_seen += other.never_seen
        self.trimmed_frames += other.trimmed_frames
        self.unturned += other.unturned
        self.reach += other.reach
        for what, clips in other.unframed.items():
            self.unframed[what] = self.unframed.get(what, 0) + clips

    def report(self) -> ViewReport:
        reach = float(np.median(self.reach)) if self.reach else 0.0
        return ViewReport(
            self.joints, self.interpolated, self.never_seen, self.trimmed_frames, reach
        )


class Cleaner:
    """Cleans clips under one layout, clip by clip, and counts what it finds."""

    def __init__(self, layout: Layout, frames: int, placement: Placement = NTU) -> None:
        self.layout, self.frames, self.placement = layout, frames, placement
        self.counts = ViewCounts()
        self._shoulders = None  # (left, right) on the joint axis
        if all(joint in layout.joints for joint in SHOULDERS):
            self._shoulders = tuple(layout.joints.index(joint) for joint in SHOULDERS)

    def clean(self, xyz: np.ndarray, seen: np.ndarray) -> tuple[np.ndarray, Frame]:
        """xyz (M, T, V, 3), seen (M, T, V) with each body seen -> (M, frames, V, 3) float64, and
        the constants of the clip's frame.

        Frames at either end without any body go; missing joints are interpolated over time, held
        before the first and after the last sight; linear resampling over time; then the placement.
        Of "ntu" the centre joint is subtracted per frame and body; then all is turned about y by
        one angle, that which lays the main body's shoulders along x in the first frame that shows
        both.

        One angle for all bodies and frames keeps turns as motion and the bodies' angle to one
        another. Resampling comes before the rest, which is linear in each frame, as it leaves less.
        Raises InputError for coordinates that are no lengths.
        """
        whole = bool(seen.all())
        if np.abs(xyz if whole else xyz[seen]).max() > _FURTHEST:
            raise InputError("coordinates too large for float32")
        self.counts.joints += seen.size
        if self.placement != NTU:
            return self._place(self._fill(xyz, seen))
        across = self._across(xyz, seen)
        if whole:
            xyz = resample(xyz.astype(np.float64), self.frames)
            xyz -= xyz[:, :, self.layout.center_index, None]
        else:
            xyz = self._mend(xyz, seen)
        if across is not None:
            turn(xyz, *across)
        self._count_reach(xyz)
        return xyz, Frame(np.eye(3), np.zeros(3))

    def _count_reach(self, xyz: np.ndarray) -> None:
        self.counts.reach.append(math.sqrt(np.einsum("...i,...i", xyz, xyz).max()))

    def _place(self, clip: Filled) -> tuple[np.ndarray, Frame]:
        """Any other placement; the first body is the main one."""
        xyz, frame = self.placement.place(clip, self.layout, self.frames)
        if frame.lacking:
            self.counts.unframed[frame.lacking] = self.counts.unframed.get(frame.lacking, 0) + 1
        about = center_bodies(xyz, clip.ever, self.layout.center_index)
        self._count_reach(about * frame.scale)
        return xyz, frame

    def _mend(self, xyz: np.ndarray, seen: np.ndarray) -> np.ndarray:
        """Trimmed, filled, resampled and centred."""
        xyz, _, ever = self._fill(xyz, seen)
        return center_bodies(resample(xyz, self.frames), ever, self.layout.center_index)

    def _fill(self, xyz: np.ndarray, seen: np.ndarray) -> Filled:
        """Trimmed and filled."""
        there = np.flatnonzero(seen.any(axis=(0, 2)))
        kept = slice(there[0], there[-1] + 1)
        gone = seen.size
        xyz, seen = xyz[:, kept], seen[:, kept]
        gone -= seen.size
        ever = seen.any(axis=1)  # (M, V)
        self.counts.joints -= gone
        self.counts.trimmed_frames += gone // ever.size
        self.counts.never_seen += int((~ever).sum())
        self.counts.interpolated += int((~seen & ever[:, None]).sum())
        return Filled(fill_gaps(xyz.astype(np.float64), seen), seen, ever)

    def _across(self, xyz: np.ndarray, seen: np.ndarray) -> tuple[float, float] | None:
        """(x, z) of the main body from its left to its right shoulder, of length 1; see `clean`."""
        if self._shoulders is None:
            return None
        sides = (np.where(seen[0, :, [j]].T, xyz[0, :, j], np.nan) for j in self._shoulders)
        line = shoulder_line(*sides)  # of (T, 3) each
        self.counts.unturned += line is None
        return line
