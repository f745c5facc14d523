"""What `msclr embed` reads: files of clips, and prepared data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from msclr.data.prepare.npz import read_npz
from msclr.data.store import SPLITS, Store, open_store
from msclr.encoder.encoder import Encoder
from msclr.errors import InputError


class Recordings(NamedTuple):
    """Clips under one layout, and what else is known of each: (N,) arrays by their names."""

    clips: list[np.ndarray]
    layout: str | None  # None: the file does not say
    about: dict[str, np.ndarray]


def read_recordings(path: Path, layout: str | None, known: list[str]) -> Recordings:
    """The clips of a file.

    path: an .npz as `msclr prepare arrays` reads it, of which labels, split and offset may be left
        out; or an .npy with one clip (T, V, 3) or (M, T, V, 3), or several (N, M, T, V, 3).
    layout: which one of the .npz; None for its only one, or the first of `known` that it has.

    Raises InputError for a file that cannot be read so, or lacks the layout.
    """
    if path.suffix == ".npy":
        try:
            array = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"{path} cannot be read ({error}); write it with numpy.save") from None
        return Recordings(list(array) if array.ndim == 5 else [array], layout, {})
    read = read_npz(path, needed=())
    views = read.pop("views")
    name = _pick(views, layout, known, str(path))
    classes = read.pop("classes", None)
    about = {key: np.asarray(value) for key, value in read.items()}
    for key, values in about.items():
        if len(values) != len(views[name]):
            raise InputError(
                f"{path} has {len(values)} {key} for {len(views[name])} clips; give one for each"
            )
    if classes is not None:
        about["classes"] = np.asarray(classes)
    return Recordings(list(views[name]), layout or name, about)


def _pick(there, layout: str | None, known: list[str], where: str) -> str:
    """The layout that is asked for among those that are there, or the one to take."""
    from msclr import layouts

    if layout is not None:
        names = [layout]
        if not layout.endswith(".toml"):
            names.append(layouts.get(layout).name if layout not in there else layout)
        else:
            names.append(layouts.load(layout).name)
        found = [name for name in names if name in there]
        if found:
            return found[0]
        raise InputError(f"{where} has no layout {layout!r}; it has {', '.join(there)}")
    several = [name for name in known if name in there] or list(there)
    if len(several) > 1 and several[0] not in known:
        raise InputError(f"{where} has {', '.join(there)}; choose one with --layout")
    return several[0]


def embed_store(
    encoder: Encoder,
    store: Store,
    layout: str | None,
    route: str | None = None,
    mirror: bool = False,
) -> tuple[Tensor, dict[str, np.ndarray], str]:
    """Features of all clips of a prepared data set, the training clips first; what is known of
    each; and the name of the layout.

    Where the data are prepared as the encoder's were, the clips are taken as they are, and so have
    the features that evaluation uses; else they are turned back into metres and prepared again.
    """
    name = _pick(store.layouts, layout, list(encoder.layouts), str(store.path))
    parts = [store.split(split) for split in SPLITS]
    about: dict[str, Any] = {
        "labels": np.concatenate([part.labels for part in parts]),
        "names": np.array([text for part in parts for text in part.names], dtype=str),
        "split": np.repeat(SPLITS, [len(part) for part in parts]),
        "classes": np.array(store.classes, dtype=str),
    }
    way = encoder.route_of(store.layouts[name], route, mirror)
    if encoder.preparation.like(store):
        x = torch.from_numpy(np.concatenate([part.views[name] for part in parts]))
        bodies = torch.from_numpy(np.concatenate([part.bodies for part in parts]))
        encoder.tell(way)
        return encoder.embed_prepared(x, bodies, way), about, name
    if store.coordinates != encoder.preparation.coordinates:
        raise InputError(
            f"{store.path} holds {store.coordinates} clips, the encoder takes "
            f"{encoder.preparation.coordinates}; give data of that kind"
        )
    clips = [_metres(part, store, name, row) for part in parts for row in range(len(part))]
    return encoder.embed(clips, store.layouts[name], route, mirror), about, name


def _metres(part, store: Store, layout: str, row: int) -> np.ndarray:
    if store.frame in ("body", "none"):
        return part.metres(layout, row)[part.bodies[row]]
    if store.size_by != "none":
        raise InputError(
            f"{store.path} is centred and divided by the torso, which loses the metres that the "
            "encoder's preparation starts from; prepare the data again with --size none"
        )
    return part.views[layout][row][part.bodies[row]]


def open_source(path: Path) -> Store | None:
    """The prepared data set in a folder, or None where the path is a file."""
    if path.is_dir():
        return open_store(path)
    if not path.is_file():
        raise InputError(f"there is nothing at {path}; give an .npz or .npy file, or prepared data")
    return None
