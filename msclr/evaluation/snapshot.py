"""The map of a split's embedding while its encoder is still in training."""

from __future__ import annotations

import torch
from torch import Tensor

from msclr.data.dataset import SkeletonDataset
from msclr.encoder.features import encode
from msclr.evaluation.report import embedding_figure
from msclr.nn import STGCN

CLIPS = 500  # of a map; t-SNE of more takes longer than a step may


@torch.no_grad()
def embedding_snapshot(
    encoder: STGCN,
    dataset: SkeletonDataset,
    layout: str,
    stream: str = "joint",
    clips: int = CLIPS,
    title: str = "Embedding",
):
    """A t-SNE map of the features of a split, as a matplotlib figure for TensorBoard.

    ``writer.add_figure("embedding/" + layout, embedding_snapshot(...), step)``. Training is not
    touched: the encoder is back in its mode, nothing is drawn from PyTorch's generators, and it is
    evaluated in float32 whatever the run trains in. Takes a few seconds.

    Args:
        encoder: one that knows the layout.
        dataset: of the clips to show, such as the val split, on the encoder's device.
        layout, stream: which of its layouts, and "joint", "motion" or "bone".
        clips: at most so many, evenly spaced over the split.
        title: of the picture.

    Raises:
        InputError: fewer than three clips.
    """
    features, labels = sample_features(encoder, dataset, layout, stream, clips)
    return embedding_figure(features, labels, dataset.classes, title=title)


@torch.no_grad()
def sample_features(
    encoder: STGCN, dataset: SkeletonDataset, layout: str, stream: str, clips: int
) -> tuple[Tensor, Tensor]:
    """Features (n, D) float32 and labels (n,) of at most so many clips, evenly spaced."""
    count = min(clips, len(dataset))
    rows = torch.arange(count, device=dataset.device) * len(dataset) // max(count, 1)
    training = encoder.training
    try:
        with torch.autocast(dataset.device.type, enabled=False):
            x = dataset.clips(layout, rows)
            features = encode(
                encoder, x, dataset.bodies[rows], layout, stream, planar=dataset.planar
            )
    finally:
        encoder.train(training)
    return features, dataset.labels[rows]
