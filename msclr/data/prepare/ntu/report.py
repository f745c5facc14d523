"""What preparing NTU RGB+D found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from msclr.data.prepare.ntu.bodies import BodyCounts
from msclr.data.prepare.ntu.names import ACTIONS, PUBLISHED, SETUPS, ClipName, parse_name
from msclr.data.prepare.report import PrepareReport, some


@dataclass
class NtuReport(PrepareReport):
    """`PrepareReport`, and what is known of NTU's clips and bodies besides.

    found: files of clips in the folders and zips given
    listed: of them, those on the data set's skip list; other: those of other actions or setups
    corrupt: (name, line or 0, reason) of the files that cannot be read
    empty: clips in which no joint of any body is seen
    no_poses: layout -> clips that were dropped as it has no poses of them
    absent_views: layout -> bodies that are kept, 0 under that layout, which has no poses of them
    unturned: layout -> clips whose main body never shows both shoulders, left as they are
    unframed_clips: layout -> what the main bodies of clips that keep their axes do not show -> how
        many such clips
    derived: the layouts computed from the Kinect's joints
    people: clips by how many bodies they have, from 1 on
    body_counts: what the rules for bodies did
    absent_groups: setups, cameras and actions of the data set of which no clip is there at all
    """

    dataset: str = ""
    protocol: str = ""
    found: int = 0
    listed: int = 0
    other: int = 0
    corrupt: list[tuple[str, int, str]] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    no_poses: dict[str, list[str]] = field(default_factory=dict)
    absent_views: dict[str, int] = field(default_factory=dict)
    unturned: dict[str, int] = field(default_factory=dict)
    unframed_clips: dict[str, dict[str, int]] = field(default_factory=dict)
    derived: list[str] = field(default_factory=list)
    people: list[int] = field(default_factory=list)
    body_counts: BodyCounts = field(default_factory=BodyCounts)
    absent_groups: dict[str, list[int]] = field(default_factory=dict)

    @property
    def published(self) -> dict[str, int]:
        """split -> clips, as the data set's authors and their successors publish them."""
        return PUBLISHED[self.dataset, self.protocol]

    def to_dict(self) -> dict:
        return super().to_dict() | {"published": self.published}

    def lines(self) -> list[str]:
        head, *rest, last = super().lines()
        return [
            head,
            *self._published_lines(),
            *self._skipped_lines(),
            *self._body_lines(),
            *rest,
            last,
        ]

    def _published_lines(self) -> list[str]:
        lines = []
        for split, wanted in self.published.items():
            missing = wanted - self.clips[split]
            differs = f"{abs(missing):,} {'fewer' if missing > 0 else 'more'} than the {wanted:,}"
            agrees = f"the {wanted:,}" if not missing else differs
            lines.append(f"{self.dataset} {self.protocol} {split}: {agrees} published")
        if any(self.absent_groups.values()):
            groups = ", ".join(
                f"{kind} {_ranges(n)}" for kind, n in self.absent_groups.items() if n
            )
            lines.append(f"no clip at all of {groups}")
        return lines

    def _skipped_lines(self) -> list[str]:
        lines = [f"{self.found:,} files of clips found"]
        if self.listed:
            lines.append(f"{self.listed:,} skipped: on the list of missing or broken skeletons")
        if self.other:
            lines.append(
                f"{self.other:,} skipped: of actions or setups that {self.dataset} has not"
            )
        if self.corrupt:
            lines.append(f"{len(self.corrupt):,} skipped: corrupt")
            lines += [f"  {fault}" for fault in faults(self.corrupt)]
        if self.empty:
            lines.append(f"{len(self.empty):,} skipped: nobody in them ({some(self.empty)})")
        for layout, names in self.no_poses.items():
            lines.append(f"{len(names):,} skipped: no poses under {layout} ({some(names)})")
        for layout, count in self.absent_views.items():
            if count:
                lines.append(f"{count:,} bodies kept, 0 under {layout}: it has no poses of them")
        return lines

    def _body_lines(self) -> list[str]:
        counts = self.body_counts
        people = ", ".join(f"{clips:,} with {n}" for n, clips in enumerate(self.people, 1) if clips)
        absent = sum((self.bodies - n) * clips for n, clips in enumerate(self.people, 1))
        changes = (
            f"{counts.joined:,} ids joined to another's person; ghosts dropped: {counts.short:,} "
            f"short, {counts.wide:,} wide; {counts.rescued:,} clips of nothing but ghosts kept one"
        )
        lines = [f"bodies: {people}; {absent:,} places empty", changes]
        for layout, count in self.unturned.items():
            if count:
                lines.append(f"{layout}: {count:,} clips not turned, no shoulders in sight")
        lines += [
            f"{layout}: {count:,} clips keep their axes and unit: no {what} in sight"
            for layout, reasons in self.unframed_clips.items()
            for what, count in reasons.items()
        ]
        if self.derived:
            lines.append(f"{', '.join(self.derived)}: computed from the Kinect's joints")
        return lines


def faults(corrupt: Iterable[tuple[str, int, str]]) -> list[str]:
    """`name:line: reason` of each corrupt file."""
    return [f"{name}:{line}: {why}" if line else f"{name}: {why}" for name, line, why in corrupt]


def absent_groups(names: Iterable[str], dataset: str) -> dict[str, list[int]]:
    """Setups, cameras and actions of the data set that no name has."""
    parsed = [parse_name(name) for name in names]
    whole = {"setup": SETUPS[dataset], "camera": 3, "action": ACTIONS[dataset]}
    groups = {}
    for kind, most in whole.items():
        there = {name[ClipName._fields.index(kind)] for name in parsed}
        groups[f"{kind}s"] = [number for number in range(1, most + 1) if number not in there]
    return groups


def _ranges(numbers: list[int]) -> str:
    """1 2 3 5 -> "1-3, 5"."""
    text, start = [], None
    for number in numbers:
        start = number if start is None else start
        if number + 1 not in numbers:
            text.append(f"{start}" if start == number else f"{start}-{number}")
            start = None
    return ", ".join(text)
