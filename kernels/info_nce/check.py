"""Argument checks of info_nce, shared by every backend; a GPU is never waited for."""

from __future__ import annotations

import torch

from msclr.kernels._arguments import (
    want,
    want_one_device,
    want_one_precision,
    want_within,
)
from msclr.kernels.info_nce.operator import Arguments


def check_arguments(arguments: Arguments) -> None:
    """Raise ValueError naming the first argument that does not fit the others."""
    queries, keys, bank, temperature, teacher, top_k, positives, mined = arguments
    want(queries.dim() == 3 and queries.is_floating_point(), "queries", queries, "float (P, B, D)")
    views, batch, dim = queries.shape
    want_one_precision(queries=queries, keys=keys, bank=bank)
    want(keys.shape == (batch, dim), "keys", keys, f"({batch}, {dim}) as in queries")
    bank_rows = 0
    if bank is not None:
        want(bank.dim() == 2 and bank.shape[1] == dim, "bank", bank, f"(Q, {dim}) or None")
        bank_rows = bank.shape[0]
    want_one_device(queries=queries, keys=keys, bank=bank)
    if teacher is not None and not 0 <= teacher < views:
        raise ValueError(f"teacher must be a view 0..{views - 1} or None, got {teacher}")
    if not 0 <= top_k <= bank_rows:
        raise ValueError(f"top_k must lie in 0..{bank_rows} (the bank's rows), got {top_k}")
    if mined and top_k == 0:
        raise ValueError('positives="mined" needs top_k of at least 1, got top_k=0')
    if positives is not None:
        fits = positives.dim() == 2 and len(positives) == batch and positives.dtype == torch.int64
        want(fits, "positives", positives, f"int64 ({batch}, R)")
        want_one_device(queries=queries, positives=positives)
        # Where values cannot be looked at, rows that are not there count as none, or are an error
        # of the operator.
        rows = f"be bank rows 0..{bank_rows - 1} or -1"
        want_within("positives", positives, -1, bank_rows - 1, rows)
