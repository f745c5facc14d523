"""Features of a file of clips, or of a prepared data set, written to a file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from msclr.encoder.encoder import Encoder
from msclr.encoder.preparation import check_clips
from msclr.encoder.sources import embed_store, open_source, read_recordings
from msclr.encoder.windows import windows_of
from msclr.errors import InputError
from msclr.files import replacing
from msclr.paths import as_path


class Embedded(NamedTuple):
    """What was written: a line about it, and what else the user should know."""

    line: str
    notes: list[str]


def embed_file(
    encoder: Encoder,
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    layout: str | None = None,
    window: int | None = None,
    stride: int | None = None,
    picture: str | os.PathLike[str] | None = None,
    mirror: bool = False,
) -> Embedded:
    """Write the features of clips to an .npz file.

    source: an .npz or .npy file of clips, see `read_recordings`, or a prepared folder.
    out: gets ``features`` (N, D) float32 and ``layout``; for windows ``clip``, ``start`` and
        ``end`` (N,), which recording and which of its frames; and of what the source says of each
        ``labels``, ``names``, ``split`` (N,) and ``classes``. Written whole or not at all.
    window, stride: frames, see `windows_of`; None embeds whole clips.
    picture: a file for a t-SNE map of the features, coloured by class, else by recording.
    mirror: see :meth:`Encoder.embed`.

    Raises InputError for whatever cannot be read or embedded, see :meth:`Encoder.embed`.
    """
    path, notes = as_path(source), []
    store = open_source(path)
    if store is not None:
        if window is not None or stride is not None:
            raise InputError(f"{path} holds prepared clips, which have no windows; leave them out")
        features, about, name = embed_store(encoder, store, layout, mirror=mirror)
        what = _count(len(features), "clip")
    else:
        features, about, name, what = _embed_recordings(
            encoder, path, layout, window, stride, notes, mirror
        )
    table = {"features": features.numpy(), "layout": np.array(name), **about}
    if picture is not None:
        _draw(features, about, f"{what} under {name}", Path(picture))
    _write(as_path(out), table)
    return Embedded(f"{what} under {name}: features {tuple(features.shape)}", notes)


def _embed_recordings(
    encoder: Encoder, path: Path, layout: str | None, window, stride, notes: list[str], mirror: bool
) -> tuple[Tensor, dict[str, np.ndarray], str, str]:
    read = read_recordings(path, layout, list(encoder.layouts))
    about = dict(read.about)
    wanted = layout if layout is not None and layout.endswith(".toml") else read.layout
    way = encoder.route_of(wanted)
    clips = check_clips(read.clips, way.layout, encoder.preparation.coordinates)
    count = len(clips)
    if window is not None or stride is not None:
        windows = windows_of(clips, window, stride)
        clips = windows.clips
        for key in ("labels", "names", "split"):
            if key in about:
                about[key] = about[key][windows.recording]
        about |= {"clip": windows.recording, "start": windows.start, "end": windows.end}
        if windows.left_out:
            notes.append(f"{windows.left_out} windows without a joint were left out")
    features = encoder.embed(clips, way.layout, mirror=mirror)
    what = _count(count, "clip")
    if window is not None:
        what = f"{_count(len(clips), 'window')} of {what}"
    return features, about, way.layout.name, what


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"


def _write(out: Path, table: dict[str, np.ndarray]) -> None:
    with replacing(out) as partial, partial.open("wb") as file:
        np.savez(file, **table)


def _draw(features: Tensor, about: dict[str, np.ndarray], title: str, picture: Path) -> None:
    from msclr.evaluation.report import embedding_plot

    if "labels" in about:
        labels = torch.as_tensor(about["labels"].astype(np.int64))
        names = about.get("classes", np.arange(int(labels.max()) + 1).astype(str))
    else:
        labels = torch.as_tensor(about.get("clip", np.zeros(len(features), np.int64)))
        names = [f"recording {i}" for i in range(int(labels.max()) + 1)]
    embedding_plot(features, labels, [str(name) for name in names], picture, title=title)
