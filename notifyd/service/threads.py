"""Threads that a plugin has left running: an interpreter that ends waits for each of them, however long."""

from __future__ import annotations

import concurrent.futures.thread
import sys
import threading
import time
from collections.abc import Callable, Collection
from typing import Final

from attrs import frozen

from notifyd.metrics import OTHER
from notifyd.registry.registry import Registry
from notifyd.service.watchdog import channel_in, place, stack_from

_POOL: Final = concurrent.futures.thread.__file__
"""Where the innermost frame of a pool's idle worker is. Such a one ends when it is asked to."""

_SHOWN: Final = 5


@frozen
class Stuck:
    """A thread that does not end: its name, the channel it works for, if that is known, and where it is."""

    name: str
    channel: str
    stack: str

    def __str__(self) -> str:
        whose = f"of channel {self.channel}" if self.channel != OTHER else "of no channel that is known"
        return f"thread {self.name}, {whose}: {self.stack}"


def still_running(
    known: Collection[threading.Thread], registry: Callable[[], Registry] | None, patience: float
) -> list[Stuck]:
    """The threads that hold up the end after `patience` seconds, other than those `known` from before."""
    until = time.monotonic() + patience
    while (stuck := _stuck(known, registry)) and time.monotonic() < until:
        time.sleep(0.01)
    return stuck


def _stuck(known: Collection[threading.Thread], registry: Callable[[], Registry] | None) -> list[Stuck]:
    frames = sys._current_frames()  # noqa: SLF001 - documented, for this use
    found = []
    for thread in threading.enumerate():
        frame = frames.get(thread.ident or 0)
        if thread.daemon or thread in known or frame is None or frame.f_code.co_filename == _POOL:
            continue
        stack = stack_from(frame)
        channel = channel_in(stack, registry()) if registry else OTHER
        found.append(Stuck(thread.name, channel, " < ".join(map(place, stack[:_SHOWN]))))
    return found
