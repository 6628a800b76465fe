"""The leases of this node's deliveries: given, renewed well before they end, and asked about after a pause."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Final

from attrs import evolve

from notifyd.flow.lane import Job, Lane
from notifyd.model import SECOND, Clock, Delivery, Instant
from notifyd.registry.registry import Registry
from notifyd.store import Store

_SLOW: Final = SECOND // 4
"""After how long an attempt is shown as sending in the store."""


class Leases:
    """Every method that waits may raise `StoreError`, and is to be called again then."""

    def __init__(self, *, store: Store, current: Callable[[], Registry], clock: Clock, node: str) -> None:
        self._store = store
        self._current = current
        self._clock = clock
        self._node = node
        self._renewed = clock()

    def end(self, now: Instant) -> Instant:
        """When a lease ends that is given now."""
        return now + self._length

    def give(self, delivery: Delivery) -> Delivery:
        """A delivery that is not in the store yet, as leased to this node."""
        until = self.end(self._clock())
        return evolve(delivery, lease_owner=self._node, lease_until=until, fencing_token=1)

    async def given(self, deliveries: Sequence[Delivery]) -> frozenset[str]:
        """The ids of those that the store has with the lease that `give` gave them, which is renewed."""
        return await self._store.renew_leases(deliveries, self.end(self._clock()), sending=False)

    async def keep(self, lanes: Collection[Lane]) -> None:
        """Renew every lease well before it ends, and show slow attempts as what they are: being sent."""
        now = self._clock()
        # A clock that was set back must not stop the renewing.
        fresh = 0 <= now - self._renewed < self._length // 3
        if not fresh:
            await self.renew_queued(lanes)
        running = [job for lane in lanes for job in lane.running.values()]
        slow = [job for job in running if not fresh or (not job.shown and job.started + _SLOW < now)]
        await self.show(slow, lanes)
        if not fresh:
            self._renewed = now

    async def renew_queued(self, lanes: Collection[Lane]) -> None:
        """Renew the leases of what waits in memory. What is not held is somebody else's, and is forgotten."""
        for lane in list(lanes):
            if queued := [job.delivery for job in lane.queue]:
                until = self.end(self._clock())
                held = await self._store.renew_leases(queued, until, sending=False)
                lane.queue.renew({delivery.id for delivery in queued}, held, until)

    async def show(self, jobs: Sequence[Job], lanes: Collection[Lane]) -> None:
        """Renew the leases of attempts that are under way, and show them as being sent."""
        if jobs:
            until = self.end(self._clock())
            held = await self._store.renew_leases([job.delivery for job in jobs], until, sending=True)
            for lane in lanes:
                lane.show(held, until)

    def suffices(self, lane: Lane, job: Job, seconds: float) -> bool:
        """Does a job's lease last for an attempt of so many seconds, as far as this node can tell by itself?

        Where its renewal is overdue, it does not: a node that was paused, or cut off from the store, may have
        lost the row to another meanwhile.
        """
        # A quarter of the lease is less than what renewals that come in time leave of it.
        return lane.holds(job, self._clock() + min(int(seconds * SECOND), self._length // 4))

    @property
    def _length(self) -> int:
        lease: int = self._current().settings.dispatch.lease
        return lease
