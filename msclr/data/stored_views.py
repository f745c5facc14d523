"""Clips of prepared data sets under the layouts that are asked for: as stored, derived, stacked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from msclr import layouts as layout_registry
from msclr.data.derive import Derivation, derivations
from msclr.data.derived_clips import DerivedClips
from msclr.data.host_clips import reopened, to_pickle
from msclr.data.store import COORDINATES, Split, Store
from msclr.data.sub_layouts import SomeJoints, SubLayouts
from msclr.errors import InputError
from msclr.layouts import Layout

Clips = np.ndarray | DerivedClips | SomeJoints  # (N, M, T, V, 3) float32, read row by row


@dataclass(frozen=True)
class Part:
    """Which clips of a data set are loaded.

    clips: N, how many.
    derived: {layout: the one that it is derived from}, where it is.
    sub_layouts: {layout: the one that it has some joints of}, where it is drawn for training.
    """

    store: Store
    clips: int
    layouts: dict[str, Layout]
    derived: dict[str, str]
    sub_layouts: dict[str, str]

    @property
    def whole(self) -> list[str]:
        """The layouts without those that are drawn for training."""
        return [name for name in self.layouts if name not in self.sub_layouts]

    def about(self) -> dict[str, Any]:
        """How the clips were prepared, as a checkpoint keeps it."""
        store = self.store
        return {
            "coordinates": store.coordinates,
            "units": store.meta.get("units", COORDINATES[store.coordinates]),
            "size": dict(store.size),
            "frame": store.frame,
            "size_by": store.size_by,
            "derived": dict(self.derived),
            "sub_layouts": dict(self.sub_layouts),
            "frames": store.frames,
            "bodies": store.bodies,
            "data_checksums": dict(store.meta["checksums"]),
        }


class StoredViews(NamedTuple):
    """The clips themselves, read row by row; ``maps`` are {layout: (N, M, T, V, 3) float32}."""

    part: Part
    arrays: Split
    maps: dict[str, Clips]


def stored_views(
    store: Store,
    split: str,
    layouts: Sequence[str] | None,
    derive: Sequence[str] | Mapping[str, str],
    sub_layouts: SubLayouts,
) -> StoredViews:
    """What :class:`~msclr.data.dataset.SkeletonDataset` loads, by arguments of the same names."""
    arrays = store.split(split)
    found = {name: store.layouts[name] for name in names_in(store, layouts)}
    maps: dict[str, Clips] = {name: arrays.views[name] for name in found}
    derived: dict[str, str] = {}
    for name, how in _derivations(store, found, derive).items():
        maps[name], derived[name] = DerivedClips(store, split, how), how.source
        found[name] = how.target
    drawn: dict[str, str] = {}
    for source in list(found):
        for kept, layout in sub_layouts.of(found[source]).items():
            if (name := layout.name) in found:
                raise InputError(f"{store.path} has a layout {name}, which sub_layouts would make")
            maps[name], drawn[name] = SomeJoints(maps[source], kept), source
            found[name] = layout
    return StoredViews(Part(store, len(arrays), found, derived, drawn), arrays, maps)


def names_in(store: Store, layouts: Sequence[str] | None) -> list[str]:
    """Names, or aliases, of layouts of a data set as it has them; None for all. InputError."""
    if layouts is None:
        return list(store.layouts)
    names = [known_as(store, name) for name in layouts]
    for name in names:
        if name not in store.layouts:
            raise InputError(
                f"{store.path} has no layout {name!r}; it has {', '.join(store.layouts)}"
            )
    return names


def known_as(store: Store, name: str) -> str:
    """A layout's name where an alias was given."""
    return name if name in store.layouts else layout_registry.get(name).name


def _derivations(
    store: Store, loaded: Mapping[str, Layout], derive: Sequence[str] | Mapping[str, str]
) -> dict[str, Derivation]:
    if isinstance(derive, Mapping):
        found = {}
        for name, source in derive.items():
            (source,) = names_in(store, [source])
            found |= derivations([name], {source: store.layouts[source]})
        return found
    return derivations(derive, dict(loaded) | store.layouts)


class StackedClips:
    """The clips of several data sets under a layout of all of them, those of each after the last's.

    It is read as a memory map is: ``shape`` (N, M, T, V, 3), ``size``, and rows by a slice or an
    array of numbers, float32. M is the largest of the data sets; what others lack is 0.
    """

    def __init__(self, maps: Sequence[Clips]) -> None:
        self._maps = list(maps)
        self._first = np.cumsum([0, *map(len, self._maps)])
        bodies = max(view.shape[1] for view in self._maps)
        self.shape = (int(self._first[-1]), bodies, *self._maps[0].shape[2:])
        self.size = int(np.prod(self.shape))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> np.ndarray:
        numbers = np.arange(len(self))[rows]
        out = np.zeros((len(numbers), *self.shape[1:]), np.float32)
        for view, first, end in zip(self._maps, self._first[:-1], self._first[1:], strict=True):
            mine = (numbers >= first) & (numbers < end)
            if mine.any():
                out[mine, : view.shape[1]] = view[numbers[mine] - first]
        return out

    def __getstate__(self) -> dict[str, Any]:
        """With the names of files in place of what they hold."""
        return self.__dict__ | {"_maps": [to_pickle(view) for view in self._maps]}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _maps=[reopened(view) for view in state["_maps"]])
