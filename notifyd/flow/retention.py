"""What age removes: batch by batch, small enough that nobody else has to wait for long."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, aclosing
from typing import Final

from attrs import frozen

from notifyd.config.settings import Settings
from notifyd.config.units import HOUR, MINUTE
from notifyd.errors import JobTakenError
from notifyd.flow.chains import Chains
from notifyd.flow.jobs import JobLease
from notifyd.metrics import Metrics
from notifyd.model import Clock, Instant
from notifyd.store import Aged, CollectionName, Job, LegalHold, Place, Store

log = logging.getLogger(__name__)

_BATCH: Final = 50
_LARGEST: Final = 500
TARGET: Final = 0.01
"""Seconds for which a batch should keep other writes waiting, well below the 50 ms that it may."""

_FIRST: Final = Place(CollectionName.EVENTS)

REST: Final = 50 * MINUTE
"""For how long after a pass no other node of the service need do the next (microseconds)."""


@frozen
class Batch:
    """How many rows of a collection a batch removed, or would have. `next` is None at the end of all."""

    collection: CollectionName
    removed: int
    next: Place | None


def bounds(settings: Settings, now: Instant) -> Mapping[CollectionName, Instant]:
    """Before when what is over may go.

    An event must not go while it would be accepted if it came again: `occurredAt` may be as old as
    `retention.events`, by a clock that may differ by the tolerance. Nor may an approval or a hold go while an
    event from before its end would be accepted, which would open it anew. The bound of the audit trail moves
    by whole hours: each is noted in the chains over it.
    """
    keep = settings.retention
    events = now - keep.events - settings.auth.clock_tolerance
    return {
        CollectionName.EVENTS: events,
        CollectionName.APPROVALS: min(now - keep.approvals, events),
        CollectionName.INCIDENTS: min(now - keep.incidents, events),
        CollectionName.DELIVERIES: now - keep.deliveries,
        CollectionName.AUDIT: (now - keep.audit) // HOUR * HOUR,
    }


def next_size(size: int, seconds: float) -> int:
    """How many rows the next batch may take, after one of `size` that took so long."""
    fitting = size * TARGET / seconds if seconds else size * 2
    return max(1, min(round(fitting), size * 2, _LARGEST))


class Retention:
    """Removes what is older than the configuration keeps; counts and logs it.

    Of the nodes that share a store one at a time does: each pass holds a lease.
    """

    def __init__(
        self, *, store: Store, settings: Callable[[], Settings], metrics: Metrics, clock: Clock
    ) -> None:
        self._store = store
        self._settings = settings
        self._metrics = metrics
        self._clock = clock
        self._size = _BATCH
        self._chains = Chains(store=store, settings=settings, clock=clock)
        self._allowed: Instant = 0
        self._turn = asyncio.Lock()  # a pass by hand and one by the clock take turns
        self._lease = JobLease(Job.RETENTION, store, lambda: settings().dispatch.lease, clock)
        for collection in CollectionName:
            metrics.purged.labels(collection.value)

    async def sweep(self) -> int:
        """One pass over all there is, unless another node does it, or a node has done it within `REST`.

        Answers how many rows it removed. Raises `StoreError`.
        """
        removed = dict.fromkeys(CollectionName, 0)
        try:
            async with self._lease.held(rest=REST), aclosing(self._pass(_FIRST, dry_run=False)) as batches:
                async for batch in batches:
                    removed[batch.collection] += batch.removed
                await self._store.forget_deputies(self._clock() - self._settings().retention.audit)
                self._lease.note_done()
        except JobTakenError as error:
            log.debug("%s", error)
            await self._count_dead_letters()  # another node may have removed some
        total = sum(removed.values())
        if total:
            log.info("removed by age: %s", ", ".join(f"{name} {count}" for name, count in removed.items()))
        return total

    async def batches(
        self, place: Place | None = None, *, dry_run: bool = False
    ) -> AsyncGenerator[Batch, None]:
        """A pass from `place` on, for as long as batches are asked for. Raises `StoreError`.

        After each batch it rests for longer than that has kept others waiting. Raises ValueError for a place
        that no batch has named, and `JobTakenError`, with the node that has the job, except for a dry run.
        """
        async with AsyncExitStack() as stack:
            if not dry_run:
                await stack.enter_async_context(self._lease.held())
            batches = await stack.enter_async_context(aclosing(self._pass(place or _FIRST, dry_run=dry_run)))
            async for batch in batches:
                yield batch

    async def _pass(self, place: Place, *, dry_run: bool) -> AsyncGenerator[Batch, None]:
        at: Place | None = place
        while at is not None:
            async with self._turn:
                if not dry_run:
                    await self._lease.keep()
                batch, seconds = await self._batch(at, dry_run)
            yield batch
            at = batch.next
            await asyncio.sleep(2 * seconds)

    async def _batch(self, at: Place, dry_run: bool) -> tuple[Batch, float]:
        settings, size = self._settings(), _LARGEST if dry_run else self._size
        before = bounds(settings, self._clock())[at.collection]
        if at.collection is CollectionName.AUDIT and not dry_run:
            await self._allow(before)
        aged = Aged(at.collection, before, LegalHold.parse(settings.retention.hold_label))
        done = await self._store.purge(aged, size, at.after, dry_run=dry_run)
        if done.removed and not dry_run:
            self._size = next_size(done.examined, done.seconds)
            self._metrics.purged.labels(at.collection.value).inc(done.removed)
        if at.collection is CollectionName.DELIVERIES and done.after is None and not dry_run:
            await self._count_dead_letters()
        return Batch(at.collection, done.removed, at.next(done.after, list(CollectionName))), done.seconds

    async def _allow(self, before: Instant) -> None:
        """Have the chains over the audit trail say what may be gone, once for all batches with one bound."""
        if before > self._allowed:
            await self._chains.allow_purge(before)
            self._allowed = before

    async def _count_dead_letters(self) -> None:
        self._metrics.set_dead_letters(await self._store.dead_letters())
