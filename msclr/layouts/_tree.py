"""Whether the bones of a layout hang together and point the right way."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from msclr.errors import InputError

Bones = Sequence[tuple[str, str]]  # (child, parent), without circles


def check(bones: Bones, center: str) -> None:
    """Raise InputError for bones that leave out the centre, or are written [parent, child].

    One of the latter leaves a joint without a parent, whose bone stream would be 0. Other joints
    that no bone joins to the centre are left alone: they may be meant so, and are noted.
    """
    hops = hops_from(bones, center)
    if bones and len(hops) == 1:
        raise InputError(
            f"center: no bone joins {center!r} to another joint; add one to the bones, or choose a "
            "joint that has some"
        )
    bones = [bone for bone in bones if bone[0] in hops]
    outwards = [bone for bone in bones if hops[bone[0]] < hops[bone[1]]]
    if outwards and not any(hops[child] > hops[parent] for child, parent in bones):
        raise InputError(
            f"bones: all of them are written [parent, child], away from the center {center!r}; "
            f"write [child, parent], such as {list(outwards[0][::-1])}"
        )
    with_parent = {child for child, _ in bones} | {root(bones, center)}
    for joint in hops:
        if joint not in with_parent:
            near = min((child for child, parent in bones if parent == joint), key=hops.get)
            raise InputError(
                f"bones: {joint!r} has no parent: it is the second of {[near, joint]}, and never "
                f"the first of a bone; write [child, parent], {[joint, near]}"
            )


def root(bones: Bones, center: str) -> str:
    """The joint reached from the centre by going from parent to parent."""
    parents = dict(reversed(bones))  # reversed: a joint's first bone wins, as in Layout.parents
    joint = center
    while joint in parents:
        joint = parents[joint]
    return joint


def hops_from(bones: Bones, center: str) -> dict[str, int]:
    """Joint -> bones to walk from the centre, in either direction; without joints apart from it."""
    neighbours: dict[str, list[str]] = {}
    for child, parent in bones:
        neighbours.setdefault(child, []).append(parent)
        neighbours.setdefault(parent, []).append(child)
    hops, left = {center: 0}, deque([center])
    while left:
        joint = left.popleft()
        for other in neighbours.get(joint, ()):
            if other not in hops:
                hops[other] = hops[joint] + 1
                left.append(other)
    return hops
