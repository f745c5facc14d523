"""Decide which backends may run on a device: look up what is known, try the rest, keep it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from msclr.kernels import _choice
from msclr.kernels._backend import NAMES, backends, device_types
from msclr.kernels._choice import FAMILIES
from msclr.kernels._qualify import children, store
from msclr.kernels._qualify.children import Job, Limits
from msclr.kernels._qualify.judge import in_dtype
from msclr.kernels._qualify.machine import describe, sources_of, takes_gpu_backends
from msclr.kernels._qualify.ranks import agreed, in_group, leads
from msclr.kernels._qualify.store import Key, Verdict
from msclr.kernels._qualify.subjects import SUBJECTS, Subject

STALL = 20.0  # seconds: the slowest step compiles the kernels of a case
_EXAMINATION = 600.0  # seconds for all of it

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Row:
    """A key that was looked at, and its verdict."""

    where: str  # of the subject
    key: Key
    verdict: Verdict | None  # None: never tried


def normal(device: str | torch.device) -> torch.device:
    """The device as tensors name theirs, with its number."""
    device = torch.device(device)
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


def usual_families(device: torch.device) -> tuple[str, ...]:
    """What training computes in; float64 is for `msclr doctor`."""
    return ("half", _choice.family_of(device, torch.float32))


def rows_of(
    device: torch.device,
    families: Sequence[str],
) -> list[Row]:
    """All keys of a device with what is known of them; nothing is tried."""
    if not takes_gpu_backends(device):
        return []
    machine = describe(device)
    here = [
        name
        for name in NAMES
        if name != "reference" and device.type in device_types(name) and not backends()[name]
    ]
    rows = []
    for where, subject in SUBJECTS.items():
        for name in subject.run.backends:
            if name == "reference" or (name in NAMES and name not in here):
                continue
            sources = sources_of(subject, name)
            for family in families:
                if takes(subject, name, family):
                    key = Key(subject.run.name, name, family, machine, sources)
                    rows.append(Row(where, key, store.load(key)))
    return rows


def takes(subject: Subject, backend: str, family: str) -> bool:
    """Whether a backend takes a usual call in the dtypes of a family, which the operator has."""
    dtypes = [dtype for dtype in FAMILIES[family] if dtype in subject.dtypes]
    misfit = subject.run.supports.get(backend)
    given = subject.cases.CASES[subject.usual]()
    return bool(dtypes) and not any(misfit and misfit(in_dtype(given, d)) for d in dtypes)


def decide(rows: Sequence[Row], device: torch.device, limits: Limits) -> list[Row]:
    """The same rows, those without a verdict tried; what was found is kept."""
    jobs: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row.verdict is None:
            jobs.setdefault((row.where, row.key.backend), []).append(row.key.family)
    if not jobs:
        return list(rows)
    asked = [Job(where, name, tuple(families)) for (where, name), families in jobs.items()]
    found = children.try_all(asked, str(device), limits)
    by_place = {(job.subject, job.backend, family): v for (job, family), v in found.items()}
    decided = []
    for row in rows:
        verdict = row.verdict or by_place[row.where, row.key.backend, row.key.family]
        if row.verdict is None and verdict.decided:
            verdict = store.save(row.key, verdict)
        decided.append(Row(row.where, row.key, verdict))
    return decided


def examine(
    device: str | torch.device,
    again: bool = False,
    say: Callable[[str], None] | None = None,
) -> list[Row]:
    """Every verdict of a device, for `msclr doctor`: also of CPUs, and of float64.

    Args:
        device: to examine.
        again: forget what is known, and try everything.
        say: takes a line for the user where something has to be tried.
    """
    device = normal(device)
    families = (*usual_families(device), "double")
    rows = rows_of(device, families)
    if again:
        for row in rows:
            store.forget(row.key)
        rows = [Row(row.where, row.key, None) for row in rows]
    if say and any(row.verdict is None for row in rows):
        say(f"trying the kernels on {describe(device).device}; this may take a minute or two")
    return decide(rows, device, Limits(_EXAMINATION, 3 * STALL))


def prepare(
    device: str | torch.device,
    *,
    group: object | None = None,
    seconds: float = 30.0,
    say: Callable[[str], None] | None = None,
) -> None:
    """Decide once which kernels are right and fast on this GPU; they are its defaults afterwards.

    Each backend of each operator is tried in a process of its own: forward and every gradient on
    awkward inputs against float64 on the same GPU, twice with the same bits, then the time of a
    usual call. One that is right, and not slower than PyTorch's own operators, runs from then on
    where no backend is named. Verdicts are kept in ``$XDG_CACHE_HOME/msclr`` (``~/.cache/msclr``)
    for this GPU, driver, torch, triton and code, so the next process decides nothing. What time did
    not allow is tried next time. ``MSCLR_QUALIFY=off`` leaves it all out: PyTorch's own run.

    Args:
        device: of the tensors to come. On a CPU nothing is decided: its kernels are tested where
            the library is built.
        group: the process group to agree in, where there are several processes (default: all, if
            torch.distributed is in use): the first process of each machine tries, and what runs is
            what qualified on all.
        seconds: to take at most.
        say: takes a line where something has to be tried; default: a warning of the logger.

    Raises:
        ValueError: MSCLR_QUALIFY is neither on nor off.
    """
    device = torch.device(device)
    if device.type not in _choice.qualifying_types or not _choice.qualification_is_on():
        return
    device = normal(device)
    if not in_group() and not _choice.first_time(f"prepare {device} {usual_families(device)}"):
        return
    rows = rows_of(device, usual_families(device))
    if leads() and any(row.verdict is None for row in rows):
        (say or logger.warning)(
            f"trying which kernels are right and fast on {describe(device).device}: "
            f"once, at most {seconds:.0f} s"
        )
        rows = decide(rows, device, Limits(seconds, STALL))
    rows = agreed(rows, group)
    _choice.adopt(device, adopted(rows))
    for line in complaints(rows, device):
        if _choice.first_time(line):
            logger.warning(line)


def adopted(rows: Sequence[Row]) -> dict[tuple[str, str], tuple[str, ...]]:
    """(operator, family) -> the backends that qualified, the fastest first."""
    found: dict[tuple[str, str], list[tuple[float, str]]] = {}
    for row in rows:
        verdicts = found.setdefault((row.key.operator, row.key.family), [])
        if row.verdict is not None and row.verdict.adopted:
            verdicts.append((row.verdict.seconds or 0.0, row.key.backend))
    return {place: tuple(name for _, name in sorted(of)) for place, of in found.items()}


def complaints(rows: Sequence[Row], device: torch.device) -> list[str]:
    """A line for each operator and family that is left with PyTorch's own, and why."""
    if not rows:
        reasons = {backends()[name] or "it is older than sm_80" for name in ("triton", "cuda")}
        return [f"PyTorch's own operators run on {device}: {'; '.join(sorted(reasons))}"]
    why: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        reason = row.verdict.reason if row.verdict else "not tried yet"
        why.setdefault((row.key.operator, row.key.family), []).append(
            f"{row.key.backend} {reason}" if row.verdict else f"{row.key.backend} is {reason}"
        )
    qualified = adopted(rows)
    return [
        f"{operator} in {family} precision runs on PyTorch's own operators on {device}: "
        f"{'; '.join(reasons)}"
        for (operator, family), reasons in why.items()
        if not qualified[operator, family]
    ]


def stored(
    device: torch.device,
) -> tuple[Mapping[tuple[str, str], tuple[str, ...]], bool]:
    """What qualified on a device by the verdicts on disk; and whether all are there."""
    rows = rows_of(device, usual_families(device))
    return adopted(rows), all(row.verdict is not None for row in rows)


def would_run(device: str | torch.device) -> dict[str, dict[str, str]]:
    """What runs on a device where no backend is named: operator -> precision -> backend.

    Precisions are "half" (bfloat16, float16), "single" (or "tf32", where PyTorch multiplies float32
    so) and "double". By overrides and the verdicts that are known; nothing is tried. Arguments that
    the first choice does not take go to the next.
    """
    device = normal(device)
    families = (*usual_families(device), "double")
    found = {}
    for subject in SUBJECTS.values():
        operator = subject.run
        asked = _choice.forced()
        found[operator.name] = {
            family: asked if asked in operator.declared else operator.order(device, family)[0]
            for family in families
            if set(FAMILIES[family]) & set(subject.dtypes)
        }
    return found
