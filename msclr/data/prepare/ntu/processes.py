"""Ranges of clips converted by several processes at once, this one among them.

A helper is a Python process of its own that reads ranges from its standard input. It imports only
what it needs, a tenth of a second, in which this process works already; and unlike those of
`multiprocessing` it neither runs the caller's script again nor inherits its threads.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable
from queue import SimpleQueue

from msclr.data.prepare.ntu.convert import Settings
from msclr.data.prepare.ntu.ranges import Range, RangeConverter, RangeReport
from msclr.data.store_arrays import StoreArrays
from msclr.errors import InputError

# A Ctrl-C reaches all processes of a terminal: the first one ends the others.
_START = """
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
sys.path[:] = {!r}
from msclr.data.prepare.ntu.processes import serve
serve()
"""
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def convert_ranges(
    ranges: Iterable[Range],
    settings: Settings,
    arrays: StoreArrays,
    processes: int,
    finished: Callable[[RangeReport], None],
) -> None:
    """Convert all ranges by so many processes; calls `finished` for each, in any order.

    Raises what `finished` or a helper raised, and leaves no helper behind.
    """
    left, done = deque(ranges), SimpleQueue()
    unfinished = len(left)
    payload = pickle.dumps((settings, arrays))
    helpers: list[_Helper] = []
    try:
        for _ in range(min(processes, len(left)) - 1):
            helpers.append(_Helper(payload, left, done))
        with RangeConverter(settings, arrays) as converter:
            while unfinished:
                clips = _next(left) if done.empty() else None
                outcome = converter.convert(clips) if clips else done.get()
                if isinstance(outcome, BaseException):
                    raise outcome
                unfinished -= 1
                finished(outcome)
    finally:
        for helper in helpers:
            helper.stop()


def _next(left: deque[Range]) -> Range | None:
    """Asking whether there is one and then taking it would be two steps; others take some too."""
    with contextlib.suppress(IndexError):
        return left.popleft()


class _Helper:
    """A helping process, and the thread here that hands it one range after the other."""

    def __init__(self, payload: bytes, left: deque[Range], done: SimpleQueue) -> None:
        self._payload, self._left, self._done = payload, left, done
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START.format(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | _ONE_THREAD,
        )
        self._thread = threading.Thread(target=self._drive, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._process.kill()
        self._thread.join()
        self._process.stdout.close()
        with contextlib.suppress(OSError):  # what it did not read any more
            self._process.stdin.close()
        self._process.wait()

    def _drive(self) -> None:
        try:
            self._process.stdin.write(self._payload)
            self._process.stdin.flush()
            if problem := pickle.load(self._process.stdout):  # waits until it is ready to work
                self._done.put(problem)
                return
            while clips := _next(self._left):
                pickle.dump(clips, self._process.stdin)
                self._process.stdin.flush()
                self._done.put(pickle.load(self._process.stdout))
        except (EOFError, OSError, pickle.UnpicklingError):
            self._done.put(
                RuntimeError(
                    f"a process that prepares clips ended with status {self._process.wait()}; "
                    "what is done is kept, run the same again to go on"
                )
            )


def serve() -> None:
    """A helper: settings, then ranges from standard input; reports to standard output."""
    with contextlib.suppress(BrokenPipeError):  # the first process was killed
        _serve()


def _serve() -> None:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nobody's stray output gets between the answers

    def answer(what) -> None:
        pickle.dump(what, answers)
        answers.flush()

    try:
        settings, arrays = pickle.load(sys.stdin.buffer)
    except (AttributeError, ImportError) as error:
        problem = f"another process cannot load the poses ({error}); define their class in a module"
        return answer(InputError(f"{problem}, or set workers=1"))
    answer(None)
    with RangeConverter(settings, arrays) as converter:
        while True:
            try:
                clips = pickle.load(sys.stdin.buffer)
            except EOFError:
                return
            try:
                answer(converter.convert(clips))
            except OSError as error:  # such as a full disk
                answer(OSError(*error.args))
            except Exception:
                answer(RuntimeError(f"preparing clips failed:\n{traceback.format_exc()}"))
