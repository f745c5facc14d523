"""Clips whose up is not y."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from msclr.data.skeleton.frame import body_frame
from msclr.layouts import Layout

logger = logging.getLogger(__name__)


def stand_up(clips: Sequence[np.ndarray], layout: Layout) -> Sequence[np.ndarray]:
    """The clips, turned by right angles if another of their axes than y points up.

    Up is where most bodies' trunks lead, from the hips to the neck, over all clips: a sensor's
    axes are the same in each, and one who lies down is not stood up.
    """
    up = np.zeros(3)
    for clip in clips:
        xyz = np.asarray(clip)
        frame = body_frame(xyz if xyz.ndim == 4 else xyz[None], layout)
        if not frame.lacking:
            up += frame.rotation[1]
    axis = int(np.abs(up).argmax())
    if not up.any() or (axis == 1 and up[1] >= 0):  # no trunk is seen, or y is up
        return clips
    sign = "-" if up[axis] < 0 else ""
    logger.warning("%s%s points up in these clips, and is turned to y", sign, "xyz"[axis])
    turned = _turn_to_y(axis, -1.0 if sign else 1.0)
    return [np.asarray(clip) @ turned.T for clip in clips]


def _turn_to_y(axis: int, sign: float) -> np.ndarray:
    """The rotation (3, 3) that takes `sign` times an axis to y and another axis to z or -z."""
    rotation = np.zeros((3, 3))
    rotation[1, axis] = sign
    rotation[0, 2 if axis == 0 else 0] = 1.0
    rotation[2] = np.cross(rotation[0], rotation[1])
    return rotation
