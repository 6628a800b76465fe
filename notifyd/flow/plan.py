"""Event and registry in, deliveries out: match the rules, fix the plan, render, insert."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Final

import orjson
from attrs import evolve, frozen

from notifyd import correlation
from notifyd.config.settings import LinkMode, Proof, Rule
from notifyd.errors import NotRetryableError, Reason, RenderError, StoreError
from notifyd.flow.asking import escalations_of
from notifyd.flow.attempt import unrendered
from notifyd.flow.audience import (
    Reader,
    audience,
    is_asked,
    is_override,
    is_own_request,
    is_own_vote,
    told_already,
    told_of_override,
)
from notifyd.flow.buttons import answer_ref, buttons_of
from notifyd.flow.mine import asks_for_sign_in
from notifyd.flow.queues import DispatchQueue, PlanningQueue, Ready
from notifyd.flow.silences import Silences, silence_deferral
from notifyd.flow.storm import Budgets, Deferral, budget_key, deferral_of, is_request
from notifyd.flow.timed import escalated_audience, is_timed, timed_audience
from notifyd.levels import Complaint
from notifyd.metrics import Metrics
from notifyd.model import (
    APPROVAL_KIND,
    POLICY_KIND,
    Clock,
    Delivery,
    Event,
    Instant,
    Message,
    PlanEntry,
    State,
    Status,
)
from notifyd.registry.registry import OpenChannel, Registry
from notifyd.security.envelope import wrap
from notifyd.security.links import Link, MineLink
from notifyd.store import Append, Appended, PlanFixed, Planned, Store
from notifyd.wire.codec import derived_id, parse_instant

log = logging.getLogger(__name__)

_BATCH: Final = 64
_BATCH_SIZE: Final = 1024 * 1024
"""Bytes of events that are planned at once: all are parsed, and their messages rendered, before any goes on."""
_TURN: Final = 0.001
"""Seconds of planning after which requests go in between: rendering a message takes a tenth of them."""
_PAUSE: Final = 0.5
"""Seconds between tries while the store fails."""
_DEFAULT_TEMPLATES: Final = {APPROVAL_KIND: "pack-approval", POLICY_KIND: "pack-policy"}
_TELLING: Final = frozenset({"acknowledged", "updated", "expired"})
_ENDS: Final = frozenset(status.value for status in Status if status.ended)
_GENERIC_TEMPLATE: Final = "event"


# --- pure: what an event sets off --------------------------------------------------------------------------


def view(event: Event) -> dict[str, Any]:
    """The event as rules, templates and channels see it."""
    seen: dict[str, Any] = orjson.loads(event.body)
    return seen | {"round": event.round, "correlationId": event.correlation_id}


def make_plan(
    event: Event,
    seen: Mapping[str, Any],
    rules: Sequence[Rule],
    registry: Registry,
    taken: Collection[tuple[str, str]] = (),
) -> tuple[PlanEntry, ...]:
    """One entry for each rule, channel and recipient, in the rules' order.

    Whoever is named twice, as a person and on a list, gets one message, and as a person. People are not told
    of their own vote, nor a second time of a decision which the runner heard of at once. That the glass was broken
    is told to all who were asked, and each of them once over a channel, whichever rule it is by. A reminder or an
    escalation is its own rule's alone; whom it has asked is told by that rule from then on, as are those asked at
    first. `taken` are the escalations of the approval that were, each by the rule's name and its own.
    """
    override = is_override(event, seen)
    rules = told_of_override(seen, rules, registry) if override else rules
    if is_timed(event):
        reached = timed_audience(event, seen, registry)
    else:
        reached = _matched_audience(event, seen, rules, registry, taken)
    entries = (_entry(event, seen, *one, registry) for one in reached)
    first: dict[object, PlanEntry] = {}
    for entry in entries:
        first.setdefault((entry.channel, entry.recipient) if override else entry.delivery_id, entry)
    return tuple(first.values())


def is_end(event: Event, seen: Mapping[str, Any]) -> bool:
    """Does it tell that its approval is over?"""
    return event.kind == APPROVAL_KIND and event.action in _TELLING and seen.get("status") in _ENDS


def edits_of(
    event: Event, seen: Mapping[str, Any], copies: Sequence[Delivery], registry: Registry
) -> tuple[PlanEntry, ...]:
    """One entry for each of an approval's messages, sent or on its way, that its channel can change to the end.

    What a policy's hold was told by stays: it is another matter, with an end of its own.
    """
    entries = []
    for copy in copies:
        channel = registry.channel(copy.channel, copy.channel_type)
        there = copy.kind == APPROVAL_KIND and (copy.state.open or copy.state is State.SENT)
        if channel is not None and channel.edits and there:
            rule = registry.rule(copy.rule) or Rule(copy.rule, when="true", channels=(copy.channel,))
            reader = Reader(copy.recipient, personal=copy.recipient is not None)
            entry = _entry(event, seen, rule, channel, reader, registry)
            own = derived_id("edit", event.tenant, event.key, copy.id)
            entries.append(evolve(entry, delivery_id=own, edits=copy.id))
    return tuple(entries)


def _matched_audience(
    event: Event,
    seen: Mapping[str, Any],
    rules: Sequence[Rule],
    registry: Registry,
    taken: Collection[tuple[str, str]],
) -> Iterator[tuple[Rule, OpenChannel, Reader]]:
    told = told_already(event, seen, registry)
    for rule in rules:
        for channel, reader in _readers(rule, event, seen, registry, taken):
            news = channel.for_programs or rule not in told
            if news and not (reader.personal and is_own_vote(event, seen, reader.name, registry)):
                yield rule, channel, reader


def _readers(
    rule: Rule, event: Event, seen: Mapping[str, Any], registry: Registry, taken: Collection[tuple[str, str]]
) -> Iterator[tuple[OpenChannel, Reader]]:
    for channel in (registry.channels[name] for name in rule.channels):
        yield from ((channel, reader) for reader in audience(rule, channel, event, registry))
    yield from escalated_audience(rule, taken, event, seen, registry)


def _entry(
    event: Event,
    seen: Mapping[str, Any],
    rule: Rule,
    channel: OpenChannel,
    reader: Reader,
    registry: Registry,
) -> PlanEntry:
    wishes = _wishes(seen)
    asked = [wishes.get("template"), rule.template]
    if channel.own_body:
        asked.reverse()  # what a sender wishes is prose, which such a receiver cannot read
    template, _ = registry.templates.choose([*asked, _DEFAULT_TEMPLATES.get(event.kind), _GENERIC_TEMPLATE])
    locale = registry.templates.locale(
        [registry.recipient(reader.name).locale, rule.locale, wishes.get("locale")], template
    )
    return PlanEntry(
        delivery_id=derived_id(
            "delivery", event.tenant, event.key, rule.name, channel.name, reader.name or ""
        ),
        rule=rule.name,
        channel=channel.name,
        channel_type=channel.type,
        recipient=reader.name,
        personal=reader.personal,
        template=template,
        locale=locale,
        on_behalf_of=reader.on_behalf_of,
    )


def _wishes(seen: Mapping[str, Any]) -> Mapping[str, Any]:
    message = seen.get("message")
    return message if isinstance(message, Mapping) else {}


def link_of(event: Event, entry: PlanEntry, seen: Mapping[str, Any], registry: Registry) -> Link | None:
    """What the message's link says: it is personal for one who is asked, else it shows."""
    mode = registry.settings.approvals.links
    key = event.approval_key
    if event.kind != APPROVAL_KIND or key is None or mode is LinkMode.OFF or "planHash" not in seen:
        return None
    person = entry.recipient if entry.personal else None
    people = [name for name in (person, entry.on_behalf_of) if name is not None]
    decides = mode is LinkMode.DECIDE and person is not None and is_asked(event, seen, people, registry)
    return Link(
        tenant=key.tenant,
        run_id=key.run_id,
        approval_id=key.approval_id,
        round=event.round,
        plan_hash=seen["planHash"],
        recipient=person if decides else None,
        rule=entry.rule,
        expires_at=max(event.occurred_at + registry.settings.approvals.link_ttl, _expiry(seen)),
        on_behalf_of=entry.on_behalf_of if decides else None,
    )


