"""Verdicts on disk: one JSON file a key, in the user's cache folder."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict, dataclass

from msclr.kernels._cache import cache_folder, keep
from msclr.kernels._qualify.machine import Machine

FORMAT = 1

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Key:
    """What a verdict is about."""

    operator: str
    backend: str
    family: str
    machine: Machine
    sources: str  # hash of the code

    @property
    def file(self) -> str:
        text = json.dumps(asdict(self), sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        return f"{self.operator}-{self.backend}-{self.family}-{digest}.json"


@dataclass(frozen=True)
class Verdict:
    """What was found; ``decided`` is False where something else kept it from being found."""

    adopted: bool
    reason: str
    error: float | None = None  # the worst, relative to the largest number
    allowed: float | None = None
    seconds: float | None = None  # of a usual call, forward and backward
    reference_seconds: float | None = None
    decided: bool = True


_KINDS = {
    "adopted": (bool,),
    "reason": (str,),
    **dict.fromkeys(("error", "allowed", "seconds", "reference_seconds"), (float, int, type(None))),
}


def load(key: Key) -> Verdict | None:
    """The verdict of a key; None where there is none that can be read."""
    where = cache_folder()
    if where is None:
        return None
    try:
        read = json.loads((where / "verdicts" / key.file).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(read, dict) or read.get("format") != FORMAT or read.get("key") != asdict(key):
        return None
    found = read.get("verdict")
    if not isinstance(found, dict) or found.keys() != _KINDS.keys():
        return None
    if any(type(found[name]) not in kinds for name, kinds in _KINDS.items()):
        return None
    return Verdict(**found)


def save(key: Key, verdict: Verdict) -> Verdict:
    """Keep a verdict, unless a process that ran at the same time has kept another.

    Returns:
        the one that is kept, so that all processes go by the same.
    """
    if (kept := load(key)) is not None:
        return kept
    where = cache_folder()
    found = {name: getattr(verdict, name) for name in _KINDS}
    text = json.dumps({"format": FORMAT, "key": asdict(key), "verdict": found}, indent=1)
    try:
        if where is None:
            raise OSError("there is no home folder")
        keep(where / "verdicts" / key.file, text)
    except OSError as error:
        logger.debug("verdict of %s not kept: %s", key.operator, error)
    return load(key) or verdict


def forget(key: Key) -> None:
    """Let a key be decided again."""
    if (where := cache_folder()) is not None:
        try:
            (where / "verdicts" / key.file).unlink(missing_ok=True)
        except OSError as error:
            logger.debug("verdict of %s not removed: %s", key.operator, error)
