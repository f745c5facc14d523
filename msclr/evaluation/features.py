"""Features of a frozen encoder: computed once, since they do not change."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from msclr.data.dataset import SkeletonDataset
from msclr.data.streams import to_stream
from msclr.encoder.attach import attach, fit_input_norm
from msclr.encoder.features import encode, mean_cosine
from msclr.encoder.routes import Route, derived, features_by
from msclr.nn import STGCN, BatchNorm

BATCH = 256  # clips
# The mean cosine between two clips. Encoders newly initialised give 0.9 to 0.95, trained ones less.
_COINCIDE = 0.999


@torch.no_grad()
def extract_features(
    encoder: STGCN, dataset: SkeletonDataset, layout: str, stream: str, route: Route | None = None
) -> Tensor:
    """Features (N, D) float32 of every clip of a split under one layout, without augmentation.

    route: where the encoder was not trained on the layout, with :func:`prepare_route` before, or
        where mirror images count as well.
    """
    found = []
    for x, bodies in _clips(dataset, layout):
        if route is None:
            found.append(encode(encoder, x, bodies, layout, stream, dataset.planar))
        else:
            how = {"planar": dataset.planar, "centred": centred(dataset)}
            found.append(features_by(route, encoder, x, bodies, stream, **how))
    return torch.cat(found)


@torch.no_grad()
def prepare_route(
    route: Route, encoder: STGCN, dataset: SkeletonDataset, stream: str, random: bool = False
) -> None:
    """Set what of an encoder depends on the clips that it is given, by those of a split. No labels.

    That is a layout which is attached, see :func:`msclr.encoder.attach.attach`; and of a ``random``
    encoder, which has seen no data, all running statistics of batch norms.
    """
    layout = route.layout.name
    if route.kind in ("attach", "both"):
        attach(encoder, route.passage)
        fit_input_norm(encoder, layout, _clips(dataset, layout), stream, dataset.planar)
    if not random:
        return
    if route.kind != "derive":
        _fit_all(encoder, dataset, layout, stream, None)
    else:
        _fit_all(encoder, dataset, route.passage.target.name, stream, route)


def centred(dataset: SkeletonDataset) -> bool:
    """Whether the centre joint of each clip is at 0 in each frame."""
    return dataset.store.frame in ("camera", "ntu")


def _fit_all(
    encoder: STGCN, dataset: SkeletonDataset, layout: str, stream: str, route: Route | None
) -> None:
    """Set batch norm's running statistics to the mean over the clips of a split."""
    norms: list[nn.Module] = [encoder.input_norm[layout]]
    norms += [module for module in encoder.modules() if isinstance(module, BatchNorm)]
    encoder.eval()
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over batches
        norm.train()
    of = route.layout.name if route else layout
    for x, bodies in _clips(dataset, of):
        if route:
            x = derived(route.passage, x, bodies, dataset.planar, centred(dataset))
        x = to_stream(x, stream, encoder.layouts[layout], dataset.planar)
        encoder(x.permute(0, 4, 2, 3, 1), layout, bodies)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    encoder.eval()


def collapse_note(features: Tensor) -> str | None:
    """A sentence if features (N, D) nearly coincide, as those of a collapsed encoder do, or None.

    The measure is the mean cosine over all pairs of clips.
    """
    cosine = mean_cosine(features)
    if cosine <= _COINCIDE:
        return None
    return (
        f"features nearly coincide (their mean cosine is below 1 by {max(0, 1 - cosine):.2g}): the "
        "encoder has collapsed or has hardly been trained, and the figure says little"
    )


def _clips(dataset: SkeletonDataset, layout: str) -> Iterator[tuple[Tensor, Tensor]]:
    """Clips (B, M, T, V, 3) under a layout of the data, and their bodies (B, M)."""
    for index in torch.arange(len(dataset), device=dataset.device).split(BATCH):
        yield dataset.clips(layout, index), dataset.bodies[index]
