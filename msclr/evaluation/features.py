"""Features of a frozen encoder: computed once, since they do not change."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from msclr.data.dataset import SkeletonDataset
from msclr.nn import STGCN, BatchNorm

BATCH = 256  # clips
# The mean cosine between two clips. Encoders newly initialised give 0.9 to 0.95, trained ones less.
_COINCIDE = 0.999


@torch.no_grad()
def extract_features(encoder: STGCN, dataset: SkeletonDataset, layout: str, stream: str) -> Tensor:
    """Features (N, D) float32 of every clip of a split under one layout, without augmentation."""
    encoder.eval()
    return torch.cat([encoder(x, layout, bodies) for x, bodies in _inputs(dataset, layout, stream)])


@torch.no_grad()
def fit_statistics(
    encoder: STGCN, dataset: SkeletonDataset, layout: str, stream: str, only_input: bool
) -> None:
    """Set batch norm's running statistics to the mean over the clips of a split. No labels.

    For an encoder that has seen no data, whose statistics say nothing; or, with ``only_input``,
    for the input norm of a layout that the encoder has not been trained on.
    """
    norms: list[nn.Module] = [encoder.input_norm[layout]]
    if not only_input:
        norms += [module for module in encoder.modules() if isinstance(module, BatchNorm)]
    encoder.eval()
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over batches
        norm.train()
    for x, bodies in _inputs(dataset, layout, stream):
        encoder(x, layout, bodies)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    encoder.eval()


def collapse_note(features: Tensor) -> str | None:
    """A sentence if features (N, D) nearly coincide, as those of a collapsed encoder do, or None.

    The measure is the mean cosine over all pairs of clips, each with itself included, which is the
    squared length of the mean of the normalised features.
    """
    mean = normalize(features.double(), dim=1).mean(dim=0)  # (D,)
    cosine = mean.square().sum().item()
    if cosine <= _COINCIDE:
        return None
    return (
        f"features nearly coincide (their mean cosine is below 1 by {max(0, 1 - cosine):.2g}): the "
        "encoder has collapsed or has hardly been trained, and the figure says little"
    )


def _inputs(dataset: SkeletonDataset, layout: str, stream: str) -> Iterator[tuple[Tensor, Tensor]]:
    for index in torch.arange(len(dataset), device=dataset.device).split(BATCH):
        x = dataset.inputs(dataset.clips(layout, index), layout, stream)
        yield x, dataset.bodies[index]
