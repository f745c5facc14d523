"""Adjacency matrices of a layout: the links of its joints, normalised and parted.

An entry [v, w] weighs source joint v in output joint w, as y[w] = sum_v x[v] A[v, w] reads it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch

from msclr.errors import InputError
from msclr.layouts._check import did_you_mean

Bones = Iterable[tuple[int, int]]  # (child, parent) indices on the joint axis


class Graph(NamedTuple):
    """Of V joints: their bones, those of them that are links, and the centre."""

    num_joints: int
    bones: Bones
    links: Bones
    center: int


def adjacency(graph: Graph, strategy: str) -> torch.Tensor:
    """(K, V, V) float32, see `Layout.adjacency`."""
    if strategy not in _STRATEGIES:
        raise InputError(
            f"unknown adjacency strategy {strategy!r}, wanted one of {', '.join(_STRATEGIES)}"
            f"{did_you_mean(strategy, _STRATEGIES)}"
        )
    parts = torch.stack(_STRATEGIES[strategy](graph))  # (K, V, V) bool
    if strategy == "directed":
        return parts / parts.sum(dim=1, keepdim=True).clamp(min=1)
    links = (_linked(graph) | _self_links(graph)).float()  # (V, V)
    return parts * (links / links.sum(dim=0))  # each column divided by its sum


def _uniform(graph: Graph) -> list[torch.Tensor]:
    return [_linked(graph) | _self_links(graph)]


def _distance(graph: Graph) -> list[torch.Tensor]:
    return [_self_links(graph), _linked(graph)]


def _spatial(graph: Graph) -> list[torch.Tensor]:
    """The released graphs know the distance to the centre up to one hop only."""
    linked = _linked(graph)
    distance = _hops(linked, graph.center)
    distance[distance > 1] = torch.inf
    outwards = linked & (distance[:, None] < distance[None, :])
    return [_self_links(graph), linked & ~outwards, outwards]


def _spatial_true(graph: Graph) -> list[torch.Tensor]:
    links = _linked(graph) | _self_links(graph)
    # Hops may run along bones that are no links: also joints that the graph leaves apart from the
    # centre have a distance to it.
    distance = _hops(_undirected(graph.bones, graph.num_joints), graph.center)
    source, output = distance[:, None], distance[None, :]
    return [links & (source == output), links & (source < output), links & (source > output)]


def _directed(graph: Graph) -> list[torch.Tensor]:
    linked = _linked(graph)
    from_parent = torch.zeros_like(linked)
    for child, parent in graph.bones:
        from_parent[parent, child] = linked[parent, child]
    return [_self_links(graph), from_parent, from_parent.T]


_STRATEGIES = {
    "uniform": _uniform,
    "distance": _distance,
    "spatial": _spatial,
    "spatial_true": _spatial_true,
    "directed": _directed,
}


def _self_links(graph: Graph) -> torch.Tensor:
    return torch.eye(graph.num_joints, dtype=torch.bool)  # (V, V)


def _linked(graph: Graph) -> torch.Tensor:
    """(V, V) bool, symmetric: two different joints that a bone of the graph connects."""
    return _undirected(graph.links, graph.num_joints)


def _undirected(bones: Bones, num_joints: int) -> torch.Tensor:
    linked = torch.zeros(num_joints, num_joints, dtype=torch.bool)  # (V, V)
    for child, parent in bones:
        linked[child, parent] = linked[parent, child] = True
    return linked


def _hops(linked: torch.Tensor, start: int) -> torch.Tensor:
    """(V,) float32: bones to walk from `start`, infinity where no path leads."""
    distance = torch.full((len(linked),), torch.inf)
    distance[start] = 0
    reached = distance == 0
    for hop in range(1, len(linked)):
        new = linked[reached].any(dim=0) & ~reached
        distance[new] = hop
        reached |= new
    return distance
