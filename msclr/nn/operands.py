"""What fused blocks are given besides activations and weights, made for a whole pass at once.

A pass through an encoder of ten blocks would otherwise stack norms, multiply graphs and move
running statistics ten times over, a dozen small operations each.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from msclr.nn.graph_conv import Graph


class Operands(NamedTuple):
    """Of one block: see :func:`msclr.kernels.stgcn_block`."""

    adjacency: Tensor  # (sum of K V V,)
    support: Tensor  # bool, of its shape
    norms: Tensor  # (4 or 6, C)
    running: Tensor  # (4 or 6, C)
    moments: list[Tensor]  # of the pass; each block in training adds its own


def operands_of_block(graphs: Sequence[Tensor | Graph], norms: list[nn.BatchNorm2d]) -> Operands:
    """Of a block alone; ``graphs`` are those of its layouts."""
    given = [g if isinstance(g, Graph) else Graph(g) for g in graphs]
    supports = [
        torch.ones_like(g.adjacency, dtype=torch.bool) if g.support is None else g.support
        for g in given
    ]
    ((weights, running),) = _of_norms([norms])
    return Operands(_flat(g.adjacency for g in given), _flat(supports), weights, running, [])


def operands_of_pass(
    fixed: list[Tensor], importances: list[list[Tensor]], norms: list[list[nn.BatchNorm2d]]
) -> list[Operands]:
    """Of each block; its layouts' graphs (K, V, V) are ``fixed`` times its ``importances``."""
    graph = _flat(fixed)
    support = graph != 0
    learnt = _flat(part for of_block in importances for part in of_block)
    graphs = (learnt.view(len(importances), -1) * graph).unbind()
    moments: list[Tensor] = []
    return [
        Operands(adjacency, support, weights, running, moments)
        for adjacency, (weights, running) in zip(graphs, _of_norms(norms), strict=True)
    ]


@torch.no_grad()
def advance(norms: list[list[nn.BatchNorm2d]], moments: list[Tensor]) -> None:
    """Move the running statistics of blocks on to the moments of a pass; none without them."""
    if not moments:
        return
    every = [norm for of_block in norms for norm in of_block]
    counts = [norm.num_batches_tracked for norm in every]
    torch._foreach_add_(counts, 1)
    targets = [row for of_block in moments for row in of_block.unbind()]
    momenta = {norm.momentum for norm in every}
    if len(momenta) == 1 and None not in momenta:
        torch._foreach_lerp_(list(_running(every)), targets, momenta.pop())
        return
    for i, norm in enumerate(every):
        weight = norm.momentum if norm.momentum is not None else 1.0 / int(counts[i])
        torch._foreach_lerp_(list(_running([norm])), targets[2 * i : 2 * i + 2], weight)


def _of_norms(norms: list[list[nn.BatchNorm2d]]) -> list[tuple[Tensor, Tensor]]:
    """Of each block: weights and biases, and running means and variances, as rows."""
    learnt = _matrices([[p for norm in of for p in (norm.weight, norm.bias)] for of in norms])
    running = _matrices([list(_running(of)) for of in norms])
    return list(zip(learnt, running, strict=True))


def _running(norms: Iterable[nn.BatchNorm2d]) -> Iterable[Tensor]:
    for norm in norms:
        yield from (norm.running_mean, norm.running_var)


def _matrices(groups: list[list[Tensor]]) -> list[Tensor]:
    """The rows of each group as a matrix, all of them copied at once."""
    together = torch.cat([row for rows in groups for row in rows])
    parts = together.split([sum(len(row) for row in rows) for rows in groups])
    return [part.view(len(rows), -1) for part, rows in zip(parts, groups, strict=True)]


def _flat(tensors: Iterable[Tensor]) -> Tensor:
    parts = [tensor.flatten() for tensor in tensors]
    return parts[0] if len(parts) == 1 else torch.cat(parts)
