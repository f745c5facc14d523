"""Which joint layout a checkpoint's graph is of.

MS-CLR pads the graph of every convention with zeros to the largest number of joints. The
adjacency tells how many joints are real, as each of them is linked at least to itself. Input
norms may be padded as well; their features are taken to be in the order of ST-GCN's code,
feature v*C + c for channel c of joint v, so that the padding comes last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from msclr import layouts as layout_registry
from msclr.errors import InputError
from msclr.layouts import Layout
from msclr.nn.pretrained import st_gcn

STRATEGIES = ("spatial", "spatial_true", "directed", "distance", "uniform")


class TheirGraph(NamedTuple):
    """The graph of one joint convention."""

    label: str | None  # the convention's name, where the checkpoint has several
    joints: int  # without the padding
    padded_joints: int
    channels: int
    partitions: int
    adjacency: Tensor | None  # (K, V, V) without the padding

    def __str__(self) -> str:
        name = "the checkpoint's graph" + (f" {self.label!r}" if self.label else "")
        padded = f" (padded to {self.padded_joints})" if self.joints < self.padded_joints else ""
        return f"{name} of {self.joints} joints{padded} and {self.partitions} partitions"


def graph_of(theirs: Mapping[str, Tensor], label: str | None) -> TheirGraph:
    """The graph of the convention ``label``, by its adjacency and its input norm.

    Raises:
        InputError: an input norm that fits neither the real nor the padded joints of the graph,
            or whose padding has seen other values than zeros.
    """
    norm = _named("data_bn", label, theirs)
    if f"{norm}.weight" not in theirs:
        raise InputError(f"the checkpoint has no '{norm}.weight'")
    conv = theirs[st_gcn.FIRST_KEY]
    channels, features = conv.shape[1], len(theirs[f"{norm}.weight"])
    partitions = len(conv) // len(theirs["st_gcn_networks.0.tcn.0.weight"])
    adjacency = theirs.get(_named("A", label, theirs))
    if adjacency is None:
        joints = features // channels
        return TheirGraph(label, joints, joints, channels, partitions, None)
    if adjacency.dim() != 3 or adjacency.shape[1] != adjacency.shape[2]:
        shape = tuple(adjacency.shape)
        raise InputError(f"the checkpoint's adjacency has shape {shape}, wanted (K, V, V)")
    used = (adjacency.float() != 0).any(0)  # (V, V)
    linked = (used.any(0) | used.any(1)).nonzero().flatten()
    joints = int(linked.max()) + 1 if len(linked) else 0
    graph = TheirGraph(
        label, joints, len(used), channels, partitions, adjacency[:, :joints, :joints]
    )
    if features != joints * channels:
        _check_padded_norm(graph, norm, features, theirs.get(f"{norm}.running_mean"))
    return graph


def without_padding(
    theirs: Mapping[str, Tensor], graphs: Mapping[str | None, TheirGraph]
) -> dict[str, Tensor]:
    """The same tensors, norms and importances cut to the real joints of their convention."""
    cut = dict(theirs)
    for name, tensor in theirs.items():
        if match := st_gcn.IMPORTANCE.fullmatch(name):
            graph = graphs[match[1]]
            if tensor.shape[1:] == (graph.padded_joints, graph.padded_joints):
                cut[name] = tensor[:, : graph.joints, : graph.joints]
        elif match := st_gcn.NORM.fullmatch(name):
            graph = graphs[match[1]]
            if tensor.shape == (graph.padded_joints * graph.channels,):
                cut[name] = tensor[: graph.joints * graph.channels]
    return cut


def _check_padded_norm(graph: TheirGraph, norm: str, features: int, mean: Tensor | None) -> None:
    real, padded = graph.joints * graph.channels, graph.padded_joints * graph.channels
    if features != padded:
        wanted = f"{real} for {graph.joints} joints of {graph.channels} channels"
        also = f" or {padded} for the {graph.padded_joints} with padding" if real != padded else ""
        raise InputError(f"{norm} has {features} features, wanted {wanted}{also}")
    if mean is None or len(mean) != padded:
        return  # what is missing or of another shape is refused with all other weights
    # Padding is zero in every clip, and so is its mean. In another order of features the last
    # ones would belong to real joints. Noise may have been added to all joints, padding too.
    size = mean.double().abs()
    if size[real:].max() > 0.01 * size.max():
        raise InputError(
            f"{norm} has means other than 0 past the {graph.joints} joints of its graph: these "
            f"are no padding, or its features are not in the order joint * {graph.channels} + "
            "channel"
        )


def _named(part: str, label: str | None, theirs: Mapping[str, Tensor]) -> str:
    """The name of a convention's part, with an underscore before the label or a dot."""
    if label is None:
        return part
    underscored = f"{part}_{label}"
    found = any(name == underscored or name.startswith(f"{underscored}.") for name in theirs)
    return underscored if found else f"{part}.{label}"


