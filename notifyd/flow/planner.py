"""Accepted events in, plans and deliveries out: plan what waits in batches, and make it durable."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from attrs import evolve

from notifyd import correlation
from notifyd.errors import StoreError
from notifyd.flow.drafts import Drafts, with_leases
from notifyd.flow.plan import view
from notifyd.flow.queues import DispatchQueue, PlanningQueue, Ready
from notifyd.flow.storm import Budgets
from notifyd.levels import Complaint
from notifyd.model import Clock, Delivery, Event
from notifyd.registry.registry import Registry
from notifyd.store import PlanFixed, Planned, Store

log = logging.getLogger(__name__)

_BATCH: Final = 64
_BATCH_SIZE: Final = 1024 * 1024
"""Bytes of events that are planned at once: all are parsed, and their messages rendered, before any goes on."""
_MESSAGES: Final = 256
"""How many messages are ready before they are made durable, of the events that have been planned by then."""
_TURN: Final = 0.001
"""Seconds of planning after which requests go in between: rendering a message takes a tenth of them."""
_PAUSE: Final = 0.5
"""Seconds between tries while the store fails."""


class Planner:
    """Plans accepted events in batches: from memory as they come, from the store what was left over."""

    def __init__(
        self,
        *,
        store: Store,
        current: Callable[[], Registry],
        planning_queue: PlanningQueue,
        dispatch_queue: DispatchQueue,
        drafts: Drafts,
        budgets: Budgets,
        clock: Clock,
        node: str,
    ) -> None:
        self._store = store
        self._current = current
        self._planning_queue = planning_queue
        self._dispatch_queue = dispatch_queue
        self._drafts = drafts
        self._budgets = budgets
        self._clock = clock
        self._node = node
        self._complaint = Complaint(log)

    async def run(self) -> None:
        """Plan what is offered, and then what memory had no room for, until cancelled."""
        while True:
            if self._planning_queue.only_left_behind:
                await self._catch_up()
            else:
                await self._patiently(await self._planning_queue.take(_BATCH, _BATCH_SIZE))

    async def _catch_up(self) -> None:
        try:
            found = await self._sweep()
        except StoreError as error:
            self._complaint.repeat(f"planning waits for the store: {error}")
            await asyncio.sleep(_PAUSE)
            return
        self._planning_queue.caught_up(found)

    async def sweep(self) -> int:
        """Plan what was accepted and never planned, by a node that died or a queue that was full."""
        return len(await self._sweep())

    async def _sweep(self) -> Sequence[Event]:
        now = self._clock()
        lease = self._current().settings.dispatch.lease
        events = await self._store.claim_unplanned(self._node, now, now + lease, _BATCH, size=_BATCH_SIZE)
        if events:
            await self._patiently(events)
        return events

    async def _patiently(self, events: Sequence[Event]) -> None:
        """Plan `events` as soon as the store takes it."""
        while not await self._guarded(events):  # noqa: ASYNC110 - nothing tells when the store works again
            await asyncio.sleep(_PAUSE)

    async def _guarded(self, events: Sequence[Event]) -> bool:
        """Plan `events`; one that cannot be planned holds up none of the others. False: the store failed."""
        try:
            await self._plan(events)
            self._complaint.over()
        except StoreError as error:
            self._budgets.forget()
            self._complaint.repeat(f"planning waits for the store: {error}")
            return False
        except Exception as error:  # noqa: BLE001 - whatever it is, it holds up none of the others
            self._budgets.forget()
            if len(events) > 1:
                return all([await self._guarded([event]) for event in events])
            return await self._give_up(events[0], error)
        return True

    async def _give_up(self, event: Event, error: Exception) -> bool:
        """Leave an event to the sweeper, which tries again once its plan lease runs out."""
        try:
            first = await self._store.set_aside(event, f"cannot be planned: {type(error).__name__}")
        except StoreError:
            return False
        if first:
            with correlation.about(event.correlation_id):
                log.error("event %s cannot be planned", event.event_id, exc_info=error)
        return True

    async def _plan(self, events: Sequence[Event]) -> None:
        while events:
            events = await self._plan_some(events)

    async def _plan_some(self, events: Sequence[Event]) -> Sequence[Event]:
        """Plan the first of `events`, as many as make `_MESSAGES` messages; the others are left over."""
        registry, now = self._current(), self._clock()
        ready: dict[str, Ready] = {}
        planned = list[Planned]()
        turn = time.perf_counter()
        for event in events:
            if len(ready) >= _MESSAGES:
                break
            with correlation.about(event.correlation_id):
                planned.append(await self._drafts.plan(event, registry, now, ready))
            if time.perf_counter() - turn >= _TURN:
                await asyncio.sleep(0)
                turn = time.perf_counter()
        ends = list(zip(planned, await self._fix(planned, ready), strict=True))
        await self._drafts.count(
            [row for one, fixed in ends if fixed.won for row in one.deliveries if row.id in fixed.inserted]
        )
        lost = [(one.event, fixed.plan) for one, fixed in ends if not fixed.won]
        for event, plan in lost:
            with correlation.about(event.correlation_id):
                await self._finish(evolve(event, plan=plan), registry)
        if lost:  # it was planned before, and has spent then
            self._budgets.forget()
        return events[len(planned) :]

    async def _fix(self, planned: Sequence[Planned], ready: Mapping[str, Ready]) -> Sequence[PlanFixed]:
        fixed: list[PlanFixed] = []

        async def insert(queued: Sequence[Delivery]) -> frozenset[str]:
            fixed.extend(await self._store.fix_plans(with_leases(planned, queued)))
            return frozenset().union(*(one.inserted for one in fixed))

        await self._dispatch_queue.enqueue(tuple(ready.values()), insert)
        return fixed

    async def _finish(self, event: Event, registry: Registry) -> None:
        """Insert what an earlier life, or another node, has planned and may not have inserted."""
        ready: dict[str, Ready] = {}
        plan, now = event.plan or (), self._clock()
        rows = {
            row.id: row for row in await self._drafts.render(event, plan, view(event), registry, now, ready)
        }
        inserted: frozenset[str] = frozenset()

        async def insert(queued: Sequence[Delivery]) -> frozenset[str]:
            nonlocal inserted
            leased = rows | {row.id: row for row in queued}
            inserted = await self._store.insert_deliveries(event, tuple(leased.values()))
            return inserted

        await self._dispatch_queue.enqueue(tuple(ready.values()), insert)
        await self._drafts.count([row for row in rows.values() if row.id in inserted])
