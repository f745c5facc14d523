"""Read pretrained encoders: of this library's runs, and of the ST-GCN projects it follows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from msclr import layouts as layout_registry
from msclr.errors import InputError
from msclr.files import read_tensors
from msclr.layouts import Layout
from msclr.nn import _pyskl_keys
from msclr.nn.stgcn import STGCN, STRIDES, TEMPORAL_KERNEL

STRATEGIES = ("spatial", "spatial_true", "distance", "uniform")
FIRST_KEY = "st_gcn_networks.0.gcn.conv.weight"

# their name of each part of a block -> ours
_PARTS = {
    "gcn.conv": "gcn.conv",
    "tcn.0": "gcn_norm",
    "tcn.2": "tcn",
    "tcn.3": "tcn_norm",
    "residual.0": "residual.conv",
    "residual.1": "residual.norm",
}
_BLOCK = re.compile(r"st_gcn_networks\.(\d+)\.(gcn\.conv|tcn\.[023]|residual\.[01])\.(\w+)")
_NORM = re.compile(r"data_bn(?:\.([^.]+))?\.(\w+)")  # of one layout, or of each by its label
_IMPORTANCE = re.compile(r"edge_importance(?:\.([^.]+))?\.(\d+)")


class Pretrained(NamedTuple):
    """An encoder, and the checkpoint's keys that it has no use for."""

    encoder: STGCN
    unused_keys: tuple[str, ...]


def load_pretrained(
    source: str | PathLike[str] | Mapping[str, Any],
    layouts: Sequence[str | Layout] | None = None,
) -> Pretrained:
    """The encoder of a checkpoint as :class:`~msclr.nn.STGCN`, in eval mode, on the CPU.

    Three kinds are read. Checkpoints of this library's runs: the query encoder, with its layouts
    and options. Weights of ST-GCN, AimCLR, CrosSCLR and MS-CLR by their key names
    ``st_gcn_networks.<i>.…``, ``data_bn.…``, ``edge_importance.<i>`` and ``A``, below
    ``encoder_q.``, ``backbone.`` or nothing, with or without ``module.`` before it, and in a
    ``state_dict`` or ``model`` entry or bare. Of several encoders ``encoder_q.`` is taken. For an
    encoder of several layouts each layout's own part is expected as ``data_bn.<layout>.…``,
    ``edge_importance.<layout>.<i>`` and, if there at all, ``A.<layout>``. And the plain ST-GCN of
    pyskl and mmaction2, below the same, by ``gcn.<i>.gcn.…``, ``gcn.<i>.tcn.…`` and ``data_bn.…``:
    ``tcn_type="unit_tcn"``, ``gcn_conv_pos="pre"``, ``gcn_adaptive`` None or ``"importance"``, no
    ``gcn_with_res``. Their ST-GCN++ is another network.

    Widths and K follow from the shapes. The layout is the known one whose adjacency is ``A``; a
    checkpoint without ``A`` needs ``layouts``. The foreign encoders get ``bodies="all"``, as those
    projects count absent bodies, and so give their pooled features, those before the classifier.
    Strides and dropout are no part of a state_dict: strides of 2 at blocks 4 and 7 and dropout 0.5
    (pyskl: 0) are taken for granted.

    Args:
        source: a file, read with ``weights_only=True``, or what it holds.
        layouts: names or layouts, one for each the checkpoint has, in its order.

    Returns:
        ``(encoder, unused_keys)``: among the unused are heads, queues and key encoders.

    Raises:
        InputError: a file that cannot be read, keys or widths of another network, or a layout
            that is unknown, ambiguous or unlike ``A``.
    """
    state = source if isinstance(source, Mapping) else _read(Path(source))
    if state.get("format") == 1 and "method" in state and "layouts" in state:
        return _load_run(state, layouts)
    for name in ("state_dict", "model"):
        if isinstance(state.get(name), Mapping):
            state = state[name]
    return _load_foreign(state, layouts)


def _read(path: Path) -> Mapping[str, Any]:
    state = read_tensors(path, "save the model's state_dict() alone")
    if not isinstance(state, Mapping):
        raise InputError(f"{path} holds a {type(state).__name__}, wanted a state_dict")
    return state


def _load_run(state: Mapping[str, Any], layouts: Sequence[str | Layout] | None) -> Pretrained:
    prefix = "query.encoder."
    weights = {
        key.removeprefix(prefix): value
        for key, value in state["method"].items()
        if key.startswith(prefix)
    }
    own = [Layout.from_dict(fields, "the checkpoint") for fields in state["layouts"].values()]
    if layouts is not None and {_layout(x) for x in layouts} != set(own):
        names = ", ".join(layout.name for layout in own)
        raise InputError(f"the checkpoint has the layouts {names}: leave layouts out")
    recipe = state.get("recipe", {})
    options = {name: recipe[name] for name in ("dropout", "bodies", "padding") if name in recipe}
    encoder = _build(weights, own, options)
    unused = tuple(key for key in state["method"] if not key.startswith(prefix))
    return Pretrained(encoder, unused)