def mine_of(event: Event, entry: PlanEntry, registry: Registry) -> MineLink | None:
    """The link to all that waits for the reader: in each message to a person about an approval.

    It lives for `approvals.link_ttl` only, however long the approval waits: it is a key to more than that.
    """
    approvals = registry.settings.approvals
    asks = event.kind == APPROVAL_KIND and approvals.links is LinkMode.DECIDE
    if not asks or not entry.personal or entry.recipient is None:
        return None
    return MineLink(event.tenant, entry.recipient, event.occurred_at + approvals.link_ttl)


def _expiry(seen: Mapping[str, Any]) -> Instant:
    """When the approval expires: a link to it lives as long at least."""
    expires_at = seen.get("expiresAt")
    return parse_instant(expires_at) if isinstance(expires_at, str) else 0


def can_decide(event: Event, seen: Mapping[str, Any], link: Link | None, registry: Registry) -> bool:
    """Does `link` decide? A personal one does, but for the person who asked, and their deputy."""
    if link is None or link.recipient is None:
        return False
    people = (link.recipient, link.on_behalf_of)
    return not any(is_own_request(event, seen, name, registry) for name in people)


def make_ready(
    event: Event, entry: PlanEntry, seen: Mapping[str, Any], registry: Registry, now: int
) -> Ready:
    """Render one entry. Raises `RenderError`."""
    link = link_of(event, entry, seen, registry)
    mine = mine_of(event, entry, registry)
    urls = Urls(*(registry.links.url(registry.links.seal(one)) if one else None for one in (link, mine)))
    message = make_message(event, entry, seen, registry, link, urls)
    sealed = urls != Urls()
    return Ready(
        _delivery(event, entry, wrap(message, registry.keyring, sealed=sealed), sealed, registry, now),
        message,
    )


