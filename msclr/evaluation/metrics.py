"""Accuracies of a classifier, and the checks that every evaluation makes of its input."""

import torch
from torch import Tensor

from msclr.errors import InputError


def top_k_accuracy(logits: Tensor, labels: Tensor, k: int) -> float:
    """The share of clips whose class is among the k best scored, in percent.

    logits (N, classes), any float dtype; labels (N,), integers in 0..classes-1. Of equal scores
    the lower class counts as the better one, so that the result is the same on every device. Where
    k reaches the number of classes the answer is 100.

    Raises InputError for unlike shapes, labels out of range, NaN among the logits, or k < 1.
    """
    if k < 1:
        raise InputError(f"top_k_accuracy: k is {k}; it must be 1 or more")
    labels = _check_logits(logits, labels)
    return 100.0 * (_rank(logits, labels) < k).sum().item() / len(labels)


def per_class_accuracy(logits: Tensor, labels: Tensor, num_classes: int) -> list[float | None]:
    """Top-1 accuracy of each class in percent; None for a class that has no clip.

    logits (N, num_classes), labels (N,) integers. Raises InputError as `top_k_accuracy` does.
    """
    labels = _check_logits(logits, labels)
    if logits.shape[1] != num_classes:
        raise InputError(
            f"logits have {logits.shape[1]} columns for {num_classes} classes; give one a class"
        )
    hits = labels[_rank(logits, labels) == 0].bincount(minlength=num_classes).tolist()
    clips = labels.bincount(minlength=num_classes).tolist()
    return [100.0 * hit / count if count else None for hit, count in zip(hits, clips, strict=True)]


def best_class(logits: Tensor) -> Tensor:
    """The best scored class of each clip, (N,) int64, for logits (N, classes); the lower of equals,
    as in `top_k_accuracy`."""
    classes = torch.arange(logits.shape[1], device=logits.device)
    best = logits == logits.max(dim=1, keepdim=True).values
    return torch.where(best, classes, logits.shape[1]).min(dim=1).values


def confusion_matrix(predicted: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """How many clips of each class (row) were taken for each class (column): (classes, classes).

    predicted, labels: (N,) integers below num_classes. Raises InputError for others.
    """
    labels = check_labels(labels, len(labels), num_classes)
    predicted = check_labels(predicted, len(labels), num_classes, "predicted classes")
    cells = (labels * num_classes + predicted.to(labels.device)).bincount(minlength=num_classes**2)
    return cells.view(num_classes, num_classes)


def check_labels(labels: Tensor, count: int, num_classes: int, what: str = "labels") -> Tensor:
    """The labels as int64, or an InputError unless they are (count,) integers below num_classes."""
    if labels.ndim != 1 or len(labels) != count:
        raise InputError(f"{what} have shape {tuple(labels.shape)}; wanted ({count},), one a clip")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise InputError(f"{what} are {labels.dtype}; wanted integer class numbers")
    labels = labels.long()
    if count and not 0 <= labels.min().item() <= labels.max().item() < num_classes:
        raise InputError(
            f"{what} lie in {labels.min().item()}..{labels.max().item()}; with {num_classes} "
            f"classes they must lie in 0..{num_classes - 1}"
        )
    return labels


def check_features(features: Tensor, what: str = "features") -> Tensor:
    """The features without their graph, half precision as float32, or an InputError.

    Wanted: (N, D) with at least one row and one column, a float dtype, every number finite.
    """
    if features.ndim != 2 or 0 in features.shape:
        raise InputError(f"{what} have shape {tuple(features.shape)}; wanted (N, D), not empty")
    if not features.is_floating_point():
        raise InputError(f"{what} are {features.dtype}; wanted a float dtype")
    if not features.isfinite().all():
        raise InputError(f"{what} hold NaN or infinite numbers; check the encoder that made them")
    features = features.detach()
    return features if features.dtype == torch.float64 else features.float()


def check_split(
    train_features: Tensor,
    train_labels: Tensor,
    val_features: Tensor,
    val_labels: Tensor,
    num_classes: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Both halves of a data set, checked one by one and against each other, in the order given."""
    train = check_features(train_features, "train features")
    val = check_features(val_features, "val features").to(train)  # one dtype and device for both
    if train.shape[1] != val.shape[1]:
        raise InputError(
            f"train features have {train.shape[1]} columns and val features {val.shape[1]}; "
            "both must come from one encoder"
        )
    train_labels = check_labels(train_labels, len(train), num_classes, "train labels")
    val_labels = check_labels(val_labels, len(val), num_classes, "val labels")
    return train, train_labels.to(train.device), val, val_labels.to(train.device)


def _check_logits(logits: Tensor, labels: Tensor) -> Tensor:
    if logits.ndim != 2 or 0 in logits.shape:
        raise InputError(f"logits have shape {tuple(logits.shape)}; wanted (N, classes), not empty")
    if logits.isnan().any():
        raise InputError("logits hold NaN; the classifier that made them has diverged")
    return check_labels(labels, *logits.shape).to(logits.device)


def _rank(logits: Tensor, labels: Tensor) -> Tensor:
    """How many classes are scored better than the true one. (N,)"""
    own = logits.gather(1, labels[:, None])  # (N, 1)
    lower = torch.arange(logits.shape[1], device=logits.device) < labels[:, None]  # (N, classes)
    return ((logits > own) | ((logits == own) & lower)).sum(dim=1)
