"""Pretraining: the loop, its checkpoints and its processes."""

from msclr.training.pretrain import Pretraining, pretrain

__all__ = ["Pretraining", "pretrain"]
