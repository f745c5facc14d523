"""The clips under one layout, and how one of them is cleaned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from msclr.data.prepare._place import Filled, Placement
from msclr.data.prepare.clean import center_bodies, fill_gaps, motion, resample, seen_joints
from msclr.data.prepare.report import ViewReport
from msclr.data.skeleton.frame import Frame
from msclr.layouts.layout import Layout


class Prepared(NamedTuple):
    """A clip as it is written: xyz (B, T, V, 3) float64, ever (B, V) as in `Filled`, the constants
    of its frame."""

    xyz: np.ndarray
    ever: np.ndarray
    frame: Frame


class View:
    """The clips under one layout, and the counts of what cleaning them found.

    `coordinates` and `zeros` are those of `prepare_arrays`.
    """

    def __init__(
        self,
        layout: Layout,
        clips: Sequence[np.ndarray],
        coordinates: str = "xyz",
        zeros: str = "joint",
    ) -> None:
        self.layout, self.clips, self.name = layout, clips, layout.name
        self._scored, self._zeros = coordinates == "xy_score", zeros
        # Until a clip has its centre elsewhere than at 0.
        self._centred = not self._scored and zeros == "joint"
        self._counts = ViewReport()
        self._reach: list[float] = []
        self._low, self._high = np.full(2, np.inf), np.full(2, -np.inf)  # of x and y that are seen

    @property
    def planar(self) -> bool:
        """Whether joints are x, y and a score."""
        return self._scored

    def is_empty(self, clip: int) -> bool:
        """Whether the clip has no frame, or no place for a body."""
        return not np.asarray(self.clips[clip]).size

    def bodies(self, clip: int) -> np.ndarray:
        xyz = np.asarray(self.clips[clip])
        return xyz if xyz.ndim == 4 else xyz[None]  # (M, T, V, 3)

    def present(self, clip: int) -> np.ndarray:
        """Which bodies have any joint in any frame, (M,) bool. Ask for each clip before `clean`."""
        seen = self._seen(self.bodies(clip))
        self._centred = self._centred and not seen[:, :, self.layout.center_index].any()
        return seen.any(axis=(1, 2))

    def motion(self, clip: int, rows: np.ndarray) -> np.ndarray:
        xyz = self.bodies(clip)[rows].astype(np.float64)
        moving = xyz[..., :2] if self._scored else xyz
        return motion(moving, self._seen(xyz))  # (len(rows),)

    def clean(
        self,
        clip: int,
        rows: np.ndarray,
        frames: int,
        scale: float,
        placement: Placement,
        main: int = 0,
    ) -> Prepared:
        """The bodies `rows` of a clip, cleaned; the one of them at `main` decides the frame."""
        raw = self.bodies(clip)[rows]
        seen = self._seen(raw)
        if self._centred:
            center = self.layout.center_index
            seen[:, :, center] = seen.any(axis=2) & (raw[:, :, center] == 0).all(axis=-1)
        window = np.nonzero(seen.any(axis=(0, 2)))[0]
        kept = slice(window[0], window[-1] + 1)
        length = raw.shape[1]
        raw, seen = raw[:, kept], seen[:, kept]

        ever = seen.any(axis=1)  # (len(rows), V)
        self._counts.trimmed_frames += length - seen.shape[1]
        self._counts.joints += seen.size
        self._counts.never_seen += int((~ever).sum())
        self._counts.interpolated += int((~seen & ever[:, None]).sum())

        xyz = fill_gaps(raw.astype(np.float64) * scale, seen)
        if self._scored:
            xyz[..., 2] = np.where(seen, raw[..., 2], 0)  # a score is measured or 0, never made up
            measured = xyz[seen][:, :2]
            self._low = np.minimum(self._low, measured.min(axis=0))
            self._high = np.maximum(self._high, measured.max(axis=0))
            xyz = resample(xyz, frames)
            self._count_reach(xyz[..., :2])
            return Prepared(xyz, ever, Frame(np.eye(3), np.zeros(3)))
        filled = Filled(xyz, seen, ever)
        xyz, frame = placement.place(filled, self.layout, frames, main)
        about = xyz  # each body about its centre
        if not placement.centred:
            about = center_bodies(xyz, ever, self.layout.center_index)
        self._count_reach(about * frame.scale)
        return Prepared(xyz, ever, frame)

    def _count_reach(self, position: np.ndarray) -> None:
        self._reach.append(float(np.sqrt((position**2).sum(axis=-1)).max()))

    def _seen(self, xyz: np.ndarray) -> np.ndarray:
        """Which joints were measured: bodies (B, T, V, 3) to (B, T, V) bool."""
        if self._scored:
            return _finite(xyz) & (xyz[..., 2] > 0)
        seen = seen_joints(xyz)
        return seen.any(axis=2, keepdims=True) & _finite(xyz) if self._zeros == "body" else seen

    def report(self) -> ViewReport:
        span = float((self._high - self._low).max()) if self._scored else None
        return replace(self._counts, reach=float(np.median(self._reach)), span=span)


def _finite(xyz: np.ndarray) -> np.ndarray:
    x, y, z = (np.isfinite(xyz[..., axis]) for axis in range(3))  # quicker than over an axis of 3
    return x & y & z
