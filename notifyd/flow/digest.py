"""Closing windows: one digest for all that a window held, rendered and stored once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

from attrs import evolve

from notifyd.codec import derived_id, rfc3339
from notifyd.envelope import unwrap, wrap
from notifyd.errors import RenderError, SealError
from notifyd.flow.storm import Budgets, is_request, quiet_until
from notifyd.model import Clock, Delivery, Instant, Message
from notifyd.outbox import Outbox, Ready
from notifyd.registry import Registry
from notifyd.render import DIGEST_LISTED, Digest, DigestItem
from notifyd.settings import Rule
from notifyd.store import Store, Window

log = logging.getLogger(__name__)

_BATCH: Final = 50
_TEMPLATE: Final = "digest"


class Digests:
    """Closes the windows that are due."""

    def __init__(
        self, *, store: Store, current: Callable[[], Registry], outbox: Outbox, budgets: Budgets, clock: Clock
    ) -> None:
        self._store = store
        self._current = current
        self._outbox = outbox
        self._budgets = budgets
        self._clock = clock

    async def sweep(self) -> int:
        """Close what is due, at most a batch of windows; answers how many were looked at."""
        windows = await self._store.due_windows(self._clock(), _BATCH)
        for window in windows:
            try:
                await self._close(window)
            except (RenderError, SealError) as error:
                # What cannot be told together is told one by one: held, never dropped.
                log.error("the digest of lane %s cannot be made: %s", window.lane, error)
                await self._let_go(window)
        return len(windows)

    async def _close(self, window: Window) -> None:
        rows = await self._store.window_rows(window, DIGEST_LISTED)
        if not rows:
            return
        first, registry, now = rows[0], self._current(), self._clock()
        rule = registry.rule(first.rule)
        later = await self._not_before(first, rule, now)
        if later is not None:
            await self._store.postpone(window, later)
        elif window.count == 1:
            await self._let_go(window)
        else:
            await self._fold(window, rows, rule, registry, now)

    async def _not_before(self, first: Delivery, rule: Rule | None, now: Instant) -> Instant | None:
        """Until when the rule's quiet hours, or its throttle, hold a digest back. A request waits for neither."""
        if rule is None or is_request(first.kind, first.action):
            return None
        if rule.quiet_hours and (ends := quiet_until(rule.quiet_hours, now)) is not None:
            return ends
        if rule.throttle and first.budget is not None:
            await self._budgets.load(first.tenant, first.budget, rule.throttle, now)
            return self._budgets.full_until(first.budget, rule.throttle, now)
        return None

    async def _fold(
        self, window: Window, rows: Sequence[Delivery], rule: Rule | None, registry: Registry, now: Instant
    ) -> None:
        requests = is_request(rows[0].kind, rows[0].action)
        # Each request is listed with its link, so that many of them make several digests; of anything else
        # the first are listed and the rest counted.
        ids = [row.id for row in rows] if requests else None
        count = len(rows) if requests else window.count
        messages = [unwrap(row.message, registry.keyring, sealed=row.sealed) for row in rows]
        ready = _digest(window, rows, messages, count, registry, now)
        ready = evolve(ready, delivery=self._outbox.lease(ready.delivery))
        folded = await self._store.fold(window, ready.delivery, ids)
        if not folded:
            return
        if rule is not None and rule.throttle and ready.delivery.budget is not None:
            await self._budgets.load(window.tenant, ready.delivery.budget, rule.throttle, now)
            self._budgets.spend(ready.delivery.budget, now)
        self._outbox.take([ready])

    async def _let_go(self, window: Window) -> None:
        await self._store.let_go(window)
        self._outbox.look(window.lane, window.channel, window.count)


def _digest(
    window: Window,
    rows: Sequence[Delivery],
    messages: Sequence[Message],
    count: int,
    registry: Registry,
    now: Instant,
) -> Ready:
    """The digest of `count` rows, of which `rows` are listed. Raises `RenderError`."""
    first, locale = rows[0], messages[0].locale
    part = first.id if is_request(first.kind, first.action) else ""
    digest_id = derived_id(
        "digest",
        window.tenant,
        first.rule,
        first.channel,
        first.recipient or "",
        window.key,
        window.start,
        part,
    )
    items = tuple(DigestItem(m.title, m.actions[0].url if m.actions else None, m.level) for m in messages)
    known = registry.settings.recipients.get(first.recipient or "")
    event: dict[str, Any] = {
        "kind": first.kind,
        "action": "digest",
        "tenant": {"id": window.tenant},
        "occurredAt": rfc3339(window.closes_at),
        "rule": first.rule,
        "count": count,
        "items": [{"title": one.title, "link": one.link} for one in items],
        "correlationId": first.correlation_id,
    }
    rendered = registry.templates.render(
        _TEMPLATE,
        locale,
        event=event,
        zone=(known.zone if known else None) or "UTC",
        html=True,
        digest=Digest(count, items, window.start, window.closes_at, first.rule),
    )
    message = Message(
        id=digest_id,
        title=rendered.title,
        body=rendered.body,
        level=rendered.level,
        fields=rendered.fields,
        actions=rendered.actions,
        locale=rendered.locale,
        html=rendered.html,
        recipient=first.recipient,
        event=event,
    )
    delivery = Delivery(
        id=digest_id,
        tenant=window.tenant,
        event_key="",
        kind=first.kind,
        action="digest",
        rule=first.rule,
        channel=first.channel,
        channel_type=first.channel_type,
        lane=first.lane,
        recipient=first.recipient,
        message=wrap(message, registry.keyring, sealed=True),
        sealed=True,
        correlation_id=first.correlation_id,
        created_at=now,
        next_attempt_at=now,
        deadline=now + registry.settings.dispatch.max_age,
        budget=first.budget,
    )
    return Ready(delivery, message)
