"""Dead deliveries made pending again by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from notifyd.errors import NotFoundError, NotRetryableError, Reason, RenderError
from notifyd.flow.queues import DispatchQueue
from notifyd.metrics import Metrics
from notifyd.model import APPROVAL_KIND, Clock, Delivery, Event, State, carries_ends
from notifyd.registry.registry import Registry
from notifyd.store import Store

Render: TypeAlias = Callable[[Delivery, Event, Registry], Delivery]
"""Gives a delivery that has no message one. Raises `RenderError` or `NotRetryableError`."""


class Replays:
    """Makes dead deliveries pending again. `render` is asked for those that could not be rendered."""

    def __init__(
        self,
        *,
        store: Store,
        current: Callable[[], Registry],
        dispatch_queue: DispatchQueue,
        render: Render,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._store = store
        self._current = current
        self._dispatch_queue = dispatch_queue
        self._render = render
        self._metrics = metrics
        self._clock = clock

    async def retry(self, tenant: str, delivery_id: str) -> Delivery:
        """Make a dead delivery pending again, with its message or, where it has none, one that is rendered now.

        Raises `NotFoundError` or `NotRetryableError`, and then nothing has changed.
        """
        found = await self._store.delivery(tenant, delivery_id)
        if found is None:
            raise NotFoundError(f"no delivery {delivery_id!r}")
        revived = await self._revive(found)
        if revived is None:
            state = "dead no more" if found.state is State.DEAD else f"{found.state.value}, not dead"
            raise NotRetryableError(f"delivery {delivery_id!r} is {state}")
        self._dispatch_queue.look(revived.lane, revived.channel, tenant, 1)
        self._metrics.dead_letters.labels(revived.channel).dec()
        return revived

    async def _revive(self, dead: Delivery) -> Delivery | None:
        settings, now = self._current().settings, self._clock()
        max_age = (settings.resume if carries_ends(dead.channel) else settings.dispatch).max_age
        deadline = now + max_age
        if dead.reason is not Reason.RENDER_FAILED:
            return await self._store.revive(dead.tenant, dead.id, now, deadline)
        made = await self._rendered(dead)
        # Of two at once one writes its message, and with it the only link there is.
        revived = await self._store.revive(
            dead.tenant, dead.id, now, deadline, message=made.message, sealed=made.sealed
        )
        if revived is not None and revived.kind == APPROVAL_KIND:
            self._metrics.approvals_queued.inc()  # for the first time: it was dead from the start
        return revived

    async def _rendered(self, dead: Delivery) -> Delivery:
        event = await self._store.event(dead.tenant, dead.event_key)
        if event is None:
            raise NotRetryableError(
                f"delivery {dead.id!r} could not be rendered, and its event is not kept any more"
            )
        try:
            return self._render(dead, event, self._current())
        except RenderError as error:
            raise NotRetryableError(
                f"delivery {dead.id!r} still cannot be rendered: {error.detail}"
            ) from error
