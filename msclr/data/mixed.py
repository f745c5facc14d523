"""Several data sets, each under its own layouts, as one to train on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from msclr.data.dataset import Held, SkeletonDataset
from msclr.data.store import Store, open_store
from msclr.data.stored_views import StackedClips, StoredViews, known_as, stored_views
from msclr.data.sub_layouts import NO_SUB_LAYOUTS, SubLayouts
from msclr.errors import InputError


class MixedDataset(SkeletonDataset):
    """Every clip of a split of several data sets, one set after the other.

    A clip's number is its place among the clips of all. ``hold``, ``view`` and ``clips`` take these
    numbers, and a layout only those of the sets that have it. Classes and labels count on from set
    to set.

    Args:
        sources: prepared folders, or open stores.
        layouts: names of the layouts to load, each where it is; None for all.
        derive: names of further layouts. Each is derived in every set that lacks it and allows it,
            and loaded from those that have it.
        split, device, storage, resident, sub_layouts: see :class:`SkeletonDataset`.

    Raises:
        InputError: data sets in unlike frames or units, or of unlike numbers of frames; a set that
            has none of the layouts; a layout that no set has, or that none can derive.
    """

    def __init__(
        self,
        sources: Sequence[str | Path | Store],
        split: str,
        layouts: Sequence[str] | None = None,
        device: str | torch.device = "cpu",
        storage: str = "float32",
        resident: bool | None = None,
        derive: Sequence[str] = (),
        sub_layouts: SubLayouts = NO_SUB_LAYOUTS,
    ):
        stores = [x if isinstance(x, Store) else open_store(x) for x in sources]
        for store in stores[1:]:
            _require_alike(stores[0], store)
        views = _views(stores, split, layouts, derive, sub_layouts)
        found, maps, self._row = {}, {}, {}
        for name in _in_order(stores[0], views, layouts):
            mine = [each for each in views if name in each.maps]
            found[name] = mine[0].part.layouts[name]
            maps[name] = StackedClips([each.maps[name] for each in mine])
            there = np.concatenate([np.full(each.part.clips, name in each.maps) for each in views])
            self._row[name] = np.where(there, there.cumsum() - 1, -1)  # (N,)
        self._fill(views, found, maps, device, storage, resident)

    def clips(self, layout: str, index: Tensor) -> Tensor:
        rows = torch.from_numpy(self._rows(layout, index))
        return super().clips(layout, rows.to(index.device))

    def prefetch(self, wanted: Mapping[str, Tensor]) -> None:
        super().prefetch({k: torch.from_numpy(self._rows(k, x)) for k, x in wanted.items()})

    def hold(self, wanted: Mapping[str, Tensor]) -> dict[str, Held]:
        return super().hold({k: torch.from_numpy(self._rows(k, x)) for k, x in wanted.items()})

    def _rows(self, layout: str, clips: Tensor) -> np.ndarray:
        """Where clips are among those that have a layout; IndexError for one without it."""
        rows = self._row[layout][clips.cpu().numpy()]
        if (rows < 0).any():
            raise IndexError(f"clip {clips[int((rows < 0).argmax())]} has no layout {layout}")
        return rows

    def about(self) -> dict[str, Any]:
        """As of a single data set, with ``parts``, one of that each.

        Of what differs between them: ``bodies`` is the most, ``size``, ``derived`` and
        ``sub_layouts`` of a layout are those of the first set that has it, and checksums are of
        ``NUMBER:FILE``.
        """
        parts = [part.about() | {"layouts": part.whole} for part in self.parts]
        about = dict(self.parts[0].about())
        for key in ("size", "derived", "sub_layouts"):
            about[key] = {k: x for part in reversed(parts) for k, x in part[key].items()}
        about["bodies"] = max(part["bodies"] for part in parts)
        about["data_checksums"] = {
            f"{number}:{file}": checksum
            for number, part in enumerate(parts)
            for file, checksum in part["data_checksums"].items()
        }
        return about | {"parts": parts}


def _require_alike(one: Store, other: Store) -> None:
    both = f"{one.path} and {other.path}"
    if (one.frame, one.size_by) != (other.frame, other.size_by):
        raise InputError(
            f"{both} are in unlike frames: {one.frame} (size {one.size_by}) and {other.frame} "
            f"(size {other.size_by}); prepare one of them again with --frame {one.frame} --size "
            f"{one.size_by}, or with --frame {other.frame} --size {other.size_by}"
        )
    if one.coordinates != other.coordinates:
        raise InputError(
            f"{both} hold {one.coordinates} and {other.coordinates} clips; clips of two and of "
            "three dimensions are not trained on together"
        )
    units = {x for x in (one.meta.get("units"), other.meta.get("units")) if x is not None}
    if len(units) > 1:
        raise InputError(f"{both} are in unlike units: {' and '.join(sorted(units))}; prepare one "
                         "of them again in the unit of the other")  # fmt: skip
    if one.frames != other.frames:
        raise InputError(
            f"{both} have clips of {one.frames} and of {other.frames} frames; prepare one of them "
            f"again with --frames {one.frames}, or with --frames {other.frames}"
        )


def _views(
    stores: Sequence[Store],
    split: str,
    layouts: Sequence[str] | None,
    derive: Sequence[str],
    sub_layouts: SubLayouts,
) -> list[StoredViews]:
    """What is loaded of each data set."""
    asked = [] if layouts is None else layouts
    for name in asked:
        if not any(known_as(store, name) in store.layouts for store in stores):
            has = "; ".join(f"{store.path} has {', '.join(store.layouts)}" for store in stores)
            raise InputError(f"no data set has the layout {name!r}: {has}")
    views, reasons = [], {name: [] for name in derive}
    for store in stores:
        stored = list(store.layouts) if layouts is None else asked
        stored = [known_as(store, name) for name in (*stored, *derive)]
        stored = [name for name in dict.fromkeys(stored) if name in store.layouts]
        derived = []
        for name in derive:
            reason = _not_derived(store, split, stored, name)
            derived += [name] if reason is None else []
            reasons[name] += filter(None, [reason])
        views.append(stored_views(store, split, stored, derived, sub_layouts))
        if not views[-1].maps:
            raise InputError(
                f"{store.path} has none of the layouts {', '.join((*asked, *derive))}; it has "
                f"{', '.join(store.layouts)}: name one of them in layouts, or leave the data out"
            )
    for name, why in reasons.items():
        if len(why) == len(stores):
            raise InputError(f"no data set gives the layout {name!r}: {' -- '.join(why)}")
    return views


def _not_derived(store: Store, split: str, stored: Sequence[str], name: str) -> str | None:
    """Why a layout is not to be derived in a data set; None where it is."""
    if known_as(store, name) in store.layouts:
        return f"{store.path} has it already; leave it out of derive"
    try:
        stored_views(store, split, stored, [name], NO_SUB_LAYOUTS)
    except InputError as error:
        return str(error)
    return None


def _in_order(
    any_store: Store, views: Sequence[StoredViews], layouts: Sequence[str] | None
) -> list[str]:
    """The layouts of all data sets: as they were asked for, then as the sets have them."""
    asked = [known_as(any_store, name) for name in layouts or ()]
    return list(dict.fromkeys([*asked, *(name for each in views for name in each.maps)]))
