"""The arguments of `prepare_arrays`, checked before anything is computed or written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from msclr import layouts as layout_registry
from msclr.data.prepare._raw import RawClips
from msclr.data.store import SPLITS
from msclr.errors import InputError
from msclr.layouts.layout import Layout

MAX_UNNAMED_CLASSES = 100_000  # a larger label is an identifier of some other kind


@dataclass(frozen=True)
class Table:
    """What is known of each clip besides its coordinates, checked."""

    labels: list[int]
    split: list[str]
    names: list[str]
    classes: list[str]

    def clip(self, index: int) -> str:
        return f"clip {index} ({self.names[index]!r})"

    def keep(self, clips: Sequence[int]) -> Table:
        """The rows of these clips."""
        columns = (self.labels, self.split, self.names)
        return Table(*([column[clip] for clip in clips] for column in columns), self.classes)

    def per_class(self, split: str) -> list[int]:
        labels = [label for label, s in zip(self.labels, self.split, strict=True) if s == split]
        return np.bincount(np.array(labels, int), minlength=len(self.classes)).tolist()


def check_table(labels, split, names, classes) -> Table:
    labels = np.asarray(labels)
    if labels.ndim != 1 or (labels.size and labels.dtype.kind not in "iu"):
        raise InputError(
            f"labels are {labels.dtype} of shape {labels.shape}; give one integer a clip"
        )
    count = len(labels)
    if not count:
        raise InputError("there are no clips: labels are empty; give at least one training clip")
    if labels.min() < 0:
        raise InputError(f"label {labels.min()} is negative; number the classes from 0")

    split = _check_texts("split", split, count)
    unknown = [entry for entry in split if entry not in SPLITS]
    if unknown:
        raise InputError(f"split holds {unknown[0]!r}; each clip is in 'train' or in 'val'")
    if "train" not in split:
        raise InputError("no clip is in 'train'; give at least one")

    names = [f"clip{i}" for i in range(count)] if names is None else names
    names = _check_texts("names", names, count)
    if len(set(names)) < count:
        twice = next(entry for entry, seen in Counter(names).items() if seen > 1)
        raise InputError(f"the name {twice!r} stands for several clips; make the names unique")

    wanted = int(labels.max()) + 1
    if classes is None:
        if wanted > MAX_UNNAMED_CLASSES:
            raise InputError(f"label {wanted - 1} is too large; number the classes from 0")
        classes = range(wanted)
    classes = [str(entry) for entry in classes]
    if len(classes) < wanted:
        raise InputError(
            f"the largest label is {wanted - 1}, but classes holds {len(classes)} names; "
            "name every class"
        )
    _refuse_equal_classes(classes)
    return Table(labels.tolist(), split, names, classes)


def _refuse_equal_classes(classes: list[str]) -> None:
    """Figures of each class are kept by its name."""
    numbers: dict[str, list[str]] = {}
    for number, name in enumerate(classes):
        numbers.setdefault(name, []).append(str(number))
    for name, several in numbers.items():
        if len(several) > 1:
            *some, last = several
            all_of = "both" if len(several) == 2 else "all"
            raise InputError(
                f"the classes {', '.join(some)} and {last} are {all_of} called {name!r}; "
                "give each class a name of its own, or merge their labels"
            )


def _check_texts(what: str, entries: Iterable[str], count: int) -> list[str]:
    texts = list(entries)
    for text in texts:
        if not isinstance(text, str):
            raise InputError(f"{what} holds {text!r}, which is no text; give one text a clip")
    if len(texts) != count:
        raise InputError(
            f"there are {count} labels but {len(texts)} {what}; give one of each a clip"
        )
    return [str(text) for text in texts]


def check_views(
    views: Mapping[str | Layout, Sequence[np.ndarray]],
    table: Table,
    coordinates: str = "xyz",
    zeros: str = "joint",
) -> list[RawClips]:
    if not views:
        raise InputError("there is no view; give the clips under at least one layout")
    checked: dict[str, RawClips] = {}
    for key, clips in views.items():
        layout = key if isinstance(key, Layout) else layout_registry.get(key)
        view = RawClips(layout, clips, coordinates, zeros)
        if view.name in checked:
            raise InputError(f"layout {view.name} is given twice; give each view once")
        if len(clips) != len(table.labels):
            raise InputError(
                f"view {view.name} has {len(clips)} clips, but there are {len(table.labels)} "
                "labels; give one label a clip"
            )
        for clip in range(len(clips)):
            _check_clip(view, clip, table)
        checked[view.name] = view
    first, *others = checked.values()
    for view in others:
        for clip in range(len(first.clips)):
            if first.is_empty(clip) or view.is_empty(clip):
                continue  # such a clip has no bodies to be matched
            counts = len(first.bodies(clip)), len(view.bodies(clip))
            if counts[0] != counts[1]:
                raise InputError(
                    f"{table.clip(clip)} has {counts[0]} bodies in view {first.name} but "
                    f"{counts[1]} in view {view.name}; fill up with bodies of zeros"
                )
    return list(checked.values())


def _check_clip(view: RawClips, clip: int, table: Table) -> None:
    where = f"{table.clip(clip)} in view {view.name}"
    try:
        xyz = np.asarray(view.clips[clip])
    except ValueError as error:  # rows of unlike length
        raise InputError(f"{where} is no array ({error}); wanted (T, V, 3)") from error
    if xyz.dtype.kind not in "iuf":
        raise InputError(f"{where} holds {xyz.dtype}; give integers or floating-point numbers")
    if xyz.ndim not in (3, 4) or xyz.shape[-1] != 3:
        raise InputError(f"{where} has shape {xyz.shape}; wanted (T, V, 3) or (M, T, V, 3)")
    if xyz.shape[-2] != view.layout.num_joints:
        raise InputError(
            f"{where} has {xyz.shape[-2]} joints, but the layout has {view.layout.num_joints}; "
            "choose the layout that the clips were made with"
        )
