"""An event that comes while nothing waits is planned first, and made durable with its plan (ADR 0046)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from notifyd.errors import StoreError
from notifyd.flow.drafts import Drafts, with_leases
from notifyd.flow.queues import DispatchQueue, PlanningQueue, Ready
from notifyd.levels import Complaint
from notifyd.model import Clock, Delivery
from notifyd.registry.registry import Registry
from notifyd.store import Append, Appended, PlanFixed, Planned, Store

log = logging.getLogger(__name__)


class AtOnce:
    """The way into the store: past the planning queue where that is empty."""

    def __init__(
        self,
        *,
        store: Store,
        current: Callable[[], Registry],
        planning_queue: PlanningQueue,
        dispatch_queue: DispatchQueue,
        drafts: Drafts,
        clock: Clock,
    ) -> None:
        self._store = store
        self._current = current
        self._planning_queue = planning_queue
        self._dispatch_queue = dispatch_queue
        self._drafts = drafts
        self._clock = clock
        self._complaint = Complaint(log)
        self._under_way = 0
        self._taken = True  # until the store is known to fix no plan together with its event

    async def append(self, append: Append) -> tuple[Appended, bool]:
        """See `queues.AppendQueue`."""
        alone = not self._under_way and self._planning_queue.idle
        self._under_way += 1
        try:
            planned = await self._planned(append) if alone and self._can_be_planned(append) else None
            if planned is None:
                return await self._store.append(append), False
            return await self._append_planned(append, *planned)
        finally:
            self._under_way -= 1

    def _can_be_planned(self, append: Append) -> bool:
        """Is its plan known before it is stored? What an event does to an approval is not.

        Nor is one that would spend from a budget: it may turn out to be stored already. A plugin's function that
        never returns must find its event stored.
        """
        registry = self._current()
        known = self._taken and append.leased and append.subject is None and append.event.notify
        return known and not (registry.rules.foreign or registry.throttles)

    async def _planned(self, append: Append) -> tuple[Planned, Sequence[Ready]] | None:
        """None where it cannot be planned: that is told of once it is stored."""
        event, ready = append.advance(None).accept(append.event), dict[str, Ready]()
        try:
            planned = await self._drafts.plan(event, self._current(), self._clock(), ready)
        except Exception:  # noqa: BLE001 - whatever it is, the event is taken
            return None
        return planned, tuple(ready.values())

    async def _append_planned(
        self, append: Append, planned: Planned, ready: Sequence[Ready]
    ) -> tuple[Appended, bool]:
        done: list[tuple[Appended, PlanFixed | None]] = []

        async def insert(queued: Sequence[Delivery]) -> frozenset[str]:
            done.append(await self._store.append_planned(append, *with_leases([planned], queued)))
            fixed = done[0][1]
            return fixed.inserted if fixed else frozenset()

        await self._dispatch_queue.enqueue(ready, insert)
        ((appended, fixed),) = done
        if fixed is not None:
            await self._count([row for row in planned.deliveries if row.id in fixed.inserted])
        self._taken = fixed is not None or not appended.fresh
        return appended, fixed is not None

    async def _count(self, rows: Sequence[Delivery]) -> None:
        """Their event is durable, whatever becomes of an audit line."""
        try:
            await self._drafts.count(rows)
            self._complaint.over()
        except StoreError as error:
            self._complaint.repeat(f"planning waits for the store: {error}")
