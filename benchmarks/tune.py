"""`msclr bench --tune`: block sizes of the Triton kernels that are faster on this machine's GPU.

Usual calls of each operator, forward and backward, with each number of a rule's choice doubled and
halved. A change is kept if the call takes at most 0.95 of its time and is still right against
float64, by the measure that backends qualify with. What is kept goes to the user's table
(`kernels/_block_sizes.py`), from where every later process takes it. Sums are then added up in
another order, so nothing is tuned unasked, and checkpoints name the table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from unittest import mock

import torch

from benchmarks.gpu.operators import call_of
from benchmarks.gpu.sweep import DTYPES, SUBJECTS, Sizes, changes
from msclr import kernels
from msclr.errors import InputError
from msclr.kernels import _block_sizes
from msclr.kernels._qualify.judge import Judge, NotRightError, in_dtype
from msclr.kernels._qualify.subjects import Subject

Place = tuple[str, str]  # a kernel, and a rule's choice of its blocks
Table = dict[str, dict[str, dict[str, int]]]  # kernel -> choice -> what replaces parts of it

GAIN = 0.95  # of the time that the rules' blocks take
_ROUNDS = 21


def tune(say: Callable[[str], None]) -> Table:
    """Measure, and write the user's table; returns what was kept. InputError without a GPU."""
    if problem := kernels.backends()["triton"]:
        raise InputError(f"there is nothing to tune: Triton's kernels cannot run here, {problem}")
    device, kept = torch.device("cuda"), {}
    with rules_alone():
        for subject in SUBJECTS:
            for dtype in DTYPES:
                for kernel, found in _of(subject, dtype, device, say).items():
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


@contextmanager
def blocks(table: Table) -> Iterator[None]:
    """Within, a table goes before the rules, and there is no other."""
    with mock.patch.object(_block_sizes, "sizes", lambda: table):
        yield


def rules_alone():
    return blocks({})


def _of(subject: Subject, dtype: torch.dtype, device: torch.device, say) -> Table:
    made = subject.cases.TIMED()
    arguments = in_dtype(made, dtype, device)
    call = call_of(subject, "triton", arguments, True)
    noted = Sizes()
    with mock.patch.object(_block_sizes, "sizes", lambda: noted):
        call()

    def seconds(table: Table) -> float:
        with blocks(table):
            call()  # compiles
            return _median(call)

    def right(table: Table) -> bool:
        with blocks(table):
            try:
                Judge(subject, "triton", device).try_case("a usual call", made, dtype)
            except NotRightError:
                return False
        return True

    table = best_changes(list(noted.chosen), seconds, right)
    say(f"{subject.name} {str(dtype).removeprefix('torch.')}: {table or 'the rules are best'}")
    return table


def _median(call: Callable[[], object]) -> float:
    found = []
    for _ in range(_ROUNDS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        end.synchronize()
        found.append(start.elapsed_time(end))
    return sorted(found)[_ROUNDS // 2]