def _load_foreign(state: Mapping[str, Any], layouts: Sequence[str | Layout] | None) -> Pretrained:
    prefix, of_pyskl = _encoder_in(state)
    own = {
        key.removeprefix(prefix): value
        for key, value in state.items()
        if key.startswith(prefix) and torch.is_tensor(value)
    }
    names = _pyskl_keys.st_gcn_names(own) if of_pyskl else {name: name for name in own}
    theirs = {name: own[key] for key, name in names.items()}
    _check_plan(theirs)
    labels = dict.fromkeys(match[1] for name in theirs if (match := _NORM.fullmatch(name)))
    if not labels:
        raise InputError("the checkpoint has no 'data_bn.…' keys, so no layout can be told")
    if layouts is not None and len(layouts) != len(labels):
        raise InputError(f"layouts names {len(layouts)}, but the checkpoint has {len(labels)}")
    chosen, strategies = {}, list(STRATEGIES)
    for label, given in zip(labels, layouts or labels, strict=True):
        graph = _graph_of(theirs, label)
        chosen[label], strategies = _pick_layout(graph, given, strategies)
    ours = {name: _our_key(name, chosen) for name in theirs}
    weights = {key: theirs[name] for name, key in ours.items() if key}
    options = {"bodies": "all", "strategy": strategies[0], "dropout": 0.0 if of_pyskl else 0.5}
    encoder = _build(weights, [*chosen.values()], options)
    used = {name for name, key in ours.items() if key} | {_join("A", label) for label in labels}
    used = {prefix + key for key, name in names.items() if name in used}
    return Pretrained(encoder, tuple(key for key in state if key not in used))


def _encoder_in(state: Mapping[str, Any]) -> tuple[str, bool]:
    """What stands before the names of the encoder to read, and whether it is pyskl's."""
    for first in (FIRST_KEY, _pyskl_keys.FIRST_KEY):
        found = [key.removesuffix(first) for key in state if str(key).endswith(first)]
        for prefix in found:
            if prefix.removeprefix("module.") == "encoder_q." or len(found) == 1:
                return prefix, first != FIRST_KEY
        if found:
            raise InputError(
                f"the checkpoint has several encoders, {', '.join(map(repr, found))}, and none is "
                "'encoder_q.': give a dict of the keys of one"
            )
    some = ", ".join(map(str, list(state)[:3])) or "none"
    raise InputError(
        f"no key ends in {FIRST_KEY!r} or {_pyskl_keys.FIRST_KEY!r}, the keys are {some}, …: "
        "not an ST-GCN"
    )


def _our_key(name: str, layouts: Mapping[str | None, Layout]) -> str | None:
    """The encoder's key for theirs; None where it has none. ``layouts`` by their labels."""
    if match := _BLOCK.fullmatch(name):
        return f"blocks.{match[1]}.{_PARTS[match[2]]}.{match[3]}"
    for pattern, module in ((_NORM, "input_norm"), (_IMPORTANCE, "edge_importance")):
        match = pattern.fullmatch(name)
        if match and match[1] in layouts:
            return f"{module}.{layouts[match[1]].name}.{match[2]}"
    return None


class _TheirGraph(NamedTuple):
    label: str | None  # where the checkpoint has several layouts
    joints: int
    partitions: int
    adjacency: Tensor | None

    def __str__(self) -> str:
        name = "the checkpoint's graph" + (f" {self.label!r}" if self.label else "")
        return f"{name} of {self.joints} joints and {self.partitions} partitions"


def _graph_of(theirs: Mapping[str, Tensor], label: str | None) -> _TheirGraph:
    norm = _join("data_bn", label, "weight")
    if norm not in theirs:
        raise InputError(f"the checkpoint has no {norm!r}")
    conv = theirs[FIRST_KEY]
    partitions = len(conv) // len(theirs["st_gcn_networks.0.tcn.0.weight"])
    joints = len(theirs[norm]) // conv.shape[1]
    return _TheirGraph(label, joints, partitions, theirs.get(_join("A", label)))


def _join(*parts: str | None) -> str:
    return ".".join(part for part in parts if part)


