"""Raw clips under one layout: which of their joints were measured, and which bodies are there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from msclr.data.prepare.clean import Cleaned, Rules, clean_clip
from msclr.data.prepare.report import Counts
from msclr.data.prepare.steps import motion, seen_joints
from msclr.layouts.layout import Layout


class RawClips:
    """The raw clips under one layout, and the counts of what cleaning them found.

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
        self.planar, self._zeros = coordinates == "xy_score", zeros
        # Until a clip has its centre elsewhere than at 0.
        self._centred = not self.planar and zeros == "joint"
        self.counts = Counts()

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
        moving = xyz[..., :2] if self.planar else xyz
        return motion(moving, self._seen(xyz))  # (len(rows),)

    def clean(self, clip: int, rows: np.ndarray, rules: Rules, main: int = 0) -> Cleaned:
        """The bodies `rows` of a clip, cleaned; the one of them at `main` decides the frame."""
        raw = self.bodies(clip)[rows]
        seen = self._seen(raw)
        if self._centred:
            center = self.layout.center_index
            seen[:, :, center] = seen.any(axis=2) & (raw[:, :, center] == 0).all(axis=-1)
        return clean_clip(raw, seen, self.layout, rules, self.counts, main)

    def _seen(self, xyz: np.ndarray) -> np.ndarray:
        """Which joints were measured: bodies (B, T, V, 3) to (B, T, V) bool."""
        if self.planar:
            return _finite(xyz) & (xyz[..., 2] > 0)
        seen = seen_joints(xyz)
        return seen.any(axis=2, keepdims=True) & _finite(xyz) if self._zeros == "body" else seen


def _finite(xyz: np.ndarray) -> np.ndarray:
    x, y, z = (np.isfinite(xyz[..., axis]) for axis in range(3))  # quicker than over an axis of 3
    return x & y & z
