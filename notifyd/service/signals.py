"""Signals, heard on a thread: the event loop may be stuck in a plugin, and a stop has to end in its time even so.

Python runs a handler on the main thread, between two of its steps, and so does the loop's own. But the number of a
signal is written into a pipe the moment that it comes (https://docs.python.org/3/library/signal.html#signal.set_wakeup_fd).
"""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def signals_heard(
    numbers: Iterable[signal.Signals], heard: Callable[[signal.Signals], None]
) -> Iterator[None]:
    """Call `heard` for each of these signals, on a thread, until the block is left; afterwards they do nothing.

    Entered on the main thread, inside the loop's run: a loop takes the pipe for itself when it begins.
    """
    known = frozenset(numbers)
    inward, outward = socket.socketpair()
    outward.setblocking(False)

    def listen() -> None:
        while received := inward.recv(64):
            for number in received:
                if number in known:
                    heard(signal.Signals(number))

    thread = threading.Thread(target=listen, name="signals", daemon=True)
    before = signal.set_wakeup_fd(outward.fileno(), warn_on_full_buffer=False)
    for number in known:
        signal.signal(number, _nothing)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        outward.close()
        thread.join()
        inward.close()


def _nothing(number: int, frame: FrameType | None) -> None:
    """So that the signal ends nothing: the thread sees to it."""
