"""Several processes: one of each machine tries, and all run what qualified on every one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch.distributed as dist

from msclr.kernels._qualify.store import Verdict

if TYPE_CHECKING:
    from msclr.kernels._qualify.verdicts import Row


def leads() -> bool:
    """Whether this process is the one of its machine that tries."""
    return not in_group() or os.environ.get("LOCAL_RANK", str(dist.get_rank())) == "0"


def in_group() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def agreed(rows: Sequence[Row], group: object | None) -> list[Row]:
    """The rows with every rank's verdict taken into account, the same on all ranks.

    Also the way from the process that tried to the others, which wait here.
    """
    if not in_group():
        return list(rows)
    mine = {row.key: row.verdict for row in rows}
    all_of_them: list[dict] = [{} for _ in range(dist.get_world_size(group))]
    dist.all_gather_object(all_of_them, mine, group=group)
    return [replace(row, verdict=_minimum(row, all_of_them)) for row in rows]


def _minimum(row: Row, ranks: Sequence[dict]) -> Verdict | None:
    """Adopted only if it is on every machine, and if a process of each has a verdict."""
    place = (row.key.operator, row.key.backend, row.key.family)
    known: dict[str, Verdict] = {}  # of each machine
    machines = set()
    for verdicts in ranks:
        for key, verdict in verdicts.items():
            if (key.operator, key.backend, key.family) == place:
                machines.add(key)
                if verdict is not None:
                    known.setdefault(key, verdict)
    unknown = machines - known.keys()
    if unknown or not all(place in _places(verdicts) for verdicts in ranks):
        mine = known.get(row.key)
        return replace(mine, adopted=False, reason="is not known on every rank") if mine else None
    rejected = [verdict for verdict in known.values() if not verdict.adopted]
    if rejected:
        return known[row.key] if not known[row.key].adopted else rejected[0]
    return next(iter(known.values()))


def _places(verdicts: dict) -> set[tuple[str, str, str]]:
    return {(key.operator, key.backend, key.family) for key in verdicts}
