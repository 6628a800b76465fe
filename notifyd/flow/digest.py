"""Closing windows: one digest for all that a window held, rendered and stored once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

from attrs import frozen

from notifyd import correlation
from notifyd.config.settings import Rule
from notifyd.errors import RenderError, SealError, StoreError, UndecodableRowError
from notifyd.flow.mine import asks_for_sign_in
from notifyd.flow.queues import DispatchQueue, Ready
from notifyd.flow.storm import Budgets, is_request, quiet_until
from notifyd.metrics import Metrics
from notifyd.model import APPROVAL_KIND, SECOND, Action, Clock, Delivery, Instant, Message, State
from notifyd.registry.registry import Registry
from notifyd.render.render import DIGEST_LISTED, Digest, DigestItem, Rendered, level_of
from notifyd.security.envelope import unwrap, wrap
from notifyd.security.links import MineLink
from notifyd.store import Store, Window
from notifyd.wire.codec import derived_id, rfc3339

log = logging.getLogger(__name__)

_BATCH: Final = 50
_PARTS: Final = 20
"""How many digests of requests, each of which lists all that it stands for, are made of a window at a time."""

_SETTLING: Final = SECOND
"""How long after its end a window is closed: what was planned before may be on the way to it, and is counted."""

_ACTION: Final = "digest"


class Digests:
    """Closes the windows that are due."""

    def __init__(
        self,
        *,
        store: Store,
        current: Callable[[], Registry],
        dispatch_queue: DispatchQueue,
        budgets: Budgets,
        silenced_until: Callable[[str, str], Instant | None],
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        """`silenced_until` tells when the silence ends that holds a tenant's window, by its key."""
        self._store = store
        self._current = current
        self._dispatch_queue = dispatch_queue
        self._budgets = budgets
        self._silenced_until = silenced_until
        self._metrics = metrics
        self._clock = clock

    async def sweep(self) -> int:
        """Close what is due, at most a batch of windows; answers in how many there was something to do."""
        windows = await self._store.due_windows(self._clock() - _SETTLING, _BATCH)
        return sum([await self._guarded(window) for window in windows])

    async def _guarded(self, window: Window) -> bool:
        """Close one window; one that cannot be closed now stays, and holds up none of the others."""
        try:
            return await self._close(window)
        except StoreError:
            self._budgets.forget()
            raise
        except UndecodableRowError:
            return False  # its digest was stored, and is set aside
        except Exception:
            log.exception("a window of lane %s cannot be closed", window.lane)
            return False

    async def _close(self, window: Window) -> bool:
        """False where the window has to wait, or is gone."""
        told: Sequence[Delivery] = ()
        for _ in range(_PARTS):
            rows = await self._store.window_rows(window, DIGEST_LISTED)
            if not rows or rows == told or not await self._tell(window, rows):
                break
            told = rows
            if not is_request(rows[0].kind, rows[0].action):
                break
        return bool(told)

    async def _tell(self, window: Window, rows: Sequence[Delivery]) -> bool:
        """Of the first rows of a window, or of all. False where it has to wait."""
        registry, now = self._current(), self._clock()
        rule = registry.rule(rows[0].rule)
        later = await self._not_before(window, rows[0], rule, now)
        if later is not None:
            if later != window.closes_at:
                await self._store.postpone(window, later)
            return False
        if await self._is_told(window, rows[0]):
            return True
        content = None if 1 in (window.count, len(rows)) else _content(window, rows, registry)
        ready = content.ready(registry, now) if content else None
        if content is None or ready is None:
            await self._let_go(window, rows[0])
        else:
            await self._fold(content, ready)
        await self._settle(rows[0], rule, now)
        return True

    async def _is_told(self, window: Window, first: Delivery) -> bool:
        """Fold what is left of a window into the digest that it had when its folding was broken off."""
        if is_request(first.kind, first.action):
            return False
        digest = await self._store.delivery(window.tenant, _digest_id(window, first))
        if digest is None:
            return False
        self._count_folded(window, await self._store.fold(window, digest, None))
        return True

    async def _not_before(
        self, window: Window, first: Delivery, rule: Rule | None, now: Instant
    ) -> Instant | None:
        """Until when a silence, the rule's quiet hours, or its throttle hold a digest back.

        A request waits for a silence alone.
        """
        # One that is due before its end was opened by a clock that has been set back since.
        if window.closes_at > now and (ends := self._silenced_until(window.tenant, window.key)) is not None:
            return ends
        if rule is None or is_request(first.kind, first.action):
            return None
        if rule.quiet_hours and (ends := quiet_until(rule.quiet_hours, now)) is not None:
            return ends
        if rule.throttle and first.budget is not None:
            await self._budgets.load(first.tenant, first.budget, rule.throttle, now)
            return self._budgets.full_until(first.budget, rule.throttle, now, digest=True)
        return None

    async def _settle(self, first: Delivery, rule: Rule | None, now: Instant) -> None:
        if rule is not None and rule.throttle and first.budget is not None:
            await self._budgets.load(first.tenant, first.budget, rule.throttle, now)
            self._budgets.settle(first.budget, now)

    async def _let_go(self, window: Window, first: Delivery) -> None:
        count = await self._store.let_go(window)
        self._dispatch_queue.look(window.lane, window.channel, window.tenant, count)
        self._count_queued(first, count)

    async def _fold(self, content: _Content, ready: Ready) -> None:
        async def fold(queued: Sequence[Delivery]) -> Collection[str]:
            (digest,) = queued
            self._count_folded(content.window, await self._store.fold(content.window, digest, content.ids))
            stored = await self._store.delivery(digest.tenant, digest.id)
            # Another node may have been quicker with its own: then that one is stored, and that node sends it.
            if stored is None or stored.message != digest.message:
                return ()
            self._count_queued(digest, 1)
            return (digest.id,)

        await self._dispatch_queue.enqueue([ready], fold)

    def _count_folded(self, window: Window, folded: int) -> None:
        self._metrics.deliveries.labels(window.channel, State.FOLDED.value).inc(folded)

    def _count_queued(self, one: Delivery, count: int) -> None:
        if one.kind == APPROVAL_KIND:
            self._metrics.approvals_queued.inc(count)


