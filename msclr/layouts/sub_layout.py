"""A layout with some of another's joints, and a graph of its own over them."""

from __future__ import annotations

from collections.abc import Collection

from msclr.layouts.layout import Layout


def sub_layout(layout: Layout, kept: Collection[str], name: str) -> Layout:
    """The joints ``kept`` of a layout, in its order, as a layout of their own.

    A joint whose parent is left out hangs on the nearest one that is kept on its way there, so what
    hung together still does. The centre and joints without a parent must be kept, and both joints
    of a left-right pair or neither.
    """
    parents = {
        joint: layout.joints[p]
        for joint, p in zip(layout.joints, layout.parents.tolist(), strict=True)
    }
    links, hidden = [], []
    for joint in layout.joints:
        if joint not in kept or parents[joint] == joint:
            continue
        parent, passed = parents[joint], [(joint, parents[joint])]
        while parent not in kept:
            passed.append((parent, parents[parent]))
            parent = parents[parent]
        links.append((joint, parent))
        if any(bone in layout.outside_graph for bone in passed):
            hidden.append(links[-1])
    ends = [set(bone) for bone in links]
    for bone in layout.bones:  # those that close loops
        if set(bone) <= set(kept) and set(bone) not in ends:
            links.append(bone)
            hidden += [bone] if bone in layout.outside_graph else []
    return Layout(
        name,
        [joint for joint in layout.joints if joint in kept],
        links,
        layout.center,
        flip=[pair for pair in layout.mirror_pairs if set(pair) <= set(kept)],
        outside_graph=hidden,
    )
