"""What preparing found, counted: printed by `msclr prepare`, kept in dataset.json."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

_PLAUSIBLE_REACH = (0.1, 10.0)  # metres from a body's centre to its furthest joint
_MOST_HALVES = 3.0  # half images from the middle to the furthest joint
_LEAST_SPAN = 0.02  # half images that all joints of all clips spread over
_SHOWN = 5  # names in one line


@dataclass
class ViewReport:
    """Counts for one layout, over the bodies that were kept.

    joints: measured or not, body x frame x joint of the trimmed clips
    interpolated: those of them that were missing and were interpolated over time
    never_seen: body x joint pairs missing in a whole clip, set to the body's centre
    trimmed_frames: frames at the ends of clips in which no body was seen, cut off
    reach: metres from the centre to the furthest joint, median over clips; of "xy_score" from the
        middle of the image, in halves of its width and height
    span: of "xy_score", what all joints seen in all clips spread over, in x or y, whichever is
        more, in the same halves; None of "xyz"
    """

    joints: int = 0
    interpolated: int = 0
    never_seen: int = 0
    trimmed_frames: int = 0
    reach: float = 0.0
    span: float | None = None


@dataclass
class Counts:
    """What cleaning clips under one layout found; `add` joins the counts of several processes.

    joints, interpolated, never_seen, trimmed_frames: as in `ViewReport`
    unturned: clips that should be turned, whose main body never shows both shoulders
    unframed: clips whose main body does not show what its frame follows from: what -> how many
    reach: of each clip, see `ViewReport`
    low, high: of planar clips, the least and the largest x and y of all joints seen
    """

    joints: int = 0
    interpolated: int = 0
    never_seen: int = 0
    trimmed_frames: int = 0
    unturned: int = 0
    unframed: dict[str, int] = field(default_factory=dict)
    reach: list[float] = field(default_factory=list)
    low: np.ndarray | None = None
    high: np.ndarray | None = None

    def count_reach(self, position: np.ndarray, scale: float = 1.0, einsum: bool = False) -> None:
        """position (..., 2 or 3) in units of `scale`: keeps the largest distance from 0."""
        if einsum:
            scaled = position * scale
            self.reach.append(math.sqrt(np.einsum("...i,...i", scaled, scaled).max()))
            return
        # Column by column: a sum over an axis of 3 is several times slower.
        axes = [position[..., axis] * scale for axis in range(position.shape[-1])]
        self.reach.append(math.sqrt(sum(axis * axis for axis in axes).max()))

    def count_span(self, position: np.ndarray) -> None:
        """position (n, 2): x and y of joints that were seen."""
        low, high = position.min(axis=0), position.max(axis=0)
        self.low = low if self.low is None else np.minimum(self.low, low)
        self.high = high if self.high is None else np.maximum(self.high, high)

    def add(self, other: Counts) -> None:
        """Of clips in metres."""
        for key in ("joints", "interpolated", "never_seen", "trimmed_frames", "unturned", "reach"):
            setattr(self, key, getattr(self, key) + getattr(other, key))
        for what, clips in other.unframed.items():
            self.unframed[what] = self.unframed.get(what, 0) + clips

    def report(self) -> ViewReport:
        return ViewReport(
            self.joints,
            self.interpolated,
            self.never_seen,
            self.trimmed_frames,
            reach=float(np.median(self.reach)) if self.reach else 0.0,
            span=None if self.low is None else float((self.high - self.low).max()),
        )


@dataclass
class PrepareReport:
    """Counts over a whole prepared data set.

    clips: split -> clips; per_class: split -> clips of each class, in the order of the classes
    unmatched_bodies: bodies dropped because one of the views of their clip lacks them
    surplus_bodies: bodies dropped because their clip has more than `bodies` of them
    coordinates: "xyz" or "xy_score"
    left_out: clips that the source has and the data set has not: reason -> their names
    frame, size_by: what coordinates are relative to and divided by (`prepare_arrays`)
    frame_why: why that frame, where it is not the usual one; else ""
    unframed: clips whose own frame or size could not be found and whose axes and unit stay: layout
        -> what of the body is not seen -> their names
    derived_from: layout that was computed -> the one whose joints it was computed from
    unpaired: layouts without a left-right pair of joints, which a flip therefore leaves as they are
    notes: what the source of the clips has to say, a line each
    """

    out: str
    frames: int
    bodies: int
    classes: list[str]
    clips: dict[str, int] = field(default_factory=dict)
    per_class: dict[str, list[int]] = field(default_factory=dict)
    views: dict[str, ViewReport] = field(default_factory=dict)
    unmatched_bodies: int = 0
    surplus_bodies: int = 0
    coordinates: str = "xyz"
    left_out: dict[str, list[str]] = field(default_factory=dict)
    frame: str = "camera"
    size_by: str = "none"
    frame_why: str = ""
    unframed: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    derived_from: dict[str, str] = field(default_factory=dict)
    unpaired: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The counts as JSON can hold them, without what dataset.json holds too."""
        content = asdict(self)
        elsewhere = ("out", "frames", "classes", "coordinates", "frame", "size_by", "derived_from")
        return {key: content[key] for key in content if key not in elsewhere}

    def lines(self) -> list[str]:
        """The report as text for people, one line per finding; notes come last."""
        counts = ", ".join(f"{split} {count:,}" for split, count in self.clips.items())
        text = [
            f"{sum(self.clips.values()):,} clips ({counts}) of {len(self.classes)} classes, "
            f"{self.frames} frames, bodies per clip: {self.bodies}",
            *self._class_lines(),
            *(self._view_line(name, view) for name, view in self.views.items()),
            *(f"{name}: computed from {of}'s joints" for name, of in self.derived_from.items()),
            *self._frame_lines(),
        ]
        text += [
            f"{len(names):,} left out: {why} ({some(names)})"
            for why, names in self.left_out.items()
        ]
        if self.unmatched_bodies:
            text.append(f"{self.unmatched_bodies:,} bodies dropped: one of their views lacks them")
        if self.surplus_bodies:
            text.append(
                f"{self.surplus_bodies:,} bodies dropped: more than {self.bodies} in their clip"
            )
        return [*text, *self._notes(), f"written to {self.out}"]

    def _class_lines(self) -> list[str]:
        lines = []
        for split, counts in self.per_class.items():
            if self.clips[split]:
                least, most = min(counts), max(counts)
                share = f"{least:,}" if least == most else f"{least:,} to {most:,}"
                share += f" clip{'s' * (most != 1)} a class"
                lines.append(f"{split}: {share}; each in dataset.json")
        return lines

    def _frame_lines(self) -> list[str]:
        if self.coordinates == "xy_score":
            return []
        unit = "metres" if self.size_by == "none" else "lengths of the main body's torso"
        why = f" ({self.frame_why})" if self.frame_why else ""
        return [f"frame: {self.frame}, in {unit}{why}"]

    def _view_line(self, name: str, view: ViewReport) -> str:
        share = 100 * view.interpolated / max(view.joints, 1)
        return (
            f"{name}: {view.interpolated:,} of {view.joints:,} joints interpolated "
            f"({share:.2f} %), {view.never_seen:,} never seen in their clip, "
            f"{view.trimmed_frames:,} empty frames cut; furthest joint {view.reach:.2f} "
            + ("m from the centre" if self.coordinates == "xyz" else "half images from its middle")
        )

    def _notes(self) -> list[str]:
        notes = [f"note: {note}" for note in self.notes]
        notes += [
            f"note: {name}: {len(names):,} clips keep their axes and unit: their main body "
            f"does not show {what} ({some(names)})"
            for name, reasons in self.unframed.items()
            for what, names in reasons.items()
        ]
        for name, view in self.views.items():
            notes += self._unit_notes(name, view)
        notes += [
            f"note: {name} has no left-right pair of joints, so that a flip changes nothing; "
            'name the pairs in its layout: flip = [["lhip", "rhip"], …]'
            for name in self.unpaired
        ]
        for split, counts in self.per_class.items():
            empty = [name for name, count in zip(self.classes, counts, strict=True) if not count]
            if self.clips[split] and empty:
                shown = ", ".join(empty[:5]) + (", …" if len(empty) > 5 else "")
                notes.append(f"note: {split} has no clip of {len(empty)} classes: {shown}")
            if not self.clips[split]:
                notes.append(f"note: {split} is empty")
        return notes

    def _unit_notes(self, name: str, view: ViewReport) -> list[str]:
        """Notes on a view whose coordinates look wrong."""
        low, high = _PLAUSIBLE_REACH
        notes = []
        if self.coordinates == "xyz" and not low <= view.reach <= high:
            notes.append(
                f"note: {view.reach:.3g} m is no size of a person: is {name} in metres? "
                "If not, prepare again with a scale (0.001 for millimetres)"
            )
        if self.coordinates == "xy_score" and view.reach > _MOST_HALVES:
            notes.append(
                f"note: {view.reach:.3g} half images from its middle is far outside: are x and y "
                f"of {name} in pixels? They go from -1 to 1 within the image"
            )
        if view.span is not None and view.span < _LEAST_SPAN:
            notes.append(
                f"note: all joints of all clips of {name} lie within {view.span / 2:.2g} of the "
                "image's width and height: are x and y normalised to 0..1? pyskl's form wants "
                "pixels, the others -1 to 1 within the image"
            )
        return notes


def some(names: Sequence[str]) -> str:
    """A few of the names, and how many there are besides."""
    shown = ", ".join(names[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else "")
