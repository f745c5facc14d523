"""Ctrl-C and SIGTERM, noted until the running step is done."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_ECHO = 0.5  # seconds; a launcher such as torchrun hands on what its processes may have had already


class Stop:
    """``number`` of the signal that came, 0 while none did."""

    def __init__(self) -> None:
        self.number = 0
        self._since = 0.0

    def note(self, number: int, frame: FrameType | None) -> None:
        """A signal handler: the first signal is noted, a second one ends the process at once."""
        now = time.monotonic()
        if not self.number:
            self.number, self._since = number, now
        elif now - self._since > _ECHO:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)


@contextmanager
def noted_signals() -> Iterator[Stop]:
    """SIGINT and SIGTERM are only noted in this block, and handled as before after it.

    Nothing changes outside the main thread, where Python handles no signals, and for a signal that
    the process was started to ignore.
    """
    stop, former = Stop(), {}
    if threading.current_thread() is threading.main_thread():
        former = {number: signal.getsignal(number) for number in _SIGNALS}
    former = {n: handler for n, handler in former.items() if handler not in (None, signal.SIG_IGN)}
    try:
        for number in former:
            signal.signal(number, stop.note)
        yield stop
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
