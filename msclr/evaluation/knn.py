"""k-nearest-neighbour evaluation: how well features sort clips by class, nothing trained."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn.functional import normalize

from msclr.errors import InputError
from msclr.evaluation.metrics import check_split

_CHUNK_BYTES = 64 * 2**20  # the largest matrix of similarities held at once


def knn(
    train_features: Tensor,
    train_labels: Tensor,
    val_features: Tensor,
    val_labels: Tensor,
    num_classes: int,
    ks: Iterable[int] = (1, 20),
) -> dict[int, float]:
    """Top-1 accuracy in percent of a k-nearest-neighbour vote, for each k; see `knn_classes`."""
    found = knn_classes(train_features, train_labels, val_features, val_labels, num_classes, ks)
    return {
        k: 100.0 * (classes == val_labels.to(classes.device)).sum().item() / len(classes)
        for k, classes in found.items()
    }


@torch.no_grad()
def knn_classes(
    train_features: Tensor,
    train_labels: Tensor,
    val_features: Tensor,
    val_labels: Tensor,
    num_classes: int,
    ks: Iterable[int] = (1, 20),
) -> dict[int, Tensor]:
    """The class that a k-nearest-neighbour vote finds for each validation clip: {k: (N,) int64}.

    Features (N, D) float, labels (N,) integers below `num_classes`. Near means high cosine
    similarity, computed in float64: the cosines of features that nearly coincide differ by less
    than float32 can hold (`collapse_note` tells of such features). Each of the k nearest training
    clips has one vote; of classes with equally many votes the one whose nearest clip is nearer
    wins. A feature of length 0 is equally near to all. Memory beyond the features in float64 is
    bounded: validation clips are taken a chunk at a time.

    Raises InputError for features or labels that do not fit together, and for a k below 1 or above
    the number of training clips.
    """
    train, train_labels, val, _ = check_split(
        train_features, train_labels, val_features, val_labels, num_classes
    )
    ks = sorted(set(ks))
    if not ks or ks[0] < 1 or ks[-1] > len(train):
        raise InputError(f"knn: ks are {ks}; wanted numbers in 1..{len(train)}, the training clips")

    train, val = normalize(train.double(), dim=1), normalize(val.double(), dim=1)
    rows = max(1, _CHUNK_BYTES // (train.element_size() * max(len(train), num_classes)))
    found: dict[int, list[Tensor]] = {k: [] for k in ks}
    for features in val.split(rows):
        nearest = (features @ train.T).topk(ks[-1], dim=1).indices  # (rows, k), nearest first
        neighbours = train_labels[nearest]  # (rows, k)
        for k in ks:
            found[k].append(_vote(neighbours[:, :k], num_classes))
    return {k: torch.cat(parts) for k, parts in found.items()}


def _vote(neighbours: Tensor, num_classes: int) -> Tensor:
    """The class with most votes in each row of labels (N, k), nearest first. (N,)"""
    k = neighbours.shape[1]
    votes = neighbours.new_zeros(len(neighbours), num_classes)
    votes.scatter_add_(1, neighbours, torch.ones_like(neighbours))
    # Votes decide; among equals the nearer place does. No two places of a row score the same.
    score = votes.gather(1, neighbours) * k - torch.arange(k, device=neighbours.device)
    return neighbours.gather(1, score.argmax(dim=1, keepdim=True)).squeeze(1)
