"""The process in which a backend is tried, so that a crash or a hang harms nothing else.

``python -m msclr.kernels._qualify.child SPEC``: a JSON object as children.py makes it. It prints
lines that begin with MARK, each a JSON object: what is about to be tried, or a verdict.
"""

from __future__ import annotations

import json
import math
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from msclr.kernels._choice import FAMILIES
from msclr.kernels._qualify.children import MARK
from msclr.kernels._qualify.judge import Judge, NotRightError
from msclr.kernels._qualify.subjects import find
from msclr.kernels._qualify.timing import alone, time_both


def main() -> None:
    spec = json.loads(sys.argv[1])
    if hasattr(signal, "alarm"):  # ends it even inside a hanging kernel, if its parent is gone
        signal.alarm(math.ceil(spec["seconds"]) + 5)
    device = torch.device(spec["device"])
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.empty(1, device=device)  # what fails here is no backend's fault
    subject = find(spec["subject"])
    for family in spec["families"]:

        def note(at: str, family: str = family) -> None:
            _tell(family=family, at=at)

        judge = Judge(subject, spec["backend"], device, note)
        found, whole = _try(judge, family, spec["lock"])
        found |= {"error": judge.error, "allowed": judge.allowed}
        _tell(family=family, verdict=found)
        if not whole:
            return  # a GPU takes no more orders from a process in which a kernel has failed


def _try(judge: Judge, family: str, lock: str | None) -> tuple[dict, bool]:
    """What was found, and whether the process is fit to try more."""
    judge.note("its first call")
    try:
        with _products("tf32" if family == "tf32" else "ieee"):
            judge.try_family(family)
        judge.note("its time")
        with alone(lock):
            ours, theirs = _times(judge, family, judge.note)
    except NotRightError as error:
        return {"adopted": False, "reason": f"wrong: {error}"}, True
    except (torch.OutOfMemoryError, MemoryError):
        reason = "there was not enough memory to try it"
        return {"adopted": False, "reason": reason, "decided": False}, False
    except Exception as error:
        first = str(error).strip().partition("\n")[0]
        return {"adopted": False, "reason": f"failed: {type(error).__name__}: {first}"}, False
    ratio = theirs / ours
    if ratio >= 1:
        reason = f"right, {_round(ratio)} times as fast as the reference"
    else:
        reason = f"right, but slower: it takes {_round(1 / ratio)} times as long as the reference"
    times = {"seconds": ours, "reference_seconds": theirs}
    return {"adopted": ratio >= 1, "reason": reason, **times}, True


@contextmanager
def _products(precision: str) -> Iterator[None]:
    """Inside the block, PyTorch multiplies float32 so, convolutions too: they default to tf32, and
    would make an oracle for errors a thousand times as large."""
    conv = torch.backends.cudnn.conv
    before = conv.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = conv.fp32_precision = precision
    try:
        yield
    finally:  # convolutions are timed as users have them
        conv.fp32_precision = before


def _round(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio < 10 else f"{ratio:.0f}"


def _times(judge: Judge, family: str, note: Callable[[str], None]) -> tuple[float, float]:
    """Of the family's first dtype that the operator takes."""
    dtype = next(d for d in FAMILIES[family] if d in judge.subject.dtypes)
    note("its time, alone")
    return time_both(judge.subject, judge.backend, dtype, judge.device)


def _tell(**what: object) -> None:
    sys.stdout.write(f"{MARK}{json.dumps(what)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
