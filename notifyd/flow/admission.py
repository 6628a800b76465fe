"""Who may bring more while much is waiting: each tenant has a share, so that one who floods shuts nobody out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final

from notifyd.errors import BacklogFullError, OverloadedError
from notifyd.flow.queues import PlanningQueue
from notifyd.flow.waiting import Waiting
from notifyd.model import Event
from notifyd.registry.registry import Registry

log = logging.getLogger(__name__)

HARD_LIMIT: Final = 2
"""How many times `max_backlog` waits at most, over all tenants."""


class _Coming:
    """Events that are let in, and wait until they are durable. No generator, since each request has one."""

    def __init__(self, events: Sequence[Event], coming: Waiting, planning_queue: PlanningQueue) -> None:
        self._events = events
        self._coming = coming
        self._planning_queue = planning_queue

    def __enter__(self) -> list[bool]:
        leased: list[bool] = []
        for event in self._events:
            self._coming.add(event.tenant)
            leased.append(self._planning_queue.takes(event))
        return leased

    def __exit__(self, *_: object) -> None:
        for event in self._events:
            self._coming.add(event.tenant, -1)


class SharedBacklog:
    """See `queues.Admission`. What waits are open deliveries, events to plan, and those that are being accepted.

    Below `max_backlog` everybody is let in. From there on only tenants that have less waiting than an equal share
    of it, among those who have anything waiting; at `HARD_LIMIT` times as much nobody is. `seconds_for` says how
    long so many deliveries take to go out.
    """

    def __init__(
        self,
        *,
        current: Callable[[], Registry],
        planning_queue: PlanningQueue,
        deliveries: Waiting,
        seconds_for: Callable[[float], float],
    ) -> None:
        self._current = current
        self._planning_queue = planning_queue
        self._coming = Waiting()  # let in, and not durable yet
        self._waiting = (deliveries, planning_queue.waiting, self._coming)
        self._seconds_for = seconds_for
        self._refused: set[str] = set()

    def admit(self, events: Sequence[Event]) -> _Coming:
        limit = self._current().settings.dispatch.max_backlog
        deliveries, planning, coming = self._waiting
        waiting = deliveries.total + planning.total + coming.total
        if waiting >= limit:
            for tenant in {event.tenant for event in events}:
                self._check_share(tenant, waiting, limit)
        if self._refused:
            self._refused.difference_update(event.tenant for event in events)
        return _Coming(events, coming, self._planning_queue)

    def _check_share(self, tenant: str, waiting: int, limit: int) -> None:
        share = limit / len(frozenset({tenant}).union(*(one.tenants() for one in self._waiting)))
        own = sum(one.of(tenant) for one in self._waiting)
        if own >= share:
            # There is room again once a tenth of what is full has gone: of the share, or of the whole.
            excess = min(own - 0.9 * share, waiting - 0.9 * limit)
            self._tell(tenant, own)
            raise OverloadedError(
                f"{own} events and deliveries of this tenant are waiting",
                retry_after=self._seconds_for(excess),
            )
        if waiting >= HARD_LIMIT * limit:
            self._tell(tenant, own)
            excess = waiting - (HARD_LIMIT - 0.1) * limit
            raise BacklogFullError(
                f"{waiting} events and deliveries are waiting", retry_after=self._seconds_for(excess)
            )

    def _tell(self, tenant: str, own: int) -> None:
        """Log once that a tenant is refused, until it is let in again."""
        if tenant not in self._refused:
            self._refused.add(tenant)
            log.warning(
                "the backlog is full: events of tenant %s, which has %d waiting, are refused", tenant, own
            )
