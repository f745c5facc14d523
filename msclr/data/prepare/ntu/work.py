"""The folder in which a run keeps what it has done, so that one that was cut off goes on."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msclr import __version__
from msclr.data.prepare.ntu.chunks import Chunk, ChunkReport, load_report
from msclr.data.prepare.ntu.convert import Settings
from msclr.data.prepare.ntu.sources import ClipFile
from msclr.data.store import require_free
from msclr.errors import InputError

CHUNK = 64  # clips: 4 MB of two conventions, a twentieth of a second of work or less
_KEY = "job"


class WorkFolder:
    """`.<out>.prepare` beside `out`: the chunks of one job, a file each; in the end the result.

    The clips are cut into chunks in their order, so that who prepares them when changes nothing.
    A folder of another job, that is of other clips, options or another version, is emptied first.
    """

    def __init__(self, out: Path, clips: Sequence[ClipFile], settings: Settings) -> None:
        self._out = out
        self.path = out.parent / f".{out.name}.prepare"
        self.result = self.path / "result"
        self._layouts = list(settings.layouts)
        self._key = _fingerprint(clips, settings)
        self.chunks = [
            Chunk(self.path / f"{start:06}", list(clips[start : start + CHUNK]))
            for start in range(0, len(clips), CHUNK)
        ]
        parents = [out.parent, *out.parent.parents]
        self._made_parents = [parent for parent in parents if not parent.exists()]

    def open(self) -> dict[int, ChunkReport]:
        """Make the folder, or take over what it holds: the reports of the chunks that are done."""
        try:
            if self._read_key() != self._key:
                shutil.rmtree(self.path, ignore_errors=True)
                self.path.mkdir(parents=True, exist_ok=True)
                (self.path / _KEY).write_text(self._key, encoding="utf-8")
        except OSError as error:
            raise InputError(
                f"cannot write to {self.path.parent}: {error.strerror}; choose another folder"
            ) from None
        known = {_KEY, *(chunk.path.name for chunk in self.chunks)}
        for path in self.path.iterdir():  # what was being written when the other run ended
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name not in known:
                path.unlink()
        reports = {i: load_report(chunk.path, self._layouts) for i, chunk in enumerate(self.chunks)}
        return {i: report for i, report in reports.items() if report is not None}

    def finish(self) -> None:
        """Move the result to `out`, and remove the folder."""
        require_free(self._out)  # again: preparing takes a while
        if self._out.exists():
            self._out.rmdir()  # empty; some systems do not rename onto it
        os.rename(self.result, self._out)
        self.remove()

    def remove(self, parents: bool = False) -> None:
        """Remove the folder, and on request the folders above it that were made for it."""
        shutil.rmtree(self.path, ignore_errors=True)
        for parent in self._made_parents if parents else []:
            with contextlib.suppress(OSError):  # in use by others by now
                parent.rmdir()

    def _read_key(self) -> str:
        try:
            return (self.path / _KEY).read_text(encoding="utf-8")
        except FileNotFoundError:
            return ""


def _fingerprint(clips: Sequence[ClipFile], settings: Settings) -> str:
    """Of all that decides what is in the chunks. Poses count as what `pickle` writes of them."""
    content = {
        "version": __version__,
        "chunk": CHUNK,
        "clips": [(clip.name, clip.stamp) for clip in clips],
        "layouts": [layout.to_dict() for layout in settings.layouts.values()],
        "frames": settings.clean.frames,
        "bodies": settings.bodies,
        "rules": vars(settings.people),
        "keep_absent": settings.keep_absent,
        "derived": {
            name: _digest(each.matrix.tobytes()) for name, each in settings.derived.items()
        },
        "placement": vars(settings.clean.placement),
        "poses": {name: _digest(_pickled(name, poses)) for name, poses in settings.poses.items()},
    }
    return _digest(json.dumps(content).encode())


def _pickled(name: str, poses: Any) -> bytes:
    try:
        return pickle.dumps(poses)
    except Exception as error:  # whatever an object of the user's raises
        raise InputError(
            f"the source of poses under {name} cannot be pickled ({error}), as is needed to send "
            "it to other processes"
        ) from None


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
