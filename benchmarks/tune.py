"""`msclr bench --tune`: block sizes of the Triton kernels that are faster on this machine's GPU.

Usual calls of each operator, forward and backward, with each number of a rule's choice doubled and
halved. A change is kept if the call takes at most 0.95 of its time and is still right against
float64, by the measure that backends qualify with. What is kept goes to the user's table
(`kernels/_block_sizes.py`), from where every later process takes it. Sums are then added up in
another order, so nothing is tuned unasked, and checkpoints name the table.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import torch

from benchmarks.gpu.lab import Lab
from benchmarks.gpu.operators import call_of
from benchmarks.gpu.sweep import DTYPES, SUBJECTS, Sizes, changes, using
from msclr import kernels
from msclr.errors import InputError
from msclr.kernels import _block_sizes
from msclr.kernels._qualify.judge import Judge, NotRightError, in_dtype
from msclr.kernels._qualify.subjects import Subject

Place = tuple[str, str]  # a kernel, and a rule's choice of its blocks
Table = dict[str, dict[str, dict[str, int]]]  # kernel -> choice -> what replaces parts of it

GAIN = 0.95  # of the time that the rules' blocks take


def tune(say: Callable[[str], None]) -> Table:
    """Measure, and write the user's table; returns what was kept. InputError without a GPU."""
    if problem := kernels.backends()["triton"]:
        raise InputError(f"there is nothing to tune: Triton's kernels cannot run here, {problem}")
    lab, kept = Lab("tune", Path(os.devnull), dry=False), {}
    with using({}):
        for subject in SUBJECTS:
            for dtype in DTYPES:
                for kernel, found in _of(subject, dtype, lab, say).items():
                    kept.setdefault(kernel, {}).update(found)
    path = _block_sizes.save_own(kept)
    say(f"{sum(map(len, kept.values()))} choices of blocks replaced; written to {path}")
    return kept


def best_changes(
    places: Iterable[Place], seconds: Callable[[Table], float], right: Callable[[Table], bool]
) -> Table:
    """The table of the fastest right change at each place, if all together are faster as well.

    Args:
        seconds: of the call with a table's blocks; it raises where they cannot run.
        right: whether its numbers are right with them.
    """
    limit, table = GAIN * seconds({}), {}
    for kernel, choice in places:
        timed = []
        for change in changes(choice):
            try:
                timed.append((seconds({kernel: {choice: change}}), change))
            except Exception:  # more shared memory than there is, or whatever Triton refuses
                continue
        for took, change in sorted(timed, key=lambda pair: pair[0]):
            if took > limit:
                break
            if right({kernel: {choice: change}}):
                table.setdefault(kernel, {})[choice] = change
                break
    return table if table and seconds(table) <= limit and right(table) else {}


def _of(subject: Subject, dtype: torch.dtype, lab: Lab, say) -> Table:
    made = subject.cases.TIMED()
    arguments = in_dtype(made, dtype, lab.device)
    call = call_of(subject, "triton", arguments, True)
    noted = Sizes()
    with using(noted):
        call()

    def seconds(table: Table) -> float:
        with using(table):
            call()  # compiles
            return lab.seconds(call)[1]

    def right(table: Table) -> bool:
        with using(table):
            try:
                Judge(subject, "triton", lab.device).try_case("a usual call", made, dtype)
            except NotRightError:
                return False
        return True

    table = best_changes(list(noted.chosen), seconds, right)
    say(f"{subject.name} {str(dtype).removeprefix('torch.')}: {table or 'the rules are best'}")
    return table
