"""Retrieval: how high a clip's features rank the training clips of its class, nothing trained."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from msclr.errors import InputError
from msclr.evaluation.metrics import check_split
from msclr.evaluation.results import PerClip, check_also, describe, keep_result, of_route
from msclr.evaluation.run import Run
from msclr.evaluation.splits import SplitFeatures, features_of

KS = (1, 5, 10)
_CHUNK_BYTES = 64 * 2**20  # the largest matrix of similarities held at once


@dataclass(frozen=True, eq=False)
class RetrievalResult:
    """How training clips were ranked for each validation clip.

    mean_average_precision and recall_at, {k: share}, are in percent, over the clips that have
    others of their class to be found. average_precision: (N,) float64 in 0..1, NaN for those that
    have none. first_hit: (N,) int64, the rank from 1 of the first clip of the class; 0 for none.
    """

    mean_average_precision: float
    recall_at: dict[int, float]
    average_precision: Tensor
    first_hit: Tensor

    @property
    def without(self) -> int:
        """Validation clips whose class no training clip has."""
        return int((self.first_hit == 0).sum())


@torch.no_grad()
def retrieve(
    train_features: Tensor,
    train_labels: Tensor,
    val_features: Tensor,
    val_labels: Tensor,
    num_classes: int,
    ks: Iterable[int] = KS,
) -> RetrievalResult:
    """Ranks all training clips by their cosine similarity to each validation clip.

    With rel(r) = 1 where the clip at rank r is of the query's class, and R = sum_r rel(r):

        AP = 1/R sum_r rel(r) (sum_{s<=r} rel(s)) / r

    The mean of AP over the queries is the mean average precision; R@k is the share of queries that
    have a clip of their class among the first k. Features (N, D) float, labels (N,) integers below
    ``num_classes``. Similarities are computed in float64; of equal ones the clip that comes first
    in the training split ranks higher.

    Raises InputError for features or labels that do not fit together, a k below 1, and where no
    query has a training clip of its class.
    """
    train, train_labels, val, val_labels = check_split(
        train_features, train_labels, val_features, val_labels, num_classes
    )
    ks = sorted(set(ks))
    if not ks or ks[0] < 1:
        raise InputError(f"retrieval: ks are {ks}; wanted numbers of 1 or more")
    train, val = normalize(train.double(), dim=1), normalize(val.double(), dim=1)
    rows = max(1, _CHUNK_BYTES // (train.element_size() * len(train)))
    ranks = torch.arange(1, len(train) + 1, device=train.device, dtype=torch.float64)
    precisions, hits = [], []
    for features, labels in zip(val.split(rows), val_labels.split(rows), strict=True):
        order = (features @ train.T).argsort(dim=1, descending=True, stable=True)  # (rows, N)
        relevant = (train_labels[order] == labels[:, None]).double()
        there = relevant.sum(dim=1)  # (rows,)
        precisions.append((relevant * relevant.cumsum(dim=1) / ranks).sum(dim=1) / there)
        hits.append(torch.where(there > 0, relevant.argmax(dim=1) + 1, 0))
    precision, first_hit = torch.cat(precisions), torch.cat(hits)
    asked = first_hit > 0
    if not asked.any():
        raise InputError("retrieval: no validation clip has a training clip of its class")
    count = asked.sum().item()
    recall = {k: 100.0 * (asked & (first_hit <= k)).sum().item() / count for k in ks}
    return RetrievalResult(100.0 * precision[asked].mean().item(), recall, precision, first_hit)


def evaluate_retrieval(
    run: Run,
    layout: str,
    data: str | Path | None = None,
    stream: str | None = None,
    ks: Iterable[int] = KS,
    *,
    route: str = "auto",
    mirror: bool = False,
    also: Collection[str] = (),
    features: SplitFeatures | None = None,
) -> dict[str, Any]:
    """Retrieval on one layout: validation clips are the queries, training clips are found.

    Args:
        ks: of R@k.
        run, layout, data, stream, route, mirror, also, features: see
            :func:`~msclr.evaluation.evaluate_linear`; there is no confusion matrix.

    Returns:
        What ``msclr evaluate retrieval --json`` prints: ``map`` and ``recall_at``, {"k": value}, in
        percent; ``top1`` is R@1. It also goes to the run's folder.

    Raises:
        InputError: see :func:`retrieve` and :func:`~msclr.evaluation.splits.features_of`.
    """
    check_also(also, predicts=False)
    ks = tuple(ks)
    f = features or features_of(run, layout, data, stream, route, mirror)
    found = retrieve(*f.split, ks)
    result = describe(run, "retrieval", f, data, stream) | {
        "map": found.mean_average_precision,
        "recall_at": {str(k): value for k, value in found.recall_at.items()},
        "top1": found.recall_at.get(1),
        "top5": None,  # R@5 asks for one clip of the class, not for the class among five
        "best_top1": None,
        "notes": list(f.notes),
    }
    if found.without:
        result["notes"].append(
            f"{found.without} of {len(f.val)} val clips are of a class without a train clip and "
            "are left out"
        )
    arrays = {"average_precision": found.average_precision, "first_hit": found.first_hit}
    clips = PerClip(f.val_names, f.val_labels, f.classes, arrays)
    options = ({} if ks == KS else {"ks": ks}) | of_route(f, route)
    keep_result(run, f.store, result, options, clips, also)
    return result
