"""pyskl's and mmaction2's ST-GCN in the key names of ST-GCN's own code.

Their class covers a family of networks, ST-GCN++ among them; only the plain ST-GCN is read. What
its options were shows in names, shapes and values of the weights, and is checked here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from msclr.errors import InputError

FIRST_KEY = "gcn.0.gcn.conv.weight"

# their name of each part of a block -> that in ST-GCN's code
_PARTS = {
    "gcn.conv": "gcn.conv",
    "gcn.bn": "tcn.0",
    "tcn.conv": "tcn.2",
    "tcn.bn": "tcn.3",
    "residual.conv": "residual.0",
    "residual.bn": "residual.1",
}
_BLOCK = re.compile(r"gcn\.(\d+)\.(.+)")
_KINDS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def st_gcn_names(theirs: Mapping[str, Tensor]) -> dict[str, str]:
    """ST-GCN's name for each name of theirs that it has one for.

    Raises:
        InputError: another network than the plain ST-GCN; the first difference is named.
    """
    blocks = sorted({int(match[1]) for name in theirs if (match := _BLOCK.match(name))})
    for i in blocks:
        if difference := _difference(theirs, i):
            raise InputError(f"block {i} {difference}: only pyskl's plain ST-GCN can be read")
    joints, channels = theirs["gcn.0.gcn.A"].shape[-1], theirs[FIRST_KEY].shape[1]
    norm = theirs.get("data_bn.weight")
    if norm is not None and len(norm) != joints * channels:
        raise InputError(
            f"data_bn has {len(norm)} features for {joints} joints of {channels} channels: only "
            "data_bn_type='VC' can be read"
        )
    return {name: ours for name in theirs if (ours := _st_gcn_name(name))}


def _st_gcn_name(name: str) -> str | None:
    if name.startswith("data_bn."):
        return name
    if not (match := _BLOCK.fullmatch(name)):
        return None
    block, rest = match.groups()
    if rest in ("gcn.A", "gcn.PA"):  # the graph is the same in every block
        return "A" if rest == "gcn.A" else f"edge_importance.{block}"
    part, _, kind = rest.rpartition(".")
    known = part in _PARTS and kind in _KINDS
    return f"st_gcn_networks.{block}.{_PARTS[part]}.{kind}" if known else None


def _difference(theirs: Mapping[str, Tensor], i: int) -> str | None:
    """What sets a block apart from the plain ST-GCN's."""
    block = f"gcn.{i}."
    rest = {name.removeprefix(block): x for name, x in theirs.items() if name.startswith(block)}
    if any(name.startswith("tcn.branches.") for name in rest):
        return "has several temporal branches (tcn_type='mstcn', as ST-GCN++)"
    if any(name.startswith("gcn.down.") for name in rest):
        return "has a residual within its graph convolution (gcn_with_res, as ST-GCN++)"
    for name in ("gcn.conv.weight", "gcn.bn.weight", "tcn.conv.weight", "tcn.bn.weight", "gcn.A"):
        if name not in rest:
            return f"has no {block + name!r}"
    graph, importance = rest["gcn.A"], rest.get("gcn.PA")
    if len(rest["gcn.conv.weight"]) != len(graph) * len(rest["gcn.bn.weight"]):
        return "convolves after it has added up the neighbours (gcn_conv_pos='post')"
    if not torch.equal(graph, theirs["gcn.0.gcn.A"]):
        return "has another graph than block 0 (gcn_adaptive='init', as ST-GCN++)"
    for name in rest:
        if _st_gcn_name(block + name) is None:
            return f"has {block + name!r}"
    if importance is not None and not _is_importance(importance, graph):
        return "adds to its graph (gcn_adaptive='offset')"
    return None


def _is_importance(adapter: Tensor, graph: Tensor) -> bool:
    """Whether PA multiplies the graph: it then learns nothing where that is 0, and is one value."""
    idle = adapter[graph == 0]
    return idle.numel() == 0 or bool((idle - idle[0]).abs().max() <= 1e-3 * idle[0].abs())