def rendered_again(delivery: Delivery, event: Event, registry: Registry) -> Delivery:
    """`delivery`, which could not be rendered when `event` was planned, with a message by today's templates.

    What the plan has fixed stays: template, locale, recipient. A link is made as it would have been then.

    Raises `RenderError`, and `NotRetryableError` where the event's plan has no such delivery.
    """
    entry = next((one for one in event.plan or () if one.delivery_id == delivery.id), None)
    if entry is None:
        raise NotRetryableError(f"delivery {delivery.id!r} is not in the plan of its event any more")
    made = make_ready(event, entry, view(event), registry, delivery.created_at).delivery
    return evolve(delivery, message=made.message, sealed=made.sealed)


@frozen
class Urls:
    """The addresses that a message leads to: of its approval, and of all that waits for its reader."""

    link: str | None = None
    mine: str | None = None


def make_message(
    event: Event,
    entry: PlanEntry,
    seen: Mapping[str, Any],
    registry: Registry,
    link: Link | None,
    urls: Urls,
) -> Message:
    """What `entry`'s channel is given; `urls` has the address of `link`. Raises `RenderError`."""
    rendered = registry.templates.render(
        entry.template,
        entry.locale,
        event=seen,
        zone=registry.zone(entry.recipient),
        link=urls.link,
        mine=urls.mine,
        can_decide=can_decide(event, seen, link, registry),
        signs_in=_signs_in(event, entry, registry),
        own_request=is_own_request(event, seen, entry.recipient, registry),
        on_behalf_of=entry.on_behalf_of,
        html=registry.takes_html(entry.channel, entry.channel_type),
        media_type=registry.own_body(entry.channel, entry.channel_type),
        channel_type=entry.channel_type,
    )
    address = entry.recipient and registry.address(entry.recipient, entry.channel_type)
    message = rendered.message(entry.delivery_id, address, seen)
    return evolve(message, buttons=buttons_of(event, entry, seen, registry))


