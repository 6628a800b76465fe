"""What an event sets off by the rules it matches: the entries of its plan, and the message of each. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

import orjson
from attrs import evolve, frozen

from notifyd.config.settings import LinkMode, Proof, Rule
from notifyd.errors import NotRetryableError, Reason
from notifyd.flow.audience import (
    Reader,
    audiences,
    is_asked,
    is_override,
    is_own_request,
    is_own_vote,
    told_already,
    told_of_override,
)
from notifyd.flow.buttons import answer_ref, buttons_of
from notifyd.flow.mine import asks_for_sign_in
from notifyd.flow.queues import Ready
from notifyd.flow.timed import escalated_audience, is_timed, timed_audience
from notifyd.model import (
    APPROVAL_KIND,
    POLICY_KIND,
    Delivery,
    Event,
    Instant,
    Message,
    PlanEntry,
    State,
    Status,
)
from notifyd.registry.channels import OpenChannel
from notifyd.registry.registry import Registry
from notifyd.security.envelope import wrap
from notifyd.security.links import Link, MineLink
from notifyd.wire.codec import derived_id, parse_instant

_DEFAULT_TEMPLATES: Final = {APPROVAL_KIND: "pack-approval", POLICY_KIND: "pack-policy"}
_TELLING: Final = frozenset({"acknowledged", "updated", "expired"})
_ENDS: Final = frozenset(status.value for status in Status if status.ended)
_GENERIC_TEMPLATE: Final = "event"


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
    yield from audiences(rule, event, registry)
    yield from escalated_audience(rule, taken, event, seen, registry)


def _entry(
    event: Event,
    seen: Mapping[str, Any],
    rule: Rule,
    channel: OpenChannel,
    reader: Reader,
    registry: Registry,
) -> PlanEntry:
    wished = wishes(seen)
    asked = [wished.get("template"), rule.template]
    if channel.own_body:
        asked.reverse()  # what a sender wishes is prose, which such a receiver cannot read
    template, _ = registry.templates.choose([*asked, _DEFAULT_TEMPLATES.get(event.kind), _GENERIC_TEMPLATE])
    locale = registry.templates.locale(
        [registry.recipient(reader.name).locale, rule.locale, wished.get("locale")], template
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


def wishes(seen: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the sender asked for of the message."""
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
        fields=registry.takes_fields(entry.channel, entry.channel_type),
        media_type=registry.own_body(entry.channel, entry.channel_type),
        channel_type=entry.channel_type,
    )
    address = entry.recipient and registry.address(entry.recipient, entry.channel_type)
    return rendered.message(entry.delivery_id, address, seen, buttons_of(event, entry, seen, registry))


def _signs_in(event: Event, entry: PlanEntry, registry: Registry) -> bool:
    """Does deciding by any of the message's links take a sign-in?"""
    rule = registry.rule(entry.rule)
    if rule is None or registry.proof(rule) is not Proof.SIGN_IN:
        return False
    mine = mine_of(event, entry, registry)
    return mine is None or asks_for_sign_in(mine, registry, event.occurred_at)


def stillborn(event: Event, entry: PlanEntry, registry: Registry, now: int) -> Delivery:
    """A delivery whose message could not be rendered: dead from the start, listed with the reason."""
    row = _delivery(event, entry, "{}", False, registry, now)
    return evolve(row, state=State.DEAD, ended_at=now, reason=Reason.RENDER_FAILED)


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