def _pick_layout(
    graph: _TheirGraph, given: str | Layout | None, strategies: list[str]
) -> tuple[Layout, list[str]]:
    """The layout that a graph is of, and those of the strategies that give this graph."""
    if given is None:
        known = [layout_registry.get(name) for name in layout_registry.names()]
        candidates = [layout for layout in known if layout.num_joints == graph.joints]
    else:
        candidates = [_layout(given)]
    fits = {x: those for x in candidates if (those := _strategies(x, graph, strategies))}
    if len(fits) == 1 and (given is not None or graph.adjacency is not None):
        return next(iter(fits.items()))
    if given is not None:
        raise InputError(
            f"{graph} is not that of layout {candidates[0].name!r}: "
            "give the one that it was trained with"
        )
    names = ", ".join(layout.name for layout in fits or candidates) or "none"
    raise InputError(
        f"{graph} {'may be of several layouts' if fits else 'is of no known layout'}, "
        f"candidates are {names}: say which by layouts=[…], a name or a Layout of your own"
    )


def _strategies(layout: Layout, graph: _TheirGraph, strategies: list[str]) -> list[str]:
    """Under which strategies the layout has this graph, or its size where there is no A."""
    size = (graph.partitions, graph.joints, graph.joints)
    own = {s: layout.adjacency(s) for s in strategies}
    return [
        strategy
        for strategy, a in own.items()
        if a.shape == size and (graph.adjacency is None or _same(a, graph.adjacency))
    ]


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b.to(a), rtol=0, atol=1e-5)


def _layout(layout: str | Layout) -> Layout:
    return layout_registry.get(layout) if isinstance(layout, str) else layout


def _check_plan(theirs: Mapping[str, Tensor]) -> None:
    """Ten blocks of widths w w w w 2w 2w 2w 4w 4w D; name the first that differs."""
    count = 1 + max(int(match[1]) for name in theirs if (match := _BLOCK.fullmatch(name)))
    if count != len(STRIDES):
        raise InputError(f"the checkpoint has {count} blocks, wanted {len(STRIDES)}")
    for i in range(count):
        for part in ("gcn.conv", "tcn.0", "tcn.2", "tcn.3"):
            if (key := f"st_gcn_networks.{i}.{part}.weight") not in theirs:
                raise InputError(f"the checkpoint has no {key!r}: block {i} is none of ST-GCN's")
    widths = [len(theirs[f"st_gcn_networks.{i}.tcn.0.weight"]) for i in range(count)]
    for i, (got, wanted) in enumerate(zip(widths, _widths(widths[0], widths[-1]), strict=True)):
        if got != wanted:
            raise InputError(
                f"block {i} has width {got}, wanted {wanted}: the widths that can be read are "
                "w w w w 2w 2w 2w 4w 4w and any last one"
            )
        kernel = theirs[f"st_gcn_networks.{i}.tcn.2.weight"].shape[2]
        if kernel != TEMPORAL_KERNEL:
            raise InputError(
                f"block {i} has a temporal kernel of {kernel}, wanted {TEMPORAL_KERNEL}"
            )
        changes = i > 0 and (widths[i - 1] != got or STRIDES[i] != 1)
        if (f"st_gcn_networks.{i}.residual.0.weight" in theirs) != changes:
            has, wanted = ("no", "one") if changes else ("a", "none")
            raise InputError(f"block {i} has {has} convolution in its residual, wanted {wanted}")


def _widths(w: int, last: int) -> list[int]:
    return [w] * 4 + [2 * w] * 3 + [4 * w] * 2 + [last]


def _build(
    weights: Mapping[str, Tensor], layouts: Sequence[Layout], options: Mapping[str, Any]
) -> STGCN:
    """The encoder of these weights' widths that holds them."""
    try:
        first = weights["blocks.0.gcn.conv.weight"]
        encoder = STGCN(
            layouts,
            len(weights["blocks.0.gcn_norm.weight"]),
            len(weights["blocks.9.gcn_norm.weight"]),
            in_channels=first.shape[1],
            **options,
        ).to(first.dtype)
    except KeyError as error:
        raise InputError(f"the checkpoint has no {error} in its encoder") from None
    wanted = encoder.state_dict()
    for key, tensor in wanted.items():
        # what a checkpoint may lack: old ones did not count batches, some learn no importance
        optional = key.endswith("num_batches_tracked") or key.startswith("edge_importance.")
        if key not in weights and not optional:
            raise InputError(f"the checkpoint has nothing for {key} of the encoder")
        if key in weights and weights[key].shape != tensor.shape:
            raise InputError(
                f"the checkpoint has shape {tuple(weights[key].shape)} for {key} of the encoder, "
                f"wanted {tuple(tensor.shape)}"
            )
    encoder.load_state_dict({**wanted, **weights})
    return encoder.eval()