def _signs_in(event: Event, entry: PlanEntry, registry: Registry) -> bool:
    """Does deciding by any of the message's links take a sign-in?"""
    rule = registry.rule(entry.rule)
    if rule is None or registry.proof(rule) is not Proof.SIGN_IN:
        return False
    mine = mine_of(event, entry, registry)
    return mine is None or asks_for_sign_in(mine, registry, event.occurred_at)


def _delivery(
    event: Event, entry: PlanEntry, text: str, sealed: bool, registry: Registry, now: int
) -> Delivery:
    again = registry.comes_back_to(entry.channel, entry.channel_type)
    return Delivery(
        id=entry.delivery_id,
        tenant=event.tenant,
        event_key=event.key,
        kind=event.kind,
        action=event.action,
        rule=entry.rule,
        channel=entry.channel,
        channel_type=entry.channel_type,
        lane=entry.channel,
        recipient=entry.recipient,
        message=text,
        sealed=sealed,
        correlation_id=event.correlation_id,
        created_at=now,
        next_attempt_at=now,
        deadline=now + registry.settings.dispatch.max_age,
        run_id=event.run_id,
        approval_id=event.approval_id,
        seq=event.version,
        answer_ref=None if entry.edits or not again else answer_ref(event, entry),
        edits=entry.edits,
    )


# --- the step ----------------------------------------------------------------------------------------------


