"""Where a result goes, and what must hold for it to be published.

Published results are those in benchmarks/results/, of any checkout.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any

from benchmarks import origin
from msclr.errors import InputError
from msclr.paths import as_path

_NO_SIZES = ("op", "best_other", "best_ours")  # texts of a row that do not say what it is of


@dataclass(frozen=True)
class Case:
    """What a row of a result is of, its first entries, and who takes part in it."""

    sizes: dict[str, Any]
    contestants: tuple[str, ...] = ()
    bytes: int = 0  # that its tensors take, at the least


def target(
    out: Path | None, name: str, cases: list[Case], rounds: int, full: list[Case], full_rounds: int
) -> Path:
    """The file to write, once it is certain that it may be; a dated one in build/ by default.

    Args:
        out: what --out says.
        name: of the file, without its ending, under which the tables look for such a result.
        cases, rounds: what is to be measured.
        full, full_rounds: the same without options that leave something out.

    Raises:
        InputError: it cannot be written, or must not be published.
    """
    if out is None:
        folder = origin.ROOT / "build" / "benchmarks"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{name}-{datetime.now():%Y%m%d-%H%M%S}.json"
    path = as_path(out).resolve()
    if path.is_dir():
        raise InputError(f"--out {out} is a folder; name a file, such as {out}/{name}.json")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise InputError(f"--out {out}: {path.parent} is no folder to write to; make it first")
    if any(parent.parts[-2:] == ("benchmarks", "results") for parent in path.parents):
        wanted = [(case.sizes, case.contestants) for case in full]
        problem = _dirty() or lost(path, name, cases, rounds, wanted, full_rounds)
        if problem:
            raise InputError(f"--out {out} is not published: {problem}")
    return path


def _dirty() -> str:
    try:
        changed = origin.changes()
    except (OSError, CalledProcessError):
        return "git does not say which commit this is; write it elsewhere"
    first = f"{changed[0]} and {len(changed) - 1} more" if changed[1:] else "".join(changed)
    return first and f"the tree has changes ({first}); commit them first, or write it elsewhere"


def lost(
    path: Path, name: str, cases: list[Case], rounds: int, wanted: list, wanted_rounds: int
) -> str:
    """What of a published file, or of the full set, a run in its place would lack, in words."""
    if not path.exists():
        return ""
    if path.stem != name:
        return f"there is another result of that name; this one's is {name}.json"
    try:
        old = json.loads(path.read_text())
        wanted = wanted + [(row, contestants(row)) for row in old.get("rows", [old])]
    except (ValueError, AttributeError):
        return "what is there cannot be read; remove it first"
    if (limits := origin.limits()) != (before := old.get("cpu", {}).get("environment", {})):
        return f"it was measured with {before or 'no limits'} set, this run has {limits or 'none'}"
    wanted_rounds = max(wanted_rounds, old.get("rounds", 0))
    lacking = f"{wanted_rounds} rounds" if rounds < wanted_rounds else _lacking(cases, wanted)
    return lacking and f"this run is a partial one, without {lacking}; write it elsewhere"


def _lacking(cases: list[Case], wanted: Iterable[tuple[dict, Collection[str]]]) -> str:
    """The first that is wanted, a row and its contestants, and not among the cases."""
    for row, names in wanted:
        found = next((case for case in cases if _is_of(row, case)), None)
        if found is None:
            return in_words(row)
        if missing := sorted(set(names) - set(found.contestants)):
            return f"{missing[0]} at {in_words(row)}"
    return ""


def _is_of(row: dict[str, Any], case: Case) -> bool:
    return all(row.get(key, value) == value for key, value in case.sizes.items())


def contestants(row: dict[str, Any]) -> set[str]:
    """The names of the contestants timed in a row or its parts."""
    parts = [row, *(part for part in row.values() if isinstance(part, dict))]
    return {n for part in parts for key in part if key.startswith("seconds") for n in part[key]}


def in_words(row: dict[str, Any]) -> str:
    """A row's sizes."""
    sizes = (f"{k} {v}" for k, v in row.items() if isinstance(v, (int, str)) and k not in _NO_SIZES)
    return " ".join(sizes)


def save(result: dict[str, Any], path: Path) -> None:
    """Write a result: all of it, or nothing."""
    made = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        made.write_text(json.dumps(result, indent=1) + "\n")
        made.replace(path)
    finally:
        made.unlink(missing_ok=True)
