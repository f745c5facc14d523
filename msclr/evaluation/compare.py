"""Whether data are of the kind that a run was trained on. Nothing else would show: any numbers of
the right shape give an accuracy."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from msclr.data.store import Store
from msclr.errors import InputError
from msclr.layouts import Layout

if TYPE_CHECKING:
    from msclr.evaluation.run import Run

# Bodies of two data sets differ by a small factor, units by a hundred or a thousand.
_UNLIKE = 10.0


def require_same_kind(run: Run, store: Store, layout: str) -> None:
    """Raise InputError unless the run's encoder can be given a layout of the data.

    The joints and the graph of a layout that the encoder knows must be the same, and for any
    layout the coordinates, the frame, the units and, within a factor of ten, the size of the
    bodies. What a checkpoint of an older version does not say is not compared; its frame was
    "camera" or "ntu".
    """
    if layout in run.encoder.layouts and layout in store.layouts:  # not so where it is derived
        _require_same_layout(store, store.layouts[layout], run.encoder.layouts[layout])
    if run.coordinates not in (None, store.coordinates):
        raise InputError(
            f"{store.path} holds {store.coordinates} clips, {run.folder} was trained on "
            f"{run.coordinates} clips; give data of that kind, or pretrain on these"
        )
    _require_same_frame(run, store)
    units = store.meta.get("units")
    if run.units is not None and units not in (None, run.units):
        raise InputError(
            f"{store.path} is in the unit {units!r}, {run.folder} was trained in {run.units!r}; "
            "prepare the data again in that unit"
        )
    _require_like_size(run, store, layout)


def _require_same_frame(run: Run, store: Store) -> None:
    frames = (run.frame,) if run.frame_told else ("camera", "ntu")
    if store.frame in frames and store.size_by == run.size_by:
        return
    raise InputError(
        f"{store.path} is in the frame {store.frame} (size {store.size_by}), {run.folder} was "
        f"trained in the frame {' or '.join(frames)} (size {run.size_by}); prepare the data again "
        f"with --frame {frames[0]} --size {run.size_by}, or pretrain on these"
    )


def _require_same_layout(store: Store, mine: Layout, theirs: Layout) -> None:
    if difference := _difference(mine, theirs):
        raise InputError(
            f"{store.path}: layout {mine.name} {difference}; prepare the data again with the "
            "layout of the run's training data, or rename it if it is another one"
        )


def _difference(mine: Layout, theirs: Layout) -> str | None:
    """What the data's layout has and what the encoder has instead, in words; None if nothing."""
    if len(mine.joints) != len(theirs.joints):
        return f"has {len(mine.joints)} joints, the encoder's has {len(theirs.joints)}"
    for number, (joint, other) in enumerate(zip(mine.joints, theirs.joints, strict=True)):
        if joint != other:
            return f"has {joint!r} as joint {number} (from 0), the encoder has {other!r} there"
    if mine.center != theirs.center:
        return f"has the centre {mine.center!r}, the encoder's has {theirs.center!r}"
    for part in ("bones", "outside_graph"):
        has, wants = (set(getattr(layout, part)) for layout in (mine, theirs))
        if has != wants:
            child, parent = min(has ^ wants)
            whose = "the data's" if (child, parent) in has else "the encoder's"
            return (
                f"has other {part} than the encoder's: {child!r} to {parent!r} is only in {whose}"
            )
    if not mine.parents.equal(theirs.parents):
        return "lists its bones in another order, so that joints on a loop have other parents"
    return None


def _require_like_size(run: Run, store: Store, layout: str) -> None:
    known = [each for each in run.size.values() if each]  # None: no body could be measured
    size = store.size if known else {}  # of old data it is measured now
    size = size.get(layout) or size.get(run.derived.get(layout))
    if not size:
        return
    known = [run.size[layout]] if run.size.get(layout) else known
    ratio = min((size / each for each in known), key=lambda ratio: abs(math.log(ratio)))
    if 1 / _UNLIKE <= ratio <= _UNLIKE:
        return
    mend = "prepare the data again with the width and height of their images"
    if store.coordinates == "xyz":
        mend = f"prepare the data again with --scale {10.0 ** -round(math.log10(ratio)):g}"
    raise InputError(
        f"{store.path}: bodies under {layout} measure {size:.3g}, those that {run.folder} was "
        f"trained on {size / ratio:.3g}: another unit; {mend}"
    )
