"""Ensembles: the scores of several classifiers for the same clips, added up."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from msclr.errors import InputError

# Of the joint, bone and motion streams, as CrosSCLR and AimCLR weigh them.
STREAM_WEIGHTS = {"joint": 0.6, "bone": 0.6, "motion": 0.4}


def ensemble_logits(logits: Sequence[Tensor], weights: Sequence[float] | None = None) -> Tensor:
    """sum_i w_i logits_i; by default every w_i is 1/n, the mean.

    logits: n tensors (N, classes) of the same clips in the same order. The multi-skeleton ensemble
    is the mean over one linear classifier a convention; streams are added with `STREAM_WEIGHTS`.

    Raises InputError where there is nothing to add, shapes differ, a number is not finite, or
    `weights` are not one finite number each.
    """
    if len(logits) == 0:
        raise InputError("an ensemble of no logits; give one (N, classes) tensor a classifier")
    shapes = [tuple(each.shape) for each in logits]
    if len(shapes[0]) != 2 or any(shape != shapes[0] for shape in shapes):
        raise InputError(
            f"logits of an ensemble have shapes {shapes}; wanted one (N, classes) for all, "
            "of the same clips and classes"
        )
    if not all(each.isfinite().all() for each in logits):
        raise InputError(
            "logits of an ensemble hold NaN or infinite numbers; fit that classifier anew"
        )
    if weights is None:
        weights = [1.0 / len(logits)] * len(logits)
    if len(weights) != len(logits) or not all(map(math.isfinite, weights)):
        raise InputError(
            f"ensemble weights are {list(weights)}; wanted {len(logits)} numbers, one a classifier"
        )
    total = torch.zeros_like(logits[0])
    for weight, each in zip(weights, logits, strict=True):
        total = total + weight * each
    return total


def rows_by_name(names: Sequence[str], wanted: Sequence[str], whose: str, others: str) -> list[int]:
    """The row in `names` of each clip of `wanted`: the same clips, whatever their order.

    `whose` and `others` are what an error calls the two. Raises InputError unless both hold the
    same names, and each of them once if their order differs.
    """
    if list(names) == list(wanted):
        return list(range(len(names)))
    row = {name: number for number, name in enumerate(names)}
    if strange := row.keys() ^ set(wanted):
        name = min(strange)
        has, lacks = (whose, others) if name in row else (others, whose)
        raise InputError(
            f"an ensemble needs the same val clips in all data: clip {name!r} is in {has}, not in "
            f"{lacks}; prepare both from the same clips with the same names"
        )
    if len(row) < max(len(names), len(wanted)):
        raise InputError(
            f"the val clips of {whose} and {others} are in another order and cannot be matched, "
            "for their names repeat; give every clip a name of its own"
        )
    return [row[name] for name in wanted]
