"""A ``.skeleton`` file line by line, in plain Python: what the compiled reader is held against."""

from __future__ import annotations

import codecs
import re
from typing import NamedTuple, NoReturn

import numpy as np

from .clip import Skeleton, id_array, unreadable

JOINTS = 25
BODY_FIELDS = 10  # the id, six states of hands and edges, lean x y, tracking state
JOINT_FIELDS = 12  # x y z, depth x y, colour x y, orientation w x y z, tracking state
_XYZ, _PIXELS, _TRACKING = slice(0, 3), slice(3, 7), 11
_NAMES = ("x", "y", "z", "depthX", "depthY", "colorX", "colorY")

_NUMBER = re.compile(
    rb"[+-]?(?:(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:e[+-]?[0-9]+)?|nan|inf(?:inity)?)", re.IGNORECASE
)
_WHOLE = re.compile(rb"[0-9]+")
_MOST = 10**18  # larger counts are taken as this: no file has that many lines

# Arrays are dense, bodies x frames, so a few kilobytes of frames without bodies and of ids that
# appear once could ask for gigabytes. Refused are more cells than the first if also more than the
# second for each body of each frame that the file does hold.
_FREE_CELLS = 2**18
_CELLS_PER_BODY = 16


class _Listed(NamedTuple):
    """One body of one frame."""

    row: int
    frame: int
    numbers: list[float]  # (V * 3), or (V * 7) with pixels
    tracking: list[int]  # (V,)


def parse(data: bytes, name: str, pixels: bool = False) -> Skeleton:
    """The clip in ``data``; see `msclr.data.skeleton.parse_skeleton`."""
    lines = _Lines(data, name)
    frames = lines.count("the number of frames")
    rows: dict[str, int] = {}
    listed: list[_Listed] = []
    for frame in range(frames):
        lines.place = f" (frame {frame + 1} of {frames})"
        seen = set()
        for _ in range(lines.count("the number of bodies")):
            body_id = lines.body_id()
            if body_id in seen:
                lines.refuse(f"body {_shown(body_id.encode())} again", "each body once a frame")
            seen.add(body_id)
            row = rows.setdefault(body_id, len(rows))
            listed.append(_Listed(row, frame, *_joints(lines, pixels)))
    lines.place = ""
    lines.end(frames)
    if len(rows) * frames > max(_FREE_CELLS, _CELLS_PER_BODY * len(listed)):
        came = f"{len(rows)} body ids over {frames} frames, {len(listed)} bodies in all"
        raise unreadable(name, 1, f"{came}; wanted fewer ids, in more frames each")
    return _assemble(list(rows), frames, listed, pixels)


def _joints(lines: _Lines, pixels: bool) -> tuple[list[float], list[int]]:
    """The joint count and the joints of one body."""
    joints = lines.count("the number of joints")
    if joints != JOINTS:
        lines.refuse(f"{joints} joints", f"the {JOINTS} of Kinect v2")
    numbers, tracking = [], []
    for _ in range(JOINTS):
        fields = lines.fields(JOINT_FIELDS, f"the {JOINT_FIELDS} fields of a joint")
        wanted = [*fields[_XYZ], *(fields[_PIXELS] if pixels else [])]
        numbers += [lines.number(f, name) for f, name in zip(wanted, _NAMES, strict=False)]
        tracking.append(lines.tracking(fields[_TRACKING]))
    return numbers, tracking


def _assemble(ids: list[str], frames: int, listed: list[_Listed], pixels: bool) -> Skeleton:
    present = np.zeros((len(ids), frames), bool)
    values = np.zeros((len(ids), frames, JOINTS, 7 if pixels else 3), np.float32)
    tracking = np.zeros((len(ids), frames, JOINTS), np.uint8)
    for body in listed:
        present[body.row, body.frame] = True
        tracking[body.row, body.frame] = body.tracking
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite
            rounded = np.array(body.numbers).astype(np.float32)
        values[body.row, body.frame] = rounded.reshape(JOINTS, -1)
    if not pixels:
        return Skeleton(id_array(ids), present, values, tracking)
    xyz, depth, color = (
        np.ascontiguousarray(values[..., part]) for part in (_XYZ, slice(3, 5), slice(5, 7))
    )
    return Skeleton(id_array(ids), present, xyz, tracking, depth, color)


class _Lines:
    """The lines of a file in turn; refuses what breaks the grammar, with name and line number."""

    def __init__(self, data: bytes, name: str) -> None:
        self._lines = data.removeprefix(codecs.BOM_UTF8).split(b"\n")
        if not self._lines[-1]:  # what follows the last line feed is no line
            self._lines.pop()
        self._name = name
        self._number = 0  # of the line last taken, from 1
        self.place = ""  # which frame, for the message

    def refuse(self, came: str, wanted: str) -> NoReturn:
        raise unreadable(self._name, self._number, f"{came}; wanted {wanted}{self.place}")

    def fields(self, count: int, wanted: str) -> list[bytes]:
        """Those of the next line, which must have ``count`` of them."""
        self._number += 1
        if self._number > len(self._lines):
            self.refuse("the file ends", wanted)
        fields = self._lines[self._number - 1].split()
        if len(fields) != count:
            came = f"{len(fields)} field{'s' if len(fields) > 1 else ''}"
            self.refuse(came if fields else "a blank line", wanted)
        return fields

    def count(self, wanted: str) -> int:
        """The next line, a whole number."""
        (text,) = self.fields(1, wanted)
        if not _WHOLE.fullmatch(text):
            self.refuse(_shown(text), wanted)
        return _whole(text)

    def body_id(self) -> str:
        """Of the next line: digits without leading zeros."""
        text = self.fields(BODY_FIELDS, f"the {BODY_FIELDS} fields of a body")[0]
        if not _WHOLE.fullmatch(text):
            self.refuse(_shown(text), "a body id, a whole number")
        return text.decode().lstrip("0") or "0"

    def number(self, text: bytes, name: str) -> float:
        if not _NUMBER.fullmatch(text):
            self.refuse(_shown(text), f"a number for {name}")
        return float(text)

    def tracking(self, text: bytes) -> int:
        state = _whole(text) if _WHOLE.fullmatch(text) else _MOST
        if state > 255:
            self.refuse(_shown(text), "a whole number up to 255 for the tracking state")
        return state

    def end(self, frames: int) -> None:
        """Nothing but blank lines may follow."""
        for line in self._lines[self._number :]:
            self._number += 1
            if fields := line.split():
                self.refuse(_shown(fields[0]), f"the end of the file after {frames} frames")


def _whole(text: bytes) -> int:
    digits = text.lstrip(b"0")
    return min(int(digits or b"0"), _MOST) if len(digits) <= 19 else _MOST


def _shown(text: bytes) -> str:
    """Text of a file as a message shows it: one line, printable and short."""
    printable = "".join(chr(byte) if 32 < byte < 127 else "?" for byte in text[:40])
    return f"'{printable}{'...' if len(text) > 40 else ''}'"
