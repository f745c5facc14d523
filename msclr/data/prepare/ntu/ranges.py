"""A range: a few dozen clips in a row, converted together and written to the store."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

from msclr.data.prepare.ntu.bodies import BodyCounts
from msclr.data.prepare.ntu.convert import Converter, Dropped, Settings
from msclr.data.prepare.ntu.sources import ClipFile, ClipReader
from msclr.data.prepare.report import Counts
from msclr.data.store_arrays import StoreArrays
from msclr.errors import InputError


class Placed(NamedTuple):
    """A clip, and its row of the store if all clips before it are there."""

    file: ClipFile
    split: str
    row: int


class Range(NamedTuple):
    """Clips that are converted together; number: of the first one, among all."""

    number: int
    clips: list[Placed]


@dataclass
class RangeReport:
    """What became of the clips of a range, or of many ranges joined by `add`.

    number: the range's. checksum: of the rows that were written
    names: the clips that are there, in order; people: how many bodies each has
    corrupt: (name, line or 0, reason) of the files that cannot be read
    dropped: "empty", or a layout without their poses -> names of clips
    absent_views: layout -> bodies that are kept, 0 under it
    unmatched: bodies dropped, as the poses of some layout lack them
    """

    number: int = 0
    checksum: int = 1
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

    def add(self, other: RangeReport) -> None:
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

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> RangeReport:
        """Raises ValueError, KeyError or TypeError for any other text."""
        content = json.loads(text)
        content["corrupt"] = [tuple(row) for row in content["corrupt"]]
        content["bodies"] = BodyCounts(**content["bodies"])
        content["views"] = {name: Counts(**view) for name, view in content["views"].items()}
        return cls(**content)

    def is_written(self, clips: Range, arrays: StoreArrays) -> bool:
        """Whether the rows of the range hold what was written there."""
        there = set(self.names)
        rows = (arrays.get(c.split, c.row) for c in clips.clips if c.file.name in there)
        return _checksum(data for row in rows for data in row) == self.checksum


class RangeConverter:
    """Converts ranges; zips and the store's files stay open until the block ends."""

    def __init__(self, settings: Settings, arrays: StoreArrays) -> None:
        self._settings, self._arrays = settings, arrays
        self._reader = ClipReader()

    def __enter__(self) -> RangeConverter:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.__exit__()
        self._arrays.abandon()

    def convert(self, clips: Range) -> RangeReport:
        """Convert the clips of a range and write them to their rows."""
        converter = Converter(self._settings)
        report = RangeReport(clips.number)
        report.checksum = _checksum(self._written(clips, converter, report))
        self._arrays.flush()
        report.absent_views, report.unmatched = converter.absent_views, converter.unmatched
        report.bodies, report.views = converter.body_counts, converter.counts
        return report

    def _written(self, clips: Range, converter: Converter, report: RangeReport) -> Iterator[bytes]:
        kinect = self._settings.kinect.name
        for clip, split, row in clips.clips:
            try:
                views = converter.convert(clip.name, self._reader.read(clip))
            except InputError as error:  # of the file, or of poses
                report.corrupt.append((clip.name, error.line, error.reason))
            except Dropped as reason:
                report.dropped.setdefault(str(reason), []).append(clip.name)
            else:
                xyz = {name: view.xyz for name, view in views.items()}
                frames = {name: view.frame for name, view in views.items()}
                yield from self._arrays.put(split, row, xyz, frames)
                report.names.append(clip.name)
                report.people.append(len(xyz[kinect]))


def _checksum(parts: Iterable[bytes]) -> int:
    """Adler-32, which costs a hundredth of the conversion: a failing disk is no adversary."""
    checksum = 1
    for part in parts:
        checksum = zlib.adler32(part, checksum)
    return checksum