class Planner:
    """Plans accepted events in batches: from memory as they come, from the store what was left over.

    One that comes while nothing waits is planned before it is durable, and then is so with its deliveries.
    """

    def __init__(
        self,
        *,
        store: Store,
        current: Callable[[], Registry],
        planning_queue: PlanningQueue,
        dispatch_queue: DispatchQueue,
        budgets: Budgets,
        silences: Silences,
        metrics: Metrics,
        clock: Clock,
        node: str,
    ) -> None:
        self._store = store
        self._current = current
        self._planning_queue = planning_queue
        self._dispatch_queue = dispatch_queue
        self._budgets = budgets
        self._silences = silences
        self._metrics = metrics
        self._clock = clock
        self._node = node
        self._complaint = Complaint(log)
        self._resting = False
        self._appending = 0
        self._at_once = True  # until the store is known to fix no plan together with its event

    async def run(self) -> None:
        """Plan what is offered, and then what memory had no room for, until cancelled."""
        while True:
            if self._planning_queue.only_left_behind:
                await self._catch_up()
            else:
                await self._patiently(await self._next())

    async def _next(self) -> Sequence[Event]:
        self._resting = True
        try:
            return await self._planning_queue.take(_BATCH, _BATCH_SIZE)
        finally:
            self._resting = False

    async def append(self, append: Append) -> tuple[Appended, bool]:
        """See `queues.AppendQueue`."""
        at_once = not self._appending and self._nothing_waits and self._can_be_planned(append)
        self._appending += 1
        try:
            planned = await self._planned_ahead(append) if at_once else None
            if planned is None:
                return await self._store.append(append), False
            return await self._append_planned(append, *planned)
        finally:
            self._appending -= 1

    @property
    def _nothing_waits(self) -> bool:
        return self._resting and not self._planning_queue.waiting.total

    def _can_be_planned(self, append: Append) -> bool:
        """Is its plan known before it is stored? What an event does to an approval is not.

        Nor is one that would spend from a budget: it may turn out to be stored already. A plugin's function that
        never returns must find its event stored.
        """
        registry = self._current()
        known = self._at_once and append.leased and append.subject is None and append.event.notify
        return known and not (registry.rules.foreign or any(r.throttle for r in registry.settings.rules))

    async def _planned_ahead(self, append: Append) -> tuple[Planned, Sequence[Ready]] | None:
        """None where it cannot be planned: that is told of once it is stored."""
        event, ready = append.advance(None).accept(append.event), dict[str, Ready]()
        try:
            planned = await self._planned(event, self._current(), self._clock(), ready)
        except Exception:  # noqa: BLE001 - whatever it is, the event is taken
            return None
        return planned, tuple(ready.values())

    async def _append_planned(
        self, append: Append, planned: Planned, ready: Sequence[Ready]
    ) -> tuple[Appended, bool]:
        done: list[tuple[Appended, PlanFixed | None]] = []

        async def insert(queued: Sequence[Delivery]) -> frozenset[str]:
            done.append(await self._store.append_planned(append, *_with([planned], queued)))
            fixed = done[0][1]
            return fixed.inserted if fixed else frozenset()

        await self._dispatch_queue.enqueue(ready, insert)
        ((appended, fixed),) = done
        if fixed is not None:
            await self._count_patiently([row for row in planned.deliveries if row.id in fixed.inserted])
        self._at_once = fixed is not None or not appended.fresh
        return appended, fixed is not None

    async def _count_patiently(self, rows: Sequence[Delivery]) -> None:
        """Their event is durable, whatever becomes of an audit line."""
        try:
            await self._count(rows)
        except StoreError as error:
            self._complaint.repeat(f"planning waits for the store: {error}")

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
        registry, now = self._current(), self._clock()
        ready: dict[str, Ready] = {}
        planned = []
        turn = time.perf_counter()
        for event in events:
            with correlation.about(event.correlation_id):
                planned.append(await self._planned(event, registry, now, ready))
            if time.perf_counter() - turn >= _TURN:
                await asyncio.sleep(0)
                turn = time.perf_counter()
        for one, fixed in zip(planned, await self._fix(planned, ready), strict=True):
            if fixed.won:
                await self._count([row for row in one.deliveries if row.id in fixed.inserted])
            else:
                with correlation.about(one.event.correlation_id):
                    await self._finish(evolve(one.event, plan=fixed.plan), registry)

    async def _fix(self, planned: Sequence[Planned], ready: Mapping[str, Ready]) -> Sequence[PlanFixed]:
        fixed: list[PlanFixed] = []

        async def insert(queued: Sequence[Delivery]) -> frozenset[str]:
            fixed.extend(await self._store.fix_plans(_with(planned, queued)))
            return frozenset().union(*(one.inserted for one in fixed))

        await self._dispatch_queue.enqueue(tuple(ready.values()), insert)
        return fixed

    async def _planned(self, event: Event, registry: Registry, now: int, ready: dict[str, Ready]) -> Planned:
        plan = event.plan
        edited = [name for name, channel in registry.channels.items() if channel.edits]
        always = event.kind == APPROVAL_KIND and (registry.settings.approvals.breakglass_to or edited)
        if plan is None and not (always or registry.rules.concern(event.kind)):
            return Planned(event, (), ())
        seen = view(event)
        if plan is None:
            matches = registry.rules.match(seen)
            for name in matches.errors:
                self._metrics.rule_errors.labels(name).inc()
            rules = registry.settings.rules if is_override(event, seen) else matches.rules
            taken = await escalations_of(event, rules, self._store)
            plan = make_plan(event, seen, matches.rules, registry, taken)
            if edited and is_end(event, seen) and event.approval_key is not None:
                plan += edits_of(event, seen, await self._store.copies(event.approval_key), registry)
            wish = _wishes(seen).get("template")
            log.debug(
                "event %s: the rules %s make %d deliveries",
                event.event_id,
                [rule.name for rule in matches.rules],
                len(plan),
            )
            missed = sum(wish is not None and entry.template != wish for entry in plan)
            self._metrics.template_fallbacks.inc(missed)
        return Planned(event, plan, await self._render(event, plan, seen, registry, now, ready))

    async def _finish(self, event: Event, registry: Registry) -> None:
        """Insert what an earlier life, or another node, has planned and may not have inserted."""
        ready: dict[str, Ready] = {}
        plan, now = event.plan or (), self._clock()
        rows = {row.id: row for row in await self._render(event, plan, view(event), registry, now, ready)}
        inserted: frozenset[str] = frozenset()

        async def insert(queued: Sequence[Delivery]) -> frozenset[str]:
            nonlocal inserted
            leased = rows | {row.id: row for row in queued}
            inserted = await self._store.insert_deliveries(event, tuple(leased.values()))
            return inserted

        await self._dispatch_queue.enqueue(tuple(ready.values()), insert)
        await self._count([row for row in rows.values() if row.id in inserted])

    async def _render(
        self,
        event: Event,
        plan: Sequence[PlanEntry],
        seen: Mapping[str, Any],
        registry: Registry,
        now: int,
        ready: dict[str, Ready],
    ) -> tuple[Delivery, ...]:
        rows = []
        silence = None if is_override(event, seen) else self._silences.holding(event, seen)
        for entry in plan:
            try:
                made = make_ready(event, entry, seen, registry, now)
            except RenderError as error:
                log.error("delivery %s cannot be rendered: %s", entry.delivery_id, error)
                rows.append(_stillborn(event, entry, registry, now))
                continue
            if silence is not None:
                row = _held(made.delivery, silence_deferral(silence, entry, event), registry)
            else:
                row = await self._deferred(made.delivery, entry, event, seen, registry)
            if row.window is None:
                ready[row.id] = Ready(row, made.message)
            rows.append(row)
        return tuple(rows)

    async def _deferred(
        self, row: Delivery, entry: PlanEntry, event: Event, seen: Mapping[str, Any], registry: Registry
    ) -> Delivery:
        """`row` as it is, or deferred to the end of a window where its rule's storm control says so."""
        rule, now = registry.rule(entry.rule), row.created_at
        if rule is None or entry.edits or is_override(event, seen) or is_timed(event):
            return row
        throttled = rule.throttle if not is_request(event.kind, event.action) else None
        if throttled:
            row = evolve(row, budget=budget_key(event.tenant, entry))
            await self._budgets.load(event.tenant, row.budget or "", throttled, now)
        deferral = deferral_of(rule, entry, event, seen, self._budgets, now)
        if deferral is not None:
            return _held(row, deferral, registry)
        if row.budget is not None:
            self._budgets.spend(row.budget, now)
        return row

    async def _count(self, new: Sequence[Delivery]) -> None:
        # What is deferred is queued when its window closes: as itself, or as a part of its digest.
        queued = (row for row in new if not row.edits and row.window is None and row.state is State.PENDING)
        self._metrics.approvals_queued.inc(sum(row.kind == APPROVAL_KIND for row in queued))
        await self._tell_of_dead([row for row in new if row.state is State.DEAD])

    async def _tell_of_dead(self, rows: Sequence[Delivery]) -> None:
        for row in rows:
            self._metrics.deliveries.labels(row.channel, row.state.value).inc()
            self._metrics.dead_letters.labels(row.channel).inc()
        if rows:
            await self._store.write_audit([unrendered(row, row.created_at) for row in rows])


def _held(row: Delivery, deferral: Deferral, registry: Registry) -> Delivery:
    """`row`, held in a window. Holding back takes none of its time."""
    until = deferral.closes_at
    return evolve(
        row,
        window=deferral.key,
        window_start=row.created_at,
        next_attempt_at=until,
        deadline=until + registry.settings.dispatch.max_age,
    )


def _with(planned: Sequence[Planned], queued: Sequence[Delivery]) -> list[Planned]:
    """`planned`, its deliveries leased as they are in `queued`."""
    leased = {row.id: row for row in queued}
    return [
        evolve(one, deliveries=tuple(leased.get(row.id, row) for row in one.deliveries))
        if one.deliveries
        else one
        for one in planned
    ]


def _stillborn(event: Event, entry: PlanEntry, registry: Registry, now: int) -> Delivery:
    """A delivery whose message could not be rendered: dead from the start, listed with the reason."""
    row = _delivery(event, entry, "{}", False, registry, now)
    return evolve(row, state=State.DEAD, ended_at=now, reason=Reason.RENDER_FAILED)
