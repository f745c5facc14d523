"""What is odd about a layout, but may be meant so."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from msclr.layouts import _tree

if TYPE_CHECKING:
    from msclr.layouts.layout import Layout

_SHOWN = 5  # joints in one note

logger = logging.getLogger(__name__)

_logged: set[str] = set()  # a layout is made again and again, as for each data set under it


def log(layout: Layout, pairs: bool) -> None:
    """Log the notes on a layout, each once. `pairs`: also that it has no left-right pairs."""
    for note in (*_bone_notes(layout), *(_pair_notes(layout) if pairs else ())):
        line = f"layout {layout.name}: {note}"
        if line not in _logged:
            _logged.add(line)
            logger.warning(line)


def _bone_notes(layout: Layout) -> Iterator[str]:
    if not layout.bones:
        if layout.num_joints > 1:
            yield "it has no bones, so that its graph links no joints and its bone stream is 0"
        return
    hops = _tree.hops_from(layout.bones, layout.center)
    if apart := [joint for joint in layout.joints if joint not in hops]:
        yield (
            f"no bones join {_some(apart)} to its center {layout.center!r}; add them, to "
            "outside_graph too where they are to be no links"
        )
    root = _tree.root(layout.bones, layout.center)
    if root != layout.center:
        yield (
            f"its bones lead to {root!r} and not to its center {layout.center!r}; unless that is "
            "meant, write each as [child, parent], the parent nearer to the center"
        )


def _pair_notes(layout: Layout) -> Iterator[str]:
    if layout.num_joints > 1 and not layout.mirror_pairs:
        yield (
            "no left-right pair is found among the names of its joints, so that a mirror flip "
            'swaps none; if it has two sides, add flip = [["left joint", "right joint"], …]'
        )


def _some(joints: Sequence[str]) -> str:
    more = f" and {len(joints) - _SHOWN} more" if len(joints) > _SHOWN else ""
    return ", ".join(map(repr, joints[:_SHOWN])) + more
