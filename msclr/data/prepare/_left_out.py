"""Clips that cannot be used: a few are left out by name, more of them end the run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from msclr.data.prepare._inputs import Table
from msclr.data.prepare.report import some
from msclr.errors import InputError

MOST_LEFT_OUT = 0.05  # share of the clips; more are no accident


class Unusable(NamedTuple):
    """Why a clip cannot be used: in the report's words, and as the message of an error."""

    why: str
    message: str


def most_left_out(clips: int) -> int:
    """How many of so many clips may be left out: 5 %, and one where there are fewer than 20."""
    return max(1, int(MOST_LEFT_OUT * clips))


def by_reason(unusable: Mapping[int, Unusable], table: Table) -> dict[str, list[str]]:
    """Reason -> the names of the clips, for the report."""
    left_out: dict[str, list[str]] = {}
    for clip, fault in unusable.items():
        left_out.setdefault(fault.why, []).append(table.names[clip])
    return left_out


def check_unusable(unusable: Mapping[int, Unusable], table: Table) -> None:
    """Raise InputError where more clips cannot be used than may be left out, or a whole split."""
    if not unusable:
        return
    count = len(table.labels)
    if len(unusable) > most_left_out(count):
        raise InputError(
            f"{len(unusable):,} of {count:,} clips cannot be used, more than "
            f"{MOST_LEFT_OUT:.0%}: {_examples(unusable, table)}; mend them or leave them out"
        )
    left = {split for clip, split in enumerate(table.split) if clip not in unusable}
    for clip, fault in unusable.items():
        split = table.split[clip]
        if split not in left:
            raise InputError(
                f"no clip of {split} can be used: {fault.message}; give at least one that can"
            )


def check_strict(left_out: Mapping[str, list[str]]) -> None:
    """Raise InputError where any clip would be left out."""
    total = sum(map(len, left_out.values()))
    if total:
        reasons = "; ".join(f"{why} ({some(names)})" for why, names in left_out.items())
        raise InputError(
            f"{total:,} clips would be left out, and strict allows none: {reasons}; "
            "mend them, or prepare without strict"
        )


def _examples(unusable: Mapping[int, Unusable], table: Table) -> str:
    """The first clip's fault, and the names of some others."""
    (_, first), *others = unusable.items()
    names = [table.names[clip] for clip, _ in others]
    return first.message + (f", and {some(names)}" if names else "")
