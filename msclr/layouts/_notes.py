"""What is odd about a layout, but may be meant so."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from msclr.layouts import _tree

_SHOWN = 5  # joints in one note

logger = logging.getLogger(__name__)

_logged: set[str] = set()  # a layout is made again and again, as for each data set under it


def log(name: str, joints: Sequence[str], bones: _tree.Bones, center: str, unpaired: bool) -> None:
    """Log the notes on a layout, each once. `unpaired`: none of its joints has a mirror partner."""
    notes = [*_bone_notes(joints, bones, center)]
    if unpaired and len(joints) > 1:
        notes.append(
            "no left-right pair is found among the names of its joints, so that a mirror flip "
            'swaps none; if it has two sides, add flip = [["left joint", "right joint"], …]'
        )
    for note in notes:
        line = f"layout {name}: {note}"
        if line not in _logged:
            _logged.add(line)
            logger.warning(line)


def _bone_notes(joints: Sequence[str], bones: _tree.Bones, center: str) -> Iterator[str]:
    if not bones:
        if len(joints) > 1:
            yield "it has no bones, so that its graph links no joints and its bone stream is 0"
        return
    hops = _tree.hops_from(bones, center)
    if apart := [joint for joint in joints if joint not in hops]:
        yield (
            f"no bones join {_some(apart)} to its center {center!r}; add them, to "
            "outside_graph too where they are to be no links"
        )
    root = _tree.root(bones, center)
    if root != center:
        yield (
            f"its bones lead to {root!r} and not to its center {center!r}; unless that is "
            "meant, write each as [child, parent], the parent nearer to the center"
        )


def _some(joints: Sequence[str]) -> str:
    more = f" and {len(joints) - _SHOWN} more" if len(joints) > _SHOWN else ""
    return ", ".join(map(repr, joints[:_SHOWN])) + more