# --- what a digest says: pure ------------------------------------------------------------------------------


@frozen
class _Content:
    """What one digest stands for: `messages` are those it lists, and `ids` all its rows, None for the window's.

    `template` writes it, in a form that its channel can send.
    """

    window: Window
    first: Delivery
    messages: tuple[Message, ...]
    count: int
    ids: tuple[str, ...] | None
    template: str

    @property
    def id(self) -> str:
        """Of requests each digest of a window is another."""
        return _digest_id(self.window, self.first, "" if self.ids is None else self.ids[0])

    def ready(self, registry: Registry, now: Instant) -> Ready | None:
        """The digest as a delivery; None where it cannot be written in a form that its channel can send."""
        message = self.message(registry)
        if message is None:
            return None
        first = self.first
        # A digest may list links of approvals.
        text = wrap(message, registry.keyring, sealed=True)
        delivery = Delivery(
            id=self.id,
            tenant=first.tenant,
            event_key="",
            kind=first.kind,
            action=_ACTION,
            rule=first.rule,
            channel=first.channel,
            channel_type=first.channel_type,
            lane=first.lane,
            recipient=first.recipient,
            message=text,
            sealed=True,
            correlation_id=first.correlation_id,
            created_at=now,
            next_attempt_at=now,
            deadline=now + registry.settings.dispatch.max_age,
            budget=first.budget,
        )
        return Ready(delivery, message)

    def message(self, registry: Registry) -> Message | None:
        event, first = self.event(), self.first
        texts = self.texts(event, registry)
        address = first.recipient and registry.address(first.recipient, first.channel_type)
        return texts.message(self.id, address, event) if texts else None

    def event(self) -> dict[str, Any]:
        """What a channel is given for the event; its times are the window's."""
        return {
            "kind": self.first.kind,
            "action": _ACTION,
            "tenant": {"id": self.window.tenant},
            "occurredAt": rfc3339(self.window.closes_at),
            "rule": self.first.rule,
            "count": self.count,
            "items": [{"title": one.title, "link": one.link} for one in self.items],
            "correlationId": self.first.correlation_id,
        }

    @property
    def items(self) -> tuple[DigestItem, ...]:
        return tuple(
            DigestItem(one.title, one.actions[0].url if one.actions else None, one.level)
            for one in self.messages
        )

    def texts(self, event: Mapping[str, Any], registry: Registry) -> Rendered | None:
        window, first, locale = self.window, self.first, self.messages[0].locale
        asks = is_request(first.kind, first.action)
        digest = Digest(self.count, self.items, window.start, window.closes_at, first.rule, asks)
        mine = mine_in(self.messages, registry)
        person = MineLink(window.tenant, first.recipient or "", 0)
        try:
            return registry.templates.render(
                self.template,
                locale,
                event=event,
                zone=registry.zone(first.recipient),
                html=registry.takes_html(first.channel, first.channel_type),
                fields=registry.takes_fields(first.channel, first.channel_type),
                digest=digest,
                mine=mine,
                signs_in=mine is not None and asks_for_sign_in(person, registry, window.closes_at),
                media_type=registry.own_body(first.channel, first.channel_type),
                channel_type=first.channel_type,
            )
        except RenderError as error:
            with correlation.about(first.correlation_id):
                log.error("a digest of rule %s goes out without its template: %s", first.rule, error)
            if registry.own_body(first.channel, first.channel_type):
                return None  # it would be refused, and all that it stands for be lost
            # Still one message: a fault in an operator's template must not let the storm loose.
            return _plain(digest, locale)


