"""InfoNCE against a bank in plain PyTorch: the formula, and the oracle of every backend."""

from __future__ import annotations

import torch
from torch import Tensor

from msclr.kernels._arguments import at_least_float32


def info_nce(
    queries: Tensor,
    keys: Tensor,
    bank: Tensor | None,
    temperature: Tensor,
    teacher: int | None,
    top_k: int,
    positives: Tensor | None,
    mined: bool,
) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    """Loss, distribution, log_sum_exp and top_k of :func:`msclr.kernels.info_nce`."""
    with torch.autocast(queries.device.type, enabled=False):
        queries, keys = at_least_float32(queries), at_least_float32(keys)
        similarity = (queries * keys).sum(-1, keepdim=True)  # (P, B, 1)
        if bank is not None:
            similarity = torch.cat([similarity, queries @ at_least_float32(bank).T], dim=-1)
        # Large similarities cancel before they are divided by the temperature.
        largest = similarity.detach().amax(dim=-1, keepdim=True)  # a constant: results are without
        logits = (similarity - largest) / temperature  # (P, B, 1 + Q)
        log_probability = logits.log_softmax(dim=-1)

        nearest = _nearest(similarity[..., 1:], top_k)  # (P, B, top_k)
        if mined:
            positives = nearest.transpose(0, 1).flatten(1)  # (B, P * top_k)
        mask = _positive_mask(positives, logits)  # (B, 1 + Q)
        loss = -(log_probability * mask).sum(-1) / mask.sum(-1)

        distribution = None
        if teacher is not None:
            p = log_probability[teacher].detach().exp()  # (B, 1 + Q)
            others = torch.arange(len(queries), device=queries.device) != teacher
            distribution = -(p * log_probability).sum(-1) * others[:, None]
        log_sum_exp = logits.logsumexp(dim=-1) + largest.squeeze(-1) / temperature
    return loss, distribution, log_sum_exp, nearest


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
