"""A job: the folder in which a run keeps what it has done, so that one that was cut off goes on."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msclr import __version__
from msclr.data.atomic import AtomicFolder
from msclr.data.prepare.ntu.convert import Settings
from msclr.data.prepare.ntu.ranges import Placed, Range, RangeReport
from msclr.data.prepare.ntu.sources import ClipFile
from msclr.data.store_arrays import Description, StoreArrays
from msclr.errors import InputError

RANGE = 64  # clips: 4 MB of two conventions, a twentieth of a second of work or less


class Job:
    """`.<out>.prepare` next to `out`: a store whose rows fill up, and the file `job`.

    The file's first line says what job it is; each further one is the report of a range that is
    done. Clips are cut into ranges in their order, and each has its row beforehand, so that who
    converts them when changes nothing. A folder of another job, that is of other clips, options or
    another version, is emptied first.

    clips: with the split of each. arrays: the store in the folder, of a name that other jobs do not
    share: what a process of theirs may still write does not end up in it.
    """

    def __init__(
        self,
        out: Path,
        clips: Sequence[tuple[ClipFile, str]],
        settings: Settings,
        description: Description,
    ) -> None:
        self._folder = AtomicFolder(out, f".{out.name}.prepare")
        self.path = self._folder.path
        self._file = self.path / "job"
        self._key = fingerprint(clips, settings)
        self.arrays = StoreArrays(self.path / self._key[:16], description)
        rows: Counter[str] = Counter()
        placed = []
        for clip, split in clips:
            placed.append(Placed(clip, split, rows[split]))
            rows[split] += 1
        starts = range(0, len(placed), RANGE)
        self.ranges = {start: Range(start, placed[start : start + RANGE]) for start in starts}

    def open(self) -> list[RangeReport]:
        """Make the folder, or take over what it holds: the reports of the ranges that are done."""
        lines = self._lines()
        done: list[RangeReport] = []
        if lines[:1] == [self._key] and self.arrays.folder.is_dir():
            done = [report for line in lines[1:] if (report := self._done(line))]
            self.arrays.close()
        else:
            shutil.rmtree(self.path, ignore_errors=True)
            with self._folder.making():
                self.arrays.create()
        kept = [self._key, *(report.to_json() for report in done)]
        partial = self._file.with_suffix(".partial")
        partial.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        partial.replace(self._file)
        return done

    def add(self, report: RangeReport) -> None:
        """Keep that a range is done."""
        with open(self._file, "a", encoding="utf-8") as file:
            file.write(f"{report.to_json()}\n")

    def finish(self) -> None:
        """Move the store to `out`, and remove the folder."""
        self._folder.finish(self.arrays.folder)

    def discard(self) -> None:
        """Remove the folder, and those above it that were made for it."""
        self.arrays.abandon()
        self._folder.discard()

    def _lines(self) -> list[str]:
        try:
            return self._file.read_text(encoding="utf-8").splitlines()
        except (FileNotFoundError, UnicodeDecodeError):
            return []

    def _done(self, line: str) -> RangeReport | None:
        """A report of this job whose rows are whole; the power may have failed on either."""
        try:
            report = RangeReport.from_json(line)
            whole = report.is_written(self.ranges[report.number], self.arrays)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return report if whole else None


def fingerprint(clips: Sequence[tuple[ClipFile, str]], settings: Settings) -> str:
    """Of all that decides what is in the rows. Poses count as their `stamps`, where they have any,
    else as what `pickle` writes of them."""
    content = {
        "version": __version__,
        "range": RANGE,
        "clips": [(clip.name, clip.stamp, split) for clip, split in clips],
        "layouts": [layout.to_dict() for layout in settings.layouts.values()],
        "bodies": settings.bodies,
        "people": vars(settings.people),
        "clean": vars(settings.clean) | {"placement": vars(settings.clean.placement)},
        "keep_absent": settings.keep_absent,
        "derived": {
            name: _digest(each.matrix.tobytes()) for name, each in settings.derived.items()
        },
        "poses": {name: _digest(_pickled(name, poses)) for name, poses in settings.poses.items()},
    }
    return _digest(json.dumps(content).encode())


def _pickled(name: str, poses: Any) -> bytes:
    try:
        return pickle.dumps(poses.stamps() if hasattr(poses, "stamps") else poses)
    except Exception as error:  # whatever an object of the user's raises
        raise InputError(
            f"the source of poses under {name} cannot be pickled ({error}), as is needed to send "
            "it to other processes"
        ) from None


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
