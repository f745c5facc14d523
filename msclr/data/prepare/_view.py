"""The clips under one layout, and how one of them is cleaned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from msclr.data.prepare.clean import center_bodies, fill_gaps, motion, resample, seen_joints
from msclr.data.prepare.report import ViewReport
from msclr.layouts.layout import Layout


class View:
    """The clips under one layout, and the counts of what cleaning them found."""

    def __init__(self, layout: Layout, clips: Sequence[np.ndarray]) -> None:
        self.layout, self.clips, self.name = layout, clips, layout.name
        self._centred = True  # until a clip has its centre elsewhere than at 0
        self._counts = ViewReport()
        self._reach: list[float] = []

    def bodies(self, clip: int) -> np.ndarray:
        xyz = np.asarray(self.clips[clip])
        return xyz if xyz.ndim == 4 else xyz[None]  # (M, T, V, 3)

    def present(self, clip: int) -> np.ndarray:
        """Which bodies have any joint in any frame, (M,) bool. Ask for each clip before `clean`."""
        seen = seen_joints(self.bodies(clip))
        self._centred &= not seen[:, :, self.layout.center_index].any()
        return seen.any(axis=(1, 2))

    def motion(self, clip: int, rows: np.ndarray) -> np.ndarray:
        xyz = self.bodies(clip)[rows].astype(np.float64)
        return motion(xyz, seen_joints(xyz))  # (len(rows),)

    def clean(self, clip: int, rows: np.ndarray, frames: int, scale: float) -> np.ndarray:
        """The bodies `rows` of a clip, cleaned: (len(rows), frames, V, 3) float64."""
        raw = self.bodies(clip)[rows]
        seen = seen_joints(raw)
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
        xyz = center_bodies(xyz, ever, self.layout.center_index)
        xyz = resample(xyz, frames)
        self._reach.append(float(np.sqrt((xyz**2).sum(axis=-1)).max()))
        return xyz

    def report(self) -> ViewReport:
        return replace(self._counts, reach=float(np.median(self._reach)))
