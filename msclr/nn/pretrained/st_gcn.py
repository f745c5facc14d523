"""The key names of ST-GCN's code, and of AimCLR's, CrosSCLR's and MS-CLR's after it.

An encoder of several joint conventions, as MS-CLR's, has an input norm, edge importances and an
adjacency for each convention by its name: ``data_bn.ntu-rgb+d.weight``,
``edge_importance.ntu-rgb+d.0``, ``A_ntu-rgb+d``. A dot or an underscore may come before the name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from msclr.errors import InputError
from msclr.layouts import Layout
from msclr.nn.block import TEMPORAL_KERNEL
from msclr.nn.stgcn import STRIDES

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
_DIMS = {"gcn.conv": 4, "tcn.0": 1, "tcn.2": 4, "tcn.3": 1}  # of the weights in every block
_KIND = r"(weight|bias|running_mean|running_var|num_batches_tracked)"
_BLOCK = re.compile(rf"st_gcn_networks\.(\d+)\.(gcn\.conv|tcn\.[023]|residual\.[01])\.{_KIND}")
NORM = re.compile(rf"data_bn(?:[._]([^.]+))?\.{_KIND}")
IMPORTANCE = re.compile(r"edge_importance(?:[._]([^.]+))?\.(\d+)")
GRAPH = re.compile(r"A(?:[._]([^.]+))?")


def our_key(name: str, layouts: Mapping[str | None, Layout]) -> str | None:
    """The encoder's key for theirs; None where it has none. ``layouts`` by their labels."""
    if match := _BLOCK.fullmatch(name):
        return f"blocks.{match[1]}.{_PARTS[match[2]]}.{match[3]}"
    for pattern, module in ((NORM, "input_norm"), (IMPORTANCE, "edge_importance")):
        if match := pattern.fullmatch(name):
            return f"{module}.{layouts[match[1]].name}.{match[2]}"
    return None


def labels_in(theirs: Mapping[str, Tensor]) -> tuple[str | None, ...]:
    """The names of the joint conventions in their order; a single None for an encoder of one.

    Raises:
        InputError: no input norm, or graphs and importances of other conventions than its.
    """
    labels = dict.fromkeys(match[1] for name in theirs if (match := NORM.fullmatch(name)))
    if not labels:
        raise InputError("the checkpoint has no 'data_bn.…' keys, so its layout is unknown")
    for name in theirs:
        match = IMPORTANCE.fullmatch(name) or GRAPH.fullmatch(name)
        if match and match[1] not in labels:
            known = ", ".join(f"data_bn.{label}" if label else "data_bn" for label in labels)
            raise InputError(f"the checkpoint has {name!r} but no input norm for it, only {known}")
    return tuple(labels)


def check_plan(theirs: Mapping[str, Tensor]) -> None:
    """Ten blocks of widths w w w w 2w 2w 2w 4w 4w D; name the first that differs."""
    for name in theirs:
        if name.startswith("st_gcn_networks.") and not _BLOCK.fullmatch(name):
            raise InputError(f"the checkpoint has {name!r}, which no block of ST-GCN's has")
    count = 1 + max(int(match[1]) for name in theirs if (match := _BLOCK.fullmatch(name)))
    if count != len(STRIDES):
        raise InputError(f"the checkpoint has {count} blocks, wanted {len(STRIDES)}")
    for i in range(count):
        for part, dims in _DIMS.items():
            key = f"st_gcn_networks.{i}.{part}.weight"
            if key not in theirs:
                raise InputError(f"the checkpoint has no {key!r}: block {i} is none of ST-GCN's")
            if theirs[key].dim() != dims:
                raise InputError(
                    f"{key} has shape {tuple(theirs[key].shape)}, wanted {dims} dimensions"
                )
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
