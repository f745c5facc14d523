"""From the raw joints of one clip to clean ones, the same way for every source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from msclr.data.prepare._place import Filled, Placement
from msclr.data.prepare.report import Counts
from msclr.data.prepare.steps import center_bodies, fill_gaps, resample
from msclr.data.skeleton.frame import Frame
from msclr.layouts.layout import Layout


@dataclass(frozen=True)
class Rules:
    """How the clips of a data set are cleaned.

    frames: T of the clean clips. placement: the frame and the size they are put into.
    scale: metres per unit. planar: joints are x, y and a score, and are not placed.
    einsum: the reach in the report is that of NumPy's einsum, whose last bit may differ, as the
        reports of NTU's own files have always had it.
    """

    frames: int
    placement: Placement = Placement()
    scale: float = 1.0
    planar: bool = False
    einsum: bool = False


class Cleaned(NamedTuple):
    """A clip as it is written: xyz (B, frames, V, 3) float64, ever (B, V) as in `Filled`, and the
    constants of its frame."""

    xyz: np.ndarray
    ever: np.ndarray
    frame: Frame


def clean_clip(
    xyz: np.ndarray, seen: np.ndarray, layout: Layout, rules: Rules, counts: Counts, main: int = 0
) -> Cleaned:
    """The bodies of a clip, cleaned: trimmed, filled in, resampled and put into their frame.

    xyz (B, T, V, 3) of any real dtype, seen (B, T, V) bool: which joints were measured, at least
    one. Frames at either end without any body go; missing joints are interpolated over time, held
    before the first and after the last sight. main: the body that decides the frame. What is found
    is added to `counts`. Of a planar clip a filled joint has the score 0.
    """
    if seen.all():
        ever = np.ones((seen.shape[0], seen.shape[2]), bool)  # (B, V)
    else:
        there = np.flatnonzero(seen.any(axis=(0, 2)))
        kept = slice(there[0], there[-1] + 1)
        counts.trimmed_frames += seen.shape[1] - int(kept.stop - kept.start)
        xyz, seen = xyz[:, kept], seen[:, kept]
        ever = seen.any(axis=1)
        counts.never_seen += int((~ever).sum())
        counts.interpolated += int((~seen & ever[:, None]).sum())
    counts.joints += seen.size
    score = xyz[..., 2]
    xyz = xyz.astype(np.float64)
    if rules.scale != 1:
        xyz *= rules.scale
    xyz = fill_gaps(xyz, seen)
    if rules.planar:
        xyz[..., 2] = np.where(seen, score, 0)  # a score is measured or 0, never made up
        counts.count_span(xyz[seen][:, :2])
        xyz = resample(xyz, rules.frames)
        counts.count_reach(xyz[..., :2])
        return Cleaned(xyz, ever, Frame(np.eye(3), np.zeros(3)))
    placed = rules.placement.place(Filled(xyz, seen, ever), layout, rules.frames, main)
    counts.unturned += placed.unturned
    about = placed.xyz  # each body about its centre
    if not rules.placement.centred:
        about = center_bodies(placed.xyz, ever, layout.center_index)
    counts.count_reach(about, placed.frame.scale, rules.einsum)
    return Cleaned(placed.xyz, ever, placed.frame)
