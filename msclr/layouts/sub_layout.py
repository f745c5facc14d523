"""A layout with some of another's joints, and a graph of its own over them."""

from __future__ import annotations

from collections.abc import Collection

from msclr.layouts.layout import Layout


def sub_layout(layout: Layout, kept: Collection[str], name: str) -> Layout:
    """The joints ``kept`` of a layout, in its order, as a layout of their own.

    Each end of a bone that is left out gives its place to the nearest joint that is kept on its way
    to the root, so what bones join stays joined. A bone that so joins other joints is a link of the
    graph, also where ``outside_graph`` has the one that it comes from.

    ``kept`` must have the centre, the joints without a parent, and of a left-right pair both joints
    or neither. Raises InputError where no bone joins the centre to another of them.
    """
    above = [layout.joints[v] for v in layout.parents.tolist()]
    parents = dict(zip(layout.joints, above, strict=True))

    def place(joint: str) -> str:
        while joint not in kept:
            joint = parents[joint]
        return joint

    tree = [(joint, place(parents[joint])) for joint in layout.joints if joint in kept]
    ends = [(place(child), place(parent)) for child, parent in layout.bones]
    ends = [(b, a) if parents[a] == a else (a, b) for a, b in ends]  # a root stays one
    bones, seen = [], set()
    for bone in [*tree, *ends]:  # a joint's first bone leads to its parent
        if bone[0] != bone[1] and frozenset(bone) not in seen:
            seen.add(frozenset(bone))
            bones.append(bone)
    return Layout(
        name,
        [joint for joint in layout.joints if joint in kept],
        bones,
        layout.center,
        flip=[pair for pair in layout.mirror_pairs if pair[0] in kept],
        outside_graph=[bone for bone in layout.outside_graph if bone in bones],
    )
