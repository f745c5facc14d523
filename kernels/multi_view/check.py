"""Argument checks of multi_view_info_nce, shared by every backend; a GPU is never waited for."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from msclr.kernels._arguments import want, want_one_device, want_one_precision


def check_arguments(
    views: Tensor,
    temperature: Tensor,
    bank: Tensor | None,
    pairs: Sequence[tuple[int, int]] | None,
    negatives: str,
) -> None:
    """Raise ValueError naming the first argument that does not fit the others."""
    fits = views.dim() == 3 and views.is_floating_point() and len(views) >= 2
    want(fits, "views", views, "float (P, B, D) with at least two views")
    want(views.shape[1] > 0, "views", views, "(P, B, D) with at least one clip")
    if bank is not None:
        dim = views.shape[2]
        want(bank.dim() == 2 and bank.shape[1] == dim, "bank", bank, f"(Q, {dim}) or None")
    want_one_device(views=views, bank=bank)
    want_one_precision(views=views, bank=bank)
    if negatives not in ("view", "batch"):
        raise ValueError(f'negatives must be "view" or "batch", got {negatives!r}')
    if pairs is None:
        return
    if len(pairs) == 0:
        raise ValueError("pairs must hold at least one (anchor, key) pair, got none")
    for pair in pairs:
        if len(pair) != 2 or pair[0] == pair[1] or not all(0 <= i < len(views) for i in pair):
            raise ValueError(
                f"pairs must hold two unlike views of 0..{len(views) - 1}, got {tuple(pair)}"
            )
