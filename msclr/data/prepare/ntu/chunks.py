"""A chunk: a few dozen clips in a row, prepared together and kept in one file until all are."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from msclr.data.prepare.ntu.bodies import BodyCounts
from msclr.data.prepare.ntu.convert import Converter, Dropped, Settings
from msclr.data.prepare.ntu.sources import ClipFile, ClipReader, Unreadable
from msclr.data.prepare.report import Counts
from msclr.errors import InputError


class Chunk(NamedTuple):
    """The clips whose preparation goes into the file `path`."""

    path: Path
    clips: list[ClipFile]


@dataclass
class ChunkReport:
    """What became of the clips of a chunk, or of many chunks joined by `add`.

    names: the clips that are prepared, in order; people: how many bodies each has
    corrupt: (name, line or 0, reason) of the files that cannot be read
    dropped: "empty", or a layout without their poses -> names of clips
    absent_views: layout -> bodies that are kept, 0 under it
    unmatched: bodies dropped, as the poses of some layout lack them
    """

    names: list[str] = field(default_factory=list)
    people: list[int] = field(default_factory=list)
    corrupt: list[tuple[str, int, str]] = field(default_factory=list)
    dropped: dict[str, list[str]] = field(default_factory=dict)
    absent_views: dict[str, int] = field(default_factory=dict)
    unmatched: int = 0
    bodies: BodyCounts = field(default_factory=BodyCounts)
    views: dict[str, Counts] = field(default_factory=dict)

    @property
    def clips(self) -> int:
        dropped = sum(map(len, self.dropped.values()))
        return len(self.names) + len(self.corrupt) + dropped

    def add(self, other: ChunkReport) -> None:
        self.names += other.names
        self.people += other.people
        self.corrupt += other.corrupt
        for reason, names in other.dropped.items():
            self.dropped.setdefault(reason, []).extend(names)
        for layout, count in other.absent_views.items():
            self.absent_views[layout] = self.absent_views.get(layout, 0) + count
        self.unmatched += other.unmatched
        self.bodies.add(other.bodies)
        for layout, counts in other.views.items():
            self.views.setdefault(layout, Counts()).add(counts)

    @classmethod
    def from_json(cls, text: str) -> ChunkReport:
        content = json.loads(text)
        content["corrupt"] = [tuple(row) for row in content["corrupt"]]
        content["bodies"] = BodyCounts(**content["bodies"])
        content["views"] = {name: Counts(**view) for name, view in content["views"].items()}
        return cls(**content)


class ChunkMaker:
    """Prepares chunks; zips stay open from one to the next, until the block ends."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._reader = ClipReader()

    def __enter__(self) -> ChunkMaker:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.__exit__()

    def make(self, chunk: Chunk) -> ChunkReport:
        """Prepare the clips of a chunk and write its file."""
        converter = Converter(self._settings)
        report = ChunkReport()
        shape = len(chunk.clips), self._settings.bodies, self._settings.clean.frames
        views = {
            name: np.zeros((*shape, layout.num_joints, 3), np.float32)
            for name, layout in self._settings.layouts.items()
        }
        constants = {name: np.zeros((len(chunk.clips), 13)) for name in views}
        for clip in chunk.clips:
            row = len(report.names)
            try:
                prepared = converter.convert(clip.name, self._reader.read(clip))
            except Unreadable as error:
                report.corrupt.append((clip.name, error.line, error.reason))
            except InputError as error:  # of poses
                report.corrupt.append((clip.name, 0, str(error)))
            except Dropped as reason:
                report.dropped.setdefault(str(reason), []).append(clip.name)
            else:
                for name, (xyz, _, frame) in prepared.items():
                    views[name][row, : len(xyz)] = xyz
                    constants[name][row] = frame.to_row()
                report.names.append(clip.name)
                report.people.append(len(prepared[self._settings.kinect.name][0]))
        report.absent_views, report.unmatched = converter.absent_views, converter.unmatched
        report.bodies, report.views = converter.body_counts, converter.counts
        count = len(report.names)
        arrays = [rows[:count] for rows in (*views.values(), *constants.values())]
        save_chunk(chunk.path, report, arrays)
        return report


def save_chunk(path: Path, report: ChunkReport, arrays: Iterable[np.ndarray]) -> None:
    """The report as JSON and the arrays, one .npy after another in a file that is whole or not."""
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    with open(partial, "wb") as file:
        np.save(file, np.frombuffer(json.dumps(asdict(report)).encode(), np.uint8))
        for array in arrays:
            np.save(file, array)
    os.replace(partial, path)


class ChunkContent(NamedTuple):
    """A report; layout name -> (n, M, T, V, 3) float32; and -> (n, 13), see `Frame.to_row`."""

    report: ChunkReport
    views: dict[str, np.ndarray]
    constants: dict[str, np.ndarray]


def load_chunk(path: Path, layouts: Iterable[str]) -> ChunkContent:
    """What `ChunkMaker.make` wrote."""
    layouts = list(layouts)
    with open(path, "rb") as file:
        report = ChunkReport.from_json(np.load(file).tobytes().decode())
        views = {name: np.load(file) for name in layouts}
        return ChunkContent(report, views, {name: np.load(file) for name in layouts})


def load_report(path: Path, layouts: Iterable[str]) -> ChunkReport | None:
    """Of a chunk that was written whole; None of any other."""
    try:
        return load_chunk(path, layouts).report
    except (OSError, EOFError, ValueError, KeyError, TypeError):
        return None
