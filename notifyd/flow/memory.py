"""What this node holds of events and deliveries, in bytes, against `dispatch.memory`.

A text counts as what it takes: Python holds a character in one, two or four bytes, which `sys.getsizeof` tells.
The records around it are small and counted by a constant, a little above what tracemalloc measures.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final

from attrs import define, field

from notifyd.model import Delivery, Event

RECORD: Final = 1024
"""Bytes of a record beside its text, with what queues it: 500 measured for a delivery, 700 for an event."""

ATTEMPT: Final = 1024
"""Bytes of an attempt that a delivery carries: its excerpt has 500 characters at most."""

PARSED: Final = 8
"""Times its text that a message takes once it is parsed: 3 to 9 measured over events as they come."""

KEPT: Final = 8192
"""The longest text whose parsed message may wait beside it. For a longer one, reading it back costs less than
holding it: a hostile tree of empty arrays takes 20 times its text."""


def text_size(text: str) -> int:
    """With the UTF-8 that Python keeps beside a text that is not ASCII, once a store's driver has asked for it.

    Of one that is mostly ASCII that copy has one byte a character, of Chinese three.
    """
    return sys.getsizeof(text) + (0 if text.isascii() else 2 * len(text))


def event_size(event: Event) -> int:
    return RECORD + text_size(event.body)


def delivery_size(delivery: Delivery, *, parsed: bool) -> int:
    """Of a delivery with its text and, if `parsed`, its message."""
    text = delivery.message
    kept = PARSED * len(text) if parsed else 0
    return RECORD + text_size(text) + ATTEMPT * len(delivery.attempts) + kept


def unlimited() -> int:
    return sys.maxsize


@define(eq=False)
class Memory:
    """All that the queues of a node hold. `limit` is asked each time, so that a reload changes it."""

    limit: Callable[[], int] = unlimited
    used: int = 0

    @property
    def excess(self) -> int:
        """Bytes held above the limit, as after a reload that has lowered it."""
        return max(0, self.used - self.limit())

    @property
    def ample(self) -> bool:
        """Is so little held that messages may wait parsed? Their size is an estimate, so for a quarter only."""
        return self.used < self.limit() // 4


@define(eq=False)
class Share:
    """What one queue holds of it."""

    memory: Memory = field(factory=Memory)
    held: int = 0

    def add(self, size: int) -> None:
        self.held += size
        self.memory.used += size

    @property
    def room(self) -> int:
        """Bytes that this queue may take in; below zero where it has too much.

        A queue may hold as much as it leaves free for others, so that one that stands still never takes all:
        dynamic thresholds (Choudhury and Hahne, https://doi.org/10.1109/90.664262).
        """
        return self.memory.limit() - self.memory.used - self.held
