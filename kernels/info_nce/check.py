"""Argument checks of the InfoNCE functions, shared by every backend."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def check_info_nce(
    queries: Tensor,
    keys: Tensor,
    bank: Tensor | None,
    temperature: float | Tensor,
    teacher: int | None,
    top_k: int,
    positives: Tensor | str | None,
) -> None:
    """Raise ValueError naming the first argument of info_nce that does not fit the others."""
    _want(queries.dim() == 3 and queries.is_floating_point(), "queries", queries, "float (P, B, D)")
    views, batch, dim = queries.shape
    _check_dtypes("queries", queries, keys=keys, bank=bank)
    _want(keys.shape == (batch, dim), "keys", keys, f"({batch}, {dim}) as in queries")
    bank_rows = 0
    if bank is not None:
        _want(bank.dim() == 2 and bank.shape[1] == dim, "bank", bank, f"(Q, {dim}) or None")
        bank_rows = bank.shape[0]
    for name, tensor in (("keys", keys), ("bank", bank)):
        if tensor is not None and tensor.device != queries.device:
            raise ValueError(f"{name} is on {tensor.device}, but queries is on {queries.device}")
    _check_temperature(temperature)
    if teacher is not None and not 0 <= teacher < views:
        raise ValueError(f"teacher must be a view 0..{views - 1} or None, got {teacher}")
    if not 0 <= top_k <= bank_rows:
        raise ValueError(f"top_k must lie in 0..{bank_rows} (the bank's rows), got {top_k}")
    if isinstance(positives, str):
        if positives != "mined":
            raise ValueError(
                f'positives must be None, (B, R) bank rows or "mined", got {positives!r}'
            )
        if top_k == 0:
            raise ValueError('positives="mined" needs top_k of at least 1, got top_k=0')
    elif positives is not None:
        _want(
            positives.dim() == 2 and len(positives) == batch and positives.dtype == torch.int64,
            "positives",
            positives,
            f"int64 ({batch}, R)",
        )
        if positives.device != queries.device:
            raise ValueError(
                f"positives is on {positives.device}, but queries is on {queries.device}"
            )
        # On a GPU nobody waits to tell, and what is being traced has no values: rows that are not
        # there count as none then, or are an error of the operator.
        look = positives.device.type == "cpu" and not torch.compiler.is_compiling()
        if look and positives.numel():
            low, high = int(positives.min()), int(positives.max())
            if low < -1 or high >= bank_rows:
                raise ValueError(
                    f"positives must be bank rows 0..{bank_rows - 1} or -1, "
                    f"got values from {low} to {high}"
                )


def check_multi_view(
    views: Tensor,
    temperature: float | Tensor,
    bank: Tensor | None,
    pairs: Sequence[tuple[int, int]] | None,
    negatives: str,
) -> None:
    """Raise ValueError naming the first argument of multi_view_info_nce that does not fit."""
    _want(
        views.dim() == 3 and views.is_floating_point() and len(views) >= 2,
        "views",
        views,
        "float (P, B, D) with at least two views",
    )
    _want(views.shape[1] > 0, "views", views, "(P, B, D) with at least one clip")
    if bank is not None:
        dim = views.shape[2]
        _want(bank.dim() == 2 and bank.shape[1] == dim, "bank", bank, f"(Q, {dim}) or None")
        if bank.device != views.device:
            raise ValueError(f"bank is on {bank.device}, but views is on {views.device}")
    _check_dtypes("views", views, bank=bank)
    _check_temperature(temperature)
    if negatives not in ("view", "batch"):
        raise ValueError(f'negatives must be "view" or "batch", got {negatives!r}')
    if pairs is not None:
        if len(pairs) == 0:
            raise ValueError("pairs must hold at least one (anchor, key) pair, got none")
        for pair in pairs:
            if len(pair) != 2 or pair[0] == pair[1] or not all(0 <= i < len(views) for i in pair):
                raise ValueError(
                    f"pairs must hold two unlike views of 0..{len(views) - 1}, got {tuple(pair)}"
                )


def _check_dtypes(name: str, tensor: Tensor, **others: Tensor | None) -> None:
    """Half-precision tensors are computed in float32, so they go with it; float64 stands alone."""
    for other_name, other in others.items():
        if other is not None and (other.dtype == torch.float64) != (tensor.dtype == torch.float64):
            raise ValueError(f"{other_name} is {other.dtype}, but {name} is {tensor.dtype}")


def _check_temperature(temperature: float | Tensor) -> None:
    if torch.is_tensor(temperature):
        if temperature.numel() != 1:
            raise ValueError(f"temperature must be a scalar, got {tuple(temperature.shape)}")
        # A number on a GPU is not waited for, and one that is being traced has no value.
        if temperature.device.type != "cpu" or torch.compiler.is_compiling():
            return
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {float(temperature)}")


def _want(holds: bool, name: str, tensor: Tensor, wanted: str) -> None:
    if not holds:
        raise ValueError(f"{name} must be {wanted}, got {tuple(tensor.shape)} {tensor.dtype}")
