"""Chunks prepared by several processes at once, this one among them.

A worker is a Python process of its own that reads chunks from its standard input. It imports only
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

from msclr.data.prepare.ntu.chunks import Chunk, ChunkMaker, ChunkReport
from msclr.data.prepare.ntu.convert import Settings
from msclr.errors import InputError

# A Ctrl-C reaches all processes of a terminal: the first one ends the others.
_START = """
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
sys.path[:] = {!r}
from msclr.data.prepare.ntu.workers import serve
serve()
"""
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def make_chunks(
    chunks: Iterable[Chunk],
    settings: Settings,
    workers: int,
    finished: Callable[[ChunkReport], None],
) -> None:
    """Prepare all chunks by `workers` processes; calls `finished` for each, in any order.

    Raises what `finished` or a worker raised, and leaves no worker behind.
    """
    left, done = deque(chunks), SimpleQueue()
    unfinished = len(left)
    payload = pickle.dumps(settings)
    helpers: list[_Helper] = []
    try:
        for _ in range(min(workers, len(left)) - 1):
            helpers.append(_Helper(payload, left, done))
        with ChunkMaker(settings) as maker:
            while unfinished:
                chunk = _next(left) if done.empty() else None
                outcome = maker.make(chunk) if chunk else done.get()
                if isinstance(outcome, BaseException):
                    raise outcome
                unfinished -= 1
                finished(outcome)
    finally:
        for helper in helpers:
            helper.stop()


def _next(left: deque[Chunk]) -> Chunk | None:
    """Asking whether there is one and then taking it would be two steps; others take some too."""
    with contextlib.suppress(IndexError):
        return left.popleft()


class _Helper:
    """A worker process, and the thread here that hands it one chunk after the other."""

    def __init__(self, payload: bytes, left: deque[Chunk], done: SimpleQueue) -> None:
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
            while chunk := _next(self._left):
                pickle.dump(chunk, self._process.stdin)
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
    """A worker: settings, then chunks from standard input; reports to standard output."""
    with contextlib.suppress(BrokenPipeError):  # the first process was killed
        _serve()


def _serve() -> None:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nobody's stray output gets between the answers

    def answer(what) -> None:
        pickle.dump(what, answers)
        answers.flush()

    try:
        settings = pickle.load(sys.stdin.buffer)
    except (AttributeError, ImportError) as error:
        problem = f"another process cannot load the poses ({error}); define their class in a module"
        return answer(InputError(f"{problem}, or set workers=1"))
    answer(None)
    with ChunkMaker(settings) as maker:
        while True:
            try:
                chunk = pickle.load(sys.stdin.buffer)
            except EOFError:
                return
            try:
                answer(maker.make(chunk))
            except OSError as error:  # such as a full disk
                answer(OSError(*error.args))
            except Exception:
                answer(RuntimeError(f"preparing clips failed:\n{traceback.format_exc()}"))
