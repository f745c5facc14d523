"""How other projects prepare the clips that their published encoders are trained on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msclr.encoder.preparation import Preparation
from msclr.errors import InputError
from msclr.nn import STGCN
from msclr.nn.pretrained.find import encoder_in

_PLANAR = ("coco_17", "openpose_18")  # layouts of pose estimators in images
_EXTENT = 1.7  # metres, of the bodies of NTU RGB+D


def preparation_of(state: Mapping[str, Any], encoder: STGCN) -> Preparation:
    """The preparation of the project that a checkpoint's keys are of.

    - AimCLR, CrosSCLR, MS-CLR and ActCLR: two bodies; the centre joint (Kinect v2: spine-shoulder)
      at 0 in each frame; turned about y until the shoulders lie along x; 50 frames. They turn each
      frame by itself; here a clip is turned once, by its first frame, so that turning round stays.
    - pyskl: x to the right, y forward, z up, about the middle of the spine, 100 frames; clips of
      images as x, y and score.
    - ST-GCN: as the sensor gave them, 300 frames. Theirs are filled up with zeros, not resampled.

    Raises InputError for weights of ST-GCN on poses in images, which it scales in its own way.
    """
    found = encoder_in(state)
    planar = any(name in _PLANAR for name in encoder.layouts) and encoder.in_channels == 3
    if found.of_pyskl:
        if planar:
            return Preparation(100, 2, coordinates="xy_score")
        return Preparation(100, 2, "body", pyskl=True, extent=_EXTENT)
    if any(str(key).split(".")[-2:-1] == ["fcn"] for key in found.all_keys):
        if planar:
            raise InputError(
                "these are weights of ST-GCN on poses in images, for which there is no preparation "
                "here; msclr.nn.load_pretrained reads the encoder alone"
            )
        return Preparation(300, 2, "none", extent=_EXTENT)
    return Preparation(50, 2, "ntu", upright=True, extent=_EXTENT)
