"""What makes deliveries and what sends them, as each sees the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from attrs import frozen

from notifyd.model import Delivery, Message


@frozen
class Ready:
    """A delivery with its message at hand, so that the node that made it need not read it back."""

    delivery: Delivery
    message: Message


class DispatchQueue(Protocol):
    """Where new deliveries go: the dispatcher, as its suppliers see it."""

    def lease(self, delivery: Delivery) -> Delivery:
        """`delivery` leased to this node where its lane has room in memory, else as it is."""
        ...

    def look(self, lane: str, channel: str, count: int) -> None:
        """The store has so many more deliveries of this lane that are due now."""
        ...

    def take(self, ready: Sequence[Ready]) -> None:
        """Rows that this node's insert reported as new."""
        ...
