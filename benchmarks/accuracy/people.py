"""Whose clips are whose, and a data set in which some of the training people are asked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from msclr.data.skeleton.frame import Frame
from msclr.data.store import Store, StoreWriter, open_store
from msclr.errors import InputError


def people_of(names: Sequence[str], pattern: str) -> list[str]:
    """Whom each clip shows: the first group of a pattern in its name, without leading zeros."""
    found = []
    for name in names:
        match = re.search(pattern, name)
        if match is None or not match.groups():
            raise InputError(f"no person in the clip name {name!r} by the pattern {pattern!r}")
        found.append(match[1].lstrip("0") or "0")
    return found


def hold_out(store: Store, out: Path, pattern: str, people: Sequence[str]) -> Store:
    """The training clips of a data set alone, those of some people as its val split.

    Clips of the val split of `store` are never opened: whatever is chosen on the result is chosen
    without the test people.
    """
    people = [str(each) for each in people]
    about = {"held_out": people, "pattern": pattern, "of": store.meta["checksums"]}
    if (out / "dataset.json").exists():
        made = open_store(out, verify=False)
        if made.meta["report"] != about:
            raise InputError(f"{out} is of other data or people; give another --out")
        return made
    train = store.split("train")
    whose = people_of(train.names, pattern)
    if unknown := set(people) - set(whose):
        raise InputError(
            f"{', '.join(sorted(unknown))} cannot be held out; the people of the training split "
            f"are {', '.join(sorted(set(whose)))}"
        )
    if set(people) >= set(whose):
        raise InputError(f"holding out {', '.join(people)} leaves nobody to train on")
    writer = StoreWriter(
        out,
        name=f"{store.meta['name']}-held-out",
        layouts=store.layouts.values(),
        classes=store.classes,
        frames=store.frames,
        bodies=store.bodies,
        source=store.meta["source"],
        coordinates=store.coordinates,
        frame=store.frame,
        size_by=store.size_by,
    )
    with writer:
        for i, name in enumerate(train.names):
            views = {key: np.asarray(view[i]) for key, view in train.views.items()}
            frames = {key: Frame.from_row(rows[i]) for key, rows in train.constants.items()}
            split = "val" if whose[i] in people else "train"
            writer.add(split, views, train.bodies[i], int(train.labels[i]), name, frames or None)
        writer.finish(about)
    return open_store(out, verify=False)
