"""What one step hands to the next: each queue named for the step behind it, as the steps before it see it."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import AbstractContextManager
from typing import Final, Protocol, TypeAlias

from attrs import frozen

from notifyd.flow.memory import Share, event_size
from notifyd.flow.waiting import Waiting
from notifyd.model import Approval, Delivery, Event, Message
from notifyd.store import Append, Appended

PLANNING_CAPACITY: Final = 4096
"""How many accepted events wait in memory for their plan. The rest waits in the store."""

TENANT_PLANNING_CAPACITY: Final = 1024
"""How many of them may belong to one tenant, so that no one fills the memory alone."""


class Admission(Protocol):
    """Whether new events may come in: the backlog, as ingest sees it."""

    def admit(self, events: Sequence[Event]) -> AbstractContextManager[list[bool]]:
        """A block in which events become durable and are offered, all or none: may each be planned from memory?

        Raises `OverloadedError` while a tenant of theirs has its share of the backlog waiting, and
        `BacklogFullError` while the backlog takes nothing from anybody.
        """
        ...


class PlanningQueue:
    """Accepted events that wait for their plan: in memory those this node leased, counted those in the store.

    Tenants take turns, so that nobody's events wait behind a flood of another's. `waiting` counts all of them.
    """

    def __init__(self, share: Share | None = None) -> None:
        self._share = share or Share()
        self._tenants: OrderedDict[str, deque[tuple[Event, int]]] = OrderedDict()  # with the size as it came
        self._held: Counter[str] = Counter()  # bytes of each tenant
        self._some = asyncio.Event()
        self._asked = False
        self.waiting = Waiting()
        self._in_memory, self._left_behind = Waiting(self.waiting), Waiting(self.waiting)

    def takes(self, event: Event) -> bool:
        """May this event be planned from memory?"""
        if not self._in_memory.total:
            return True
        own = self._in_memory.of(event.tenant)
        few = self._in_memory.total < PLANNING_CAPACITY and own < TENANT_PLANNING_CAPACITY
        return few and self._share.room - self._held[event.tenant] >= event_size(event)

    @property
    def idle(self) -> bool:
        """Does the planner wait for events, and none for it?"""
        return self._asked and not self.waiting.total

    @property
    def only_left_behind(self) -> bool:
        """Is memory empty while the store holds events that it had no room for?"""
        return self._left_behind.total > 0 and not self._in_memory.total

    def offer(self, event: Event, *, leased: bool = True) -> None:
        """Plan this accepted event soon: from memory where this node has leased it, else from the store."""
        if not event.notify:
            return
        if leased:
            size = event_size(event)
            self._tenants.setdefault(event.tenant, deque()).append((event, size))
            self._count(event.tenant, 1, size)
            self._some.set()
        else:
            self._left_behind.add(event.tenant)

    async def take(self, limit: int, size: int) -> list[Event]:
        """Up to `limit` events from memory, of about `size` bytes, of each tenant in turn; waits for one."""
        self._asked = True
        try:
            await self._some.wait()
        finally:
            self._asked = False
        batch: list[Event] = []
        taken = 0
        while self._tenants and len(batch) < limit and (taken < size or not batch):
            event, bytes_ = self._pop()
            batch.append(event)
            taken += bytes_
        if not self._tenants:
            self._some.clear()
        return batch

    def _pop(self) -> tuple[Event, int]:
        tenant, events = next(iter(self._tenants.items()))
        event, size = events.popleft()
        self._tenants.move_to_end(tenant)
        if not events:
            del self._tenants[tenant]
        self._count(tenant, -1, -size)
        return event, size

    def _count(self, tenant: str, count: int, size: int) -> None:
        self._in_memory.add(tenant, count)
        self._share.add(size)
        self._held[tenant] += size
        if not self._held[tenant]:
            del self._held[tenant]

    def caught_up(self, found: Sequence[Event]) -> None:
        """`found` were left behind and are taken up. If none are, other nodes or the sweep were quicker."""
        for event in found:
            self._left_behind.add(event.tenant, -1)
        if not found:
            self._left_behind.reset({})


class AppendQueue(Protocol):
    """Where new events go: `flow/at_once.py`, as ingest sees it."""

    async def append(self, append: Append) -> tuple[Appended, bool]:
        """Make an event durable, with its plan where nothing waits: is it planned, or still to be offered?

        Raises as `Store.append` does.
        """
        ...


class EffectQueue(Protocol):
    """Where approvals go that owe effects: `flow/effects.py`, as the steps that end approvals see it."""

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

    def look(self, lane: str, channel: str, tenant: str, count: int) -> None:
        """The store has so many more deliveries of this lane and tenant that are due now."""
        ...
