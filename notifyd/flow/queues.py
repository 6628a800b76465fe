"""What one step hands to the next: each queue named for the step behind it, as the steps before it see it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Final, Protocol, TypeAlias

from attrs import frozen

from notifyd.flow.memory import Share, event_size
from notifyd.model import Approval, Delivery, Event, Message

PLANNING_CAPACITY: Final = 4096
"""How many accepted events wait in memory for their plan. The rest waits in the store."""


class Admission(Protocol):
    """Whether a new event may come in: the backlog, as ingest sees it."""

    def admit(self, event: Event) -> bool:
        """May the event be planned from memory? Raises `OverloadedError` while the backlog is full."""
        ...


class PlanningQueue:
    """Accepted events that wait for their plan: in memory those this node leased, counted those in the store."""

    def __init__(self, share: Share | None = None) -> None:
        self._share = share or Share()
        self._events: asyncio.Queue[tuple[Event, int]] = asyncio.Queue()
        self._left_behind = 0

    @property
    def waiting(self) -> int:
        """How many accepted events this node has yet to plan, in memory or not."""
        return self._events.qsize() + self._left_behind

    def takes(self, event: Event) -> bool:
        """May this event be planned from memory?"""
        if self._events.empty():
            return True
        return self._events.qsize() < PLANNING_CAPACITY and self._share.room >= event_size(event)

    @property
    def only_left_behind(self) -> bool:
        """Is memory empty while the store holds events that it had no room for?"""
        return self._left_behind > 0 and self._events.empty()

    def offer(self, event: Event, *, leased: bool = True) -> None:
        """Plan this accepted event soon: from memory where this node has leased it, else from the store."""
        if not event.notify:
            return
        if leased:
            size = event_size(event)
            self._share.add(size)
            self._events.put_nowait((event, size))
        else:
            self._left_behind += 1

    async def take(self, limit: int, size: int) -> list[Event]:
        """Up to `limit` events from memory, of about `size` bytes, the first come first; waits for one."""
        first, taken = await self._events.get()
        batch = [first]
        while len(batch) < limit and taken < size and not self._events.empty():
            event, more = self._events.get_nowait()
            batch.append(event)
            taken += more
        self._share.add(-taken)
        return batch

    def caught_up(self, found: int) -> None:
        """`found` events left behind were taken up. None found: other nodes or the sweep were quicker."""
        self._left_behind = max(0, self._left_behind - found) if found else 0


class EffectQueue(Protocol):
    """Where approvals go that owe effects: `flow/resume.py`, as the steps that end approvals see it."""

    def offer(self, approval: Approval) -> None:
        """Settle soon what this approval owes."""
        ...


@frozen
class Ready:
    """A delivery with its message at hand, so that the node that made it need not read it back."""

    delivery: Delivery
    message: Message


Insert: TypeAlias = Callable[[Sequence[Delivery]], Awaitable[Collection[str]]]
"""Makes deliveries durable, leased or not as each says; answers the ids of those that were not stored before."""


class DispatchQueue(Protocol):
    """Where new deliveries go: the dispatcher, as the steps that make deliveries see it."""

    async def enqueue(self, ready: Sequence[Ready], insert: Insert) -> None:
        """Make deliveries durable by `insert`, and dispatch those that are new.

        What has room in memory is leased to this node before it is inserted, and sent from memory afterwards;
        the rest is claimed from the store when its turn comes. Raises what `insert` raises; then nothing is
        dispatched.
        """
        ...

    def look(self, lane: str, channel: str, count: int) -> None:
        """The store has so many more deliveries of this lane that are due now."""
        ...
