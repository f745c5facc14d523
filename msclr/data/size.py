"""How large the bodies of a data set are, so that millimetres are not taken for metres."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

MAX_CLIPS = 1000  # looked at: enough for a median, and read in a fraction of a second


def body_size(clips: Sequence[np.ndarray], planar: bool = False) -> float | None:
    """The usual extent of a body in `clips`, in their unit; None where no body can be measured.

    clips: N clips (M, T, V, 3) or (T, V, 3), such as a memory-mapped (N, M, T, V, 3). Of more than
        1,000, 1,000 evenly spread ones are looked at, one in memory at a time.
    planar: the joints are x, y and score, not x, y and z.

    The extent of a body in a frame is the diagonal of the bounding box of its joints. Joints that
    are missing are left out: not finite, or all three coordinates exactly 0 (as absent bodies are,
    joints that were never seen, and the centre); of planar joints, those without a positive score.
    The size of a clip is the median over its frames and bodies of the extents above 0; the result
    is the median over the clips.
    """
    count = len(clips)
    chosen = range(count) if count <= MAX_CLIPS else np.arange(MAX_CLIPS) * count // MAX_CLIPS
    sizes = [size for clip in chosen if (size := _clip_size(clips[clip], planar)) is not None]
    return float(np.median(sizes)) if sizes else None


def _clip_size(clip: np.ndarray, planar: bool) -> float | None:
    clip = np.asarray(clip, dtype=np.float64)  # (…, T, V, 3)
    position = clip[..., :2] if planar else clip
    there = clip[..., 2] > 0 if planar else (clip != 0).any(axis=-1)
    seen = there & np.isfinite(clip).all(axis=-1)  # (…, T, V)
    high = np.where(seen[..., None], position, -np.inf).max(axis=-2)  # (…, T, 2 or 3)
    low = np.where(seen[..., None], position, np.inf).min(axis=-2)
    some = seen.any(axis=-1)  # (…, T)
    extents = np.linalg.norm(high[some] - low[some], axis=-1)
    extents = extents[extents > 0]
    return float(np.median(extents)) if len(extents) else None
