"""What an event would set off, and how a template reads: told from a configuration, nothing stored or sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from attrs import evolve, field, frozen

from notifyd.config.settings import LinkMode
from notifyd.errors import Fault, InvalidError, RenderError
from notifyd.flow.arrival import Arrival, Posted, cloud_row, member_faults, pack_row
from notifyd.flow.plan import Urls, can_decide, link_of, make_message, make_plan, mine_of, view
from notifyd.model import APPROVAL_KIND, Event, Instant, Message, PlanEntry
from notifyd.registry.registry import Registry
from notifyd.rules.rules import Explanation, Verdict
from notifyd.security.links import MINE
from notifyd.wire.codec import Document
from notifyd.wire.events import parse_cloud_event, parse_pack_event

HIDDEN_LINK: Final = "…"
"""What stands for the token in an approver's link: a real one would decide."""

HIDDEN_MINE: Final = MINE + HIDDEN_LINK

_CLIENT: Final = "preview"


@frozen
class Preview:
    """One message, and who would get it: those whom it reads the same for. `fault`: why it cannot be rendered."""

    rule: str
    channel: str
    type: str
    template: str
    locale: str
    can_decide: bool
    recipients: tuple[str, ...]  # empty: the channel's own audience
    message: Message | None
    fault: str = ""


@frozen
class Route:
    """What each rule makes of an event, in order, and the messages. `seen` is the event as rules see it."""

    seen: Mapping[str, Any] = field(repr=False)
    rules: tuple[Explanation, ...]
    previews: tuple[Preview, ...]


def read_event(document: Any, registry: Registry, tenant: str, now: Instant) -> Event:
    """The event that POSTing `document` would store; `tenant` is that of a CloudEvent which names none.

    Raises `InvalidError`. Nothing is checked that depends on the clock or on who is calling.
    """
    arrival = Arrival(_CLIENT, _CLIENT, now, registry)
    if not (isinstance(document, dict) and "specversion" in document):
        pack = parse_pack_event(document)
        if faults := list(member_faults(pack, document, registry)):
            raise InvalidError(faults)
        row = pack_row(pack, Document.of(document), arrival)
        return evolve(row, round=1, version=1) if row.kind == APPROVAL_KIND else row
    event = parse_cloud_event(document)
    named = event.tenant or tenant
    if not named:
        raise InvalidError([Fault("/tenant", "is required, or say which tenant is meant")])
    return cloud_row(Posted(event, Document.of(document), named), arrival)


def route(event: Event, registry: Registry) -> Route:
    """Match and render as the planner would."""
    seen = view(event)
    rules = registry.rules.explain(seen)
    matched = [one.rule for one in rules if one.verdict is Verdict.MATCHED]
    merged: dict[tuple[Any, ...], Preview] = {}
    for entry in make_plan(event, seen, matched, registry):
        one = _preview(event, entry, seen, registry)
        recipients = merged[_same(one)].recipients if _same(one) in merged else ()
        merged[_same(one)] = evolve(one, recipients=(*recipients, *one.recipients))
    return Route(seen, rules, tuple(merged.values()))


def _same(one: Preview) -> tuple[Any, ...]:
    """What two people's messages have in common where they read the same."""
    text = (
        (one.message.title, one.message.body, one.message.fields, one.message.actions) if one.message else ()
    )
    return one.rule, one.channel, one.template, one.locale, one.can_decide, text, one.fault


def _preview(event: Event, entry: PlanEntry, seen: Mapping[str, Any], registry: Registry) -> Preview:
    link = link_of(event, entry, seen, registry)
    message, fault = None, ""
    try:
        mine = mine_of(event, entry, registry)
        urls = Urls(
            registry.links.url(HIDDEN_LINK) if link else None,
            registry.links.url(HIDDEN_MINE) if mine else None,
        )
        message = make_message(event, entry, seen, registry, link, urls)
    except RenderError as error:
        fault = error.detail
    return Preview(
        rule=entry.rule,
        channel=entry.channel,
        type=entry.channel_type,
        template=entry.template,
        locale=entry.locale,
        can_decide=can_decide(event, seen, link, registry),
        recipients=() if entry.recipient is None else (entry.recipient,),
        message=message,
        fault=fault,
    )


def render(
    document: Any,
    registry: Registry,
    tenant: str,
    now: Instant,
    template: str,
    locale: str | None,
    zone: str,
    channel_type: str = "",
) -> Message:
    """`document` written with `template`, for a channel of that type.

    An object that is not an event is given to the template as it is.

    Raises `InvalidError`, `RenderError`.
    """
    seen, urls = _seen(document, registry, tenant, now)
    wish = seen.get("message")
    wished = wish.get("locale") if isinstance(wish, Mapping) else None
    tag = registry.templates.locale([locale, wished if isinstance(wished, str) else None], template)
    rendered = registry.templates.render(
        template,
        tag,
        event=seen,
        zone=zone,
        link=urls.link,
        mine=urls.mine,
        can_decide=True,
        channel_type=channel_type,
    )
    return rendered.message("", None, seen)


def _seen(document: Any, registry: Registry, tenant: str, now: Instant) -> tuple[Mapping[str, Any], Urls]:
    """The event as templates see it, and the links that its message has."""
    if isinstance(document, dict) and not {"type", "specversion"} & document.keys():
        return registry.redactor.tree(document), Urls()
    event = read_event(document, registry, tenant, now)
    mode = registry.settings.approvals.links if event.kind == APPROVAL_KIND else LinkMode.OFF
    return view(event), Urls(
        None if mode is LinkMode.OFF else registry.links.url(HIDDEN_LINK),
        registry.links.url(HIDDEN_MINE) if mode is LinkMode.DECIDE else None,
    )
