"""Contrastive methods: a :class:`Batch` of views in, a loss out."""

from msclr.methods.aimclr import AimCLR
from msclr.methods.crossclr import CrosSCLR
from msclr.methods.embedder import Batch, Embedder, View
from msclr.methods.multiview import MultiView
from msclr.methods.pairs import PAIR_MODES, anchored_pairs, draw_pairs
from msclr.methods.queue import Queue
from msclr.methods.skeletonclr import SkeletonCLR, StepOutput

METHODS = {
    "aimclr": AimCLR,
    "crossclr": CrosSCLR,
    "multiview": MultiView,
    "skeletonclr": SkeletonCLR,
}

__all__ = [
    "METHODS",
    "PAIR_MODES",
    "AimCLR",
    "Batch",
    "CrosSCLR",
    "Embedder",
    "MultiView",
    "Queue",
    "SkeletonCLR",
    "StepOutput",
    "View",
    "anchored_pairs",
    "draw_pairs",
]
