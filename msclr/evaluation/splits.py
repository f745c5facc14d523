"""Both splits of a data set under one layout, as a run's encoder takes them, and their features."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from msclr import layouts as layout_registry
from msclr.data.dataset import SkeletonDataset
from msclr.data.store import Store, open_store
from msclr.data.stored_views import names_in
from msclr.encoder.routes import Route, choose_route
from msclr.errors import InputError
from msclr.evaluation.compare import require_same_kind
from msclr.evaluation.features import collapse_note, extract_features, prepare_route
from msclr.evaluation.run import Run, chosen_streams
from msclr.training.backend import fitting, running_on


@dataclass
class SplitClips:
    """The train and the val clips of a data set under one layout."""

    train: SkeletonDataset
    val: SkeletonDataset
    layout: str  # its name, where an alias was asked for
    store: Store
    route: Route
    seen: bool  # whether the layout was part of pretraining
    notes: list[str]  # what whoever reads figures of these clips should know

    @property
    def classes(self) -> list[str]:
        return self.store.classes


@dataclass
class SplitFeatures:
    """Frozen features of a data set under one layout."""

    train: Tensor  # (N_train, D)
    train_labels: Tensor
    val: Tensor  # (N_val, D)
    val_labels: Tensor
    classes: list[str]
    seen: bool  # whether the layout was part of pretraining
    layout: str  # its name, where an alias was asked for
    store: Store
    route: Route
    notes: list[str]  # what whoever reads figures of these features should know
    streams: int = 1  # whose features are side by side in D

    @property
    def val_names(self) -> list[str]:
        return self.store.split("val").names

    @property
    def split(self) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
        """What the protocols take: features and labels of both splits, the number of classes."""
        return self.train, self.train_labels, self.val, self.val_labels, len(self.classes)


def unknown_classes(train: Tensor, val: Tensor, classes: Sequence[str]) -> list[str]:
    """The names of the classes of val labels (N,) that no train label (M,) is of."""
    return [classes[i] for i in sorted(set(val.tolist()) - set(train.tolist()))]


def labels_note(train: Tensor, val: Tensor, classes: Sequence[str]) -> list[str]:
    """A sentence if val clips are of classes without a train clip, which nothing can find."""
    if not (absent := unknown_classes(train, val, classes)):
        return []
    count = int((~torch.isin(val, train)).sum())
    more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
    return [
        f"{count} of {len(val)} val clips count as wrong, for their class {absent[0]!r}{more} has "
        "no train clip"
    ]


def data_layouts(run: Run, data: str | Path | None = None) -> list[str]:
    """The layouts of the data that a run is evaluated on, those of its pretraining first."""
    known = run.layouts
    store = open_store(run.data_of(data), verify=False)
    available = [*store.layouts, *(derived_of(run, store))]
    return [x for x in known if x in available] + [x for x in available if x not in known]


def derived_of(run: Run, store: Store) -> dict[str, str]:
    """{layout: its source}: what the run derived as it trained, as far as these data allow it."""
    return {
        name: source
        for name, source in run.on(store).derived.items()
        if name not in store.layouts and source in store.layouts
    }


def check_layouts(run: Run, layouts: Sequence[str], data: str | Path | None = None) -> None:
    """Raise InputError for a layout that the data do not have and that the run did not derive."""
    store = open_store(run.data_of(data), verify=False)
    derived = derived_of(run, store)
    names_in(store, [name for name in layouts if name not in derived])


def open_splits(run: Run, store: Store, layout: str) -> list[SkeletonDataset]:
    """The train and the val clips under a layout that the data have, or that the run derived."""
    derived = derived_of(run, store)
    known = layout in derived or layout in store.layouts
    name = layout if known else layout_registry.get(layout).name
    asked = ([], {name: derived[name]}) if name in derived else ([name], {})
    return [
        SkeletonDataset(store, split, asked[0], run.device, derive=asked[1])
        for split in ("train", "val")
    ]


def clips_of(
    run: Run,
    layout: str,
    data: str | Path | None = None,
    route: str = "auto",
    mirror: bool = False,
) -> SplitClips:
    """The clips of both splits, compared with what the run was trained on; see features_of."""
    store = _intact_store(run.data_of(data))
    train, val = open_splits(run, store, layout)
    if not len(train) or not len(val):
        raise InputError(
            f"{store.path} has {len(train)} train and {len(val)} val clips; evaluation needs both"
        )
    (layout,) = train.layouts
    require_same_kind(run.on(store), store, layout)
    seen = layout in run.layouts
    known = {name: run.encoder.layouts[name] for name in run.layouts}
    way = choose_route(known, train.layouts[layout], route, mirror)
    return SplitClips(train, val, layout, store, way, seen, [] if seen else [*way.notes, way.line])


def features_of(
    run: Run,
    layout: str,
    data: str | Path | None = None,
    stream: str | None = None,
    route: str = "auto",
    mirror: bool = False,
) -> SplitFeatures:
    """Features of both splits, by the run's own data and stream unless others are given.

    Of a run that trained an encoder for each stream, "joint+motion+bone" gives those of all three
    side by side, each a third of its size: logits are then the mean over classifiers of streams.

    A layout that the encoder does not know takes a ``route``, see :meth:`msclr.Encoder.embed`; what
    is attached is fitted on the training clips. A random encoder has all its statistics from them.
    With ``mirror`` features are the mean of those of each clip and of its mirror image.

    Raises InputError for data without clips or without the layout, and for data of another kind
    than the run was trained on: see :func:`msclr.evaluation.compare.require_same_kind`; and to
    mirror a layout without left-right pairs.
    """
    stream = stream or run.recipe.stream
    if "+" in stream:
        runs = chosen_streams(run, stream)
        return _side_by_side([features_of(one, layout, data, None, route, mirror) for one in runs])
    run = run.of_stream(stream) if run.encoders else run
    clips = clips_of(run, layout, data, route, mirror)
    with running_on(fitting(run.recipe.backend, run.device), run.device):
        prepare_route(clips.route, run.encoder, clips.train, stream, run.random)
        train_x, val_x = (
            extract_features(run.encoder, part, clips.layout, stream, clips.route)
            for part in (clips.train, clips.val)
        )
    return SplitFeatures(
        train_x,
        clips.train.labels,
        val_x,
        clips.val.labels,
        clips.classes,
        clips.seen,
        clips.layout,
        clips.store,
        clips.route,
        notes=clips.notes + list(filter(None, [collapse_note(train_x)])),
    )


def _side_by_side(parts: list[SplitFeatures]) -> SplitFeatures:
    return replace(
        parts[0],
        train=torch.cat([part.train for part in parts], dim=1) / len(parts),
        val=torch.cat([part.val for part in parts], dim=1) / len(parts),
        notes=list(dict.fromkeys(note for part in parts for note in part.notes)),
        streams=len(parts),
    )


_intact: set[tuple[Path, str]] = set()  # folders, and the checksums that their files had


def _intact_store(path: str | Path) -> Store:
    """An open store; its files, which may be gigabytes, are compared once a process."""
    store = open_store(path, verify=False)
    key = (store.path.resolve(), json.dumps(store.meta["checksums"]))
    if key not in _intact:
        open_store(path)
        _intact.add(key)
    return store


def distinct(classes: Sequence[str]) -> list[str]:
    """Class names; those that several classes have get the number of the class."""
    count = Counter(classes)
    names = [f"{name} ({i})" if count[name] > 1 else name for i, name in enumerate(classes)]
    if len(set(names)) < len(names):  # another class is called so already
        names = [f"{name} ({i})" for i, name in enumerate(classes)]
    return names
