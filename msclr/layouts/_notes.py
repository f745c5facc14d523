"""What is odd about a layout, but may be meant so."""

from __future__ import annotations

from collections.abc import Sequence

from msclr.layouts import _tree
from msclr.layouts.layout import Layout

_SHOWN = 5  # joints in one note


def notes(layout: Layout, pairs: bool = True) -> list[str]:
    """A line for each odd thing about a layout: what it is, what follows, how to mend it.

    pairs: also where no joints are a left-right pair, which some layouts say of themselves.
    """
    return [*_bone_notes(layout), *(_pair_notes(layout) if pairs else [])]


def _bone_notes(layout: Layout) -> list[str]:
    if layout.num_joints == 1:
        return []
    if not layout.bones:
        return ["it has no bones, so that its graph links no joints and its bone stream is 0"]
    hops = _tree.hops_from(layout.bones, layout.center)
    if len(hops) == 1:
        return [
            f"its center {layout.center!r} has no bone, so that the graph knows no inwards and "
            "outwards; add one, or choose a center that has some"
        ]
    found = []
    apart = [joint for joint in layout.joints if joint not in hops]
    if apart:
        found.append(
            f"no bones lead from its center {layout.center!r} to {_some(apart)}; add the missing "
            "ones (also to outside_graph, where they are to be no links)"
        )
    root = _tree.root(layout.bones, layout.center)
    if root != layout.center:
        found.append(
            f"its bones lead to {root!r} and not to its center {layout.center!r}; unless that is "
            "meant, write each as [child, parent], the parent nearer to the center"
        )
    return found


def _pair_notes(layout: Layout) -> list[str]:
    if layout.num_joints == 1 or layout.mirror_pairs:
        return []
    return [
        "no left-right pair is found among its joints' names, so that a mirror flip swaps none; if "
        'it has two sides, add flip = [["left joint", "right joint"], …]'
    ]


def _some(joints: Sequence[str]) -> str:
    more = f" and {len(joints) - _SHOWN} more" if len(joints) > _SHOWN else ""
    return ", ".join(map(repr, joints[:_SHOWN])) + more
