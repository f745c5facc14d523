"""InfoNCE against a bank in plain PyTorch: the formula, and the oracle of every backend."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class InfoNCEOutput(NamedTuple):
    """What :func:`msclr.kernels.info_nce` returns; see there."""

    loss: Tensor  # (P, B)
    distribution: Tensor | None  # (P, B)
    log_sum_exp: Tensor  # (P, B)
    top_k: Tensor | None  # (P, B, top_k) int64


def info_nce(
    queries: Tensor,
    keys: Tensor,
    bank: Tensor | None,
    temperature: float | Tensor,
    teacher: int | None,
    top_k: int,
    positives: Tensor | str | None,
) -> InfoNCEOutput:
    """See :func:`msclr.kernels.info_nce`."""
    with torch.autocast(queries.device.type, enabled=False):
        queries, keys = at_least_float32(queries), at_least_float32(keys)
        logits = (queries * keys).sum(-1, keepdim=True)  # (P, B, 1)
        if bank is not None:
            logits = torch.cat([logits, queries @ at_least_float32(bank).T], dim=-1)
        logits = logits / temperature  # (P, B, 1 + Q)
        log_probability = logits.log_softmax(dim=-1)

        nearest = _nearest(logits[..., 1:], top_k)  # (P, B, top_k)
        if isinstance(positives, str):
            positives = nearest.transpose(0, 1).flatten(1)  # (B, P * top_k)
        mask = _positive_mask(positives, logits)  # (B, 1 + Q)
        loss = -(log_probability * mask).sum(-1) / mask.sum(-1)

        distribution = None
        if teacher is not None:
            p = log_probability[teacher].detach().exp()  # (B, 1 + Q)
            others = torch.arange(len(queries), device=queries.device) != teacher
            distribution = -(p * log_probability).sum(-1) * others[:, None]
        log_sum_exp = logits.logsumexp(dim=-1)
    return InfoNCEOutput(loss, distribution, log_sum_exp, nearest if top_k else None)


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision is computed in float32; float32 and float64 stay as they are."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _nearest(similarity: Tensor, count: int) -> Tensor:
    """Rows of the ``count`` largest similarities; of equal ones the lower row first."""
    remaining = similarity.detach().clone()
    rows = [similarity.new_empty(*similarity.shape[:-1], 0, dtype=torch.int64)]
    for _ in range(count):
        row = remaining.argmax(dim=-1, keepdim=True)  # the first of equal maxima
        remaining.scatter_(-1, row, -torch.inf)
        rows.append(row)
    return torch.cat(rows, dim=-1)


def _positive_mask(positives: Tensor | None, logits: Tensor) -> Tensor:
    """1 at the key (column 0) and at every given bank row, repeats counted once: (B, 1 + Q)."""
    _, batch, columns = logits.shape
    mask = logits.new_zeros(batch, columns)
    mask[:, 0] = 1
    if positives is not None:
        mask.scatter_(1, positives + 1, 1.0)  # row -1 ("none") falls on the key, set already
    return mask