def _content(window: Window, rows: Sequence[Delivery], registry: Registry) -> _Content | None:
    """What the next digest of a window holds; None where none of its first rows can be read, or none can be sent.

    Each request is listed with its link, so that many of them make several digests; of anything else the first
    are listed and the rest counted.
    """
    read = [(row, message) for row in rows if (message := _read(row, registry)) is not None]
    if not read:
        return None
    first, messages = read[0][0], tuple(message for _, message in read)
    template = registry.digest_template(first.rule, first.channel, first.channel_type)
    if template is None:
        log.warning(
            "rule %s: the channel %s can send no digest: each message goes", first.rule, first.channel
        )
        return None
    if is_request(first.kind, first.action):
        ids = tuple(row.id for row, _ in read)
        return _Content(window, first, messages, len(ids), ids, template)
    return _Content(window, first, messages, window.count, None, template)


def _digest_id(window: Window, first: Delivery, part: str = "") -> str:
    target = (first.rule, first.channel, first.recipient or "")
    return derived_id("digest", window.tenant, *target, window.key, window.start, part)


def _read(row: Delivery, registry: Registry) -> Message | None:
    try:
        return unwrap(row.message, registry.keyring, sealed=row.sealed)
    except SealError as error:
        with correlation.about(row.correlation_id):
            log.error("delivery %s cannot be listed in a digest: %s", row.id, error)
        return None


def mine_in(messages: Sequence[Message], registry: Registry) -> str | None:
    """The address of all that waits for the reader of `messages`, where they have one: that of the newest."""
    urls = (action.url for message in reversed(messages) for action in reversed(message.actions))
    return next(filter(registry.links.is_mine, urls), None)


def _plain(digest: Digest, locale: str) -> Rendered:
    """A digest in no language: its count, and what it lists."""
    lines = [f"- {item.title}" for item in digest.items if not item.link]
    return Rendered(
        title=f"{digest.count} × {digest.rule}",
        body="\n".join(lines),
        html=None,
        level=level_of({}, digest),
        fields=(),
        actions=tuple(Action(item.title, item.link) for item in digest.items if item.link),
        locale=locale,
    )