def layouts_of(
    graphs: Sequence[TheirGraph], given: Sequence[str | Layout] | None
) -> tuple[list[Layout], str]:
    """The layout of each graph, and the adjacency strategy that gives them all.

    Raises:
        InputError: a layout that is unknown, ambiguous or has another graph.
    """
    if given is not None and len(given) != len(graphs):
        names = ", ".join(graph.label for graph in graphs if graph.label)
        raise InputError(
            f"layouts names {len(given)}, but the checkpoint has {len(graphs)}"
            + (f": {names}" if names else "")
        )
    chosen, strategies = [], list(STRATEGIES)
    for i, graph in enumerate(graphs):
        layout, strategies = _pick(graph, given[i] if given else None, strategies)
        chosen.append(layout)
    return chosen, strategies[0]


def _pick(
    graph: TheirGraph, given: str | Layout | None, strategies: list[str]
) -> tuple[Layout, list[str]]:
    """The layout that a graph is of, and those of the strategies that give this graph."""
    known = [layout_registry.get(name) for name in layout_registry.names()]
    named = _layout_named(graph, given)
    candidates = [named] if named else [x for x in known if x.num_joints == graph.joints]
    fits = {x: those for x in candidates if (those := _strategies(x, graph, strategies))}
    if len(fits) == 1 and (named or graph.adjacency is not None):
        return next(iter(fits.items()))
    if named:
        raise InputError(_unlike(graph, named, known, strategies))
    names = ", ".join(layout.name for layout in fits or candidates) or "none"
    raise InputError(
        f"{graph} {'may be of several layouts' if fits else 'is of no known layout'}, "
        f"candidates are {names}: say which by layouts=[…], a name or a Layout of your own"
    )


def _unlike(
    graph: TheirGraph, layout: Layout, known: Sequence[Layout], strategies: list[str]
) -> str:
    """Why a graph is not that of the layout it was said to be of."""
    message = f"{graph} is not that of layout {layout.name!r} of {layout.num_joints}"
    if graph.adjacency is None:
        message += " (there is no adjacency that would tell joints from padding)"
    elif others := [x.name for x in known if _strategies(x, graph, strategies)]:
        message += f", but of {', '.join(others)}"
    return f"{message}: give the one that it was trained with by layouts=[…]"


def _layout_named(graph: TheirGraph, given: str | Layout | None) -> Layout | None:
    """The layout that the caller named, or else the checkpoint."""
    if given is not None:
        return as_layout(given)
    if graph.label is None:
        return None
    try:
        return layout_registry.get(graph.label)
    except InputError:
        raise InputError(
            f"the checkpoint's convention {graph.label!r} is no known layout: give "
            "layouts=[…], a name or a Layout of your own for each convention, in its order"
        ) from None


def as_layout(layout: str | Layout) -> Layout:
    """A layout by itself or by its name."""
    return layout_registry.get(layout) if isinstance(layout, str) else layout


def _strategies(layout: Layout, graph: TheirGraph, strategies: list[str]) -> list[str]:
    """Under which strategies the layout has this graph, or its size where there is no A."""
    size = (graph.partitions, graph.joints, graph.joints)
    own = {s: layout.adjacency(s) for s in strategies}
    return [
        strategy
        for strategy, a in own.items()
        if a.shape == size and (graph.adjacency is None or _same(a, graph.adjacency))
    ]


def _same(a: Tensor, b: Tensor) -> bool:
    """Whether b is a, rounded to b's type, which may be half precision."""
    rounding = torch.finfo(b.dtype).eps if b.is_floating_point() else 0
    return a.shape == b.shape and torch.allclose(b.to(a), a, rtol=rounding, atol=1e-5)
