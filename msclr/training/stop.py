"""Ctrl-C and SIGTERM, noted until the running step is done."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_ECHO = 0.5  # seconds; a launcher such as torchrun hands on what its processes may have had already


class Stop:
    """``number`` of the first signal that came, 0 while none did."""

    number = 0

    def note(self, number: int, frame: object) -> None:
        self.number = self.number or number


@contextmanager
def noted_signals() -> Iterator[Stop]:
    """SIGINT and SIGTERM are only noted in this block; a second one ends the process at once.

    They are handled as before after it. Nothing changes outside the main thread, where Python
    handles no signals, and for a signal that the process was started to ignore.
    """
    stop, former = Stop(), {}
    if threading.current_thread() is threading.main_thread():
        former = {number: signal.getsignal(number) for number in _SIGNALS}
    former = {n: handler for n, handler in former.items() if handler not in (None, signal.SIG_IGN)}
    if not former:
        yield stop
        return
    with _second_ends_all(former):
        try:
            for number in former:
                signal.signal(number, stop.note)
            yield stop
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)


@contextmanager
def _second_ends_all(signals: Collection[int]) -> Iterator[None]:
    """A thread hears of signals as they come; handlers wait until an operator has returned."""
    received, sent = socket.socketpair()
    sent.setblocking(False)
    watcher = threading.Thread(target=_watch, args=(received, signals), daemon=True)
    watcher.start()
    before = signal.set_wakeup_fd(sent.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        sent.close()  # which ends the thread
        watcher.join()
        received.close()


def _watch(received: socket.socket, signals: Collection[int]) -> None:
    first = None
    while number := received.recv(1):
        if number[0] not in signals:
            continue
        now = time.monotonic()
        first = first or now
        if now - first > _ECHO:
            os._exit(128 + number[0])
