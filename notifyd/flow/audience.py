"""Who gets a message about an approval, and what they may do with it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from attrs import frozen

from notifyd.approval.timers import Timed
from notifyd.config.settings import Rule
from notifyd.model import APPROVAL_KIND, SECOND, Event, Status
from notifyd.registry.channels import OpenChannel
from notifyd.registry.registry import Registry
from notifyd.wire.codec import parse_instant

_ACKNOWLEDGED: Final = "acknowledged"
BREAK_GLASS_RULE: Final = "break-glass"
"""What stands in the ledger for the rule by which `approvals.breakglass_to` are told."""

_TOGETHER: Final = 60 * SECOND
"""A runner that is told within this time of the decision is no news of its own."""


@frozen
class Reader:
    """Who is to be told: a person, an address of a list, or, as None, whoever reads a shared channel.

    `on_behalf_of` is the person for whom this one stands in.
    """

    name: str | None
    personal: bool = False
    on_behalf_of: str | None = None

    @property
    def people(self) -> tuple[str, ...]:
        """The person, and the one for whom they stand in."""
        names = (self.name, self.on_behalf_of) if self.personal else ()
        return tuple(name for name in names if name is not None)


def audience(rule: Rule, channel: OpenChannel, event: Event, registry: Registry) -> Iterator[Reader]:
    """Each reader of `rule` over `channel`, who has an address there where it needs one: of an approval, the
    deputies of its people too."""
    if not channel.personal:
        yield Reader(None)
        return
    people = [Reader(person, personal=True) for person in rule.to]
    if event.kind == APPROVAL_KIND:
        people += _deputies(rule.to, event, registry)
    yield from (one for one in people if registry.reaches(channel, one.name or ""))
    yield from (Reader(address) for address in rule.lists)


def audiences(rule: Rule, event: Event, registry: Registry) -> Iterator[tuple[OpenChannel, Reader]]:
    """Each reader of `rule` over each of its channels."""
    for channel in (registry.channels[name] for name in rule.channels):
        yield from ((channel, reader) for reader in audience(rule, channel, event, registry))


def _deputies(people: Sequence[str], event: Event, registry: Registry) -> Iterator[Reader]:
    """Those who stand in for `people` when the event occurred, each for one, and none who is told already."""
    told = set(map(registry.actors.canonical, people))
    for person in people:
        deputy = registry.deputy_of(event.tenant, person, event.occurred_at)
        if deputy is not None and (name := registry.actors.canonical(deputy)) not in told:
            told.add(name)
            yield Reader(deputy, personal=True, on_behalf_of=person)


def is_override(event: Event, seen: Mapping[str, Any]) -> bool:
    """Has somebody broken the glass?"""
    acknowledged = event.kind == APPROVAL_KIND and event.action == _ACKNOWLEDGED
    return acknowledged and _member(seen, "decision").get("breakGlass") is True


def told_of_override(seen: Mapping[str, Any], rules: Sequence[Rule], registry: Registry) -> Sequence[Rule]:
    """Who is told that the glass was broken: by `rules`, which match that, by those that told of the request, and
    by one for `approvals.breakglass_to`.

    The latter goes over the personal channels of the others, or over every one there is where those do not reach
    all of them.
    """
    asked = registry.rules.match({**seen, "action": "requested"}).rules
    all_rules = [*rules, *(rule for rule in asked if rule not in rules)]
    personal = [name for name, channel in registry.channels.items() if channel.personal]
    of_rules = [name for name in personal if any(name in rule.channels for rule in all_rules)]
    to = registry.settings.approvals.breakglass_to
    if to:
        ways = [registry.channels[name] for name in of_rules]
        reached = all(any(registry.reaches(way, person) for way in ways) for person in to)
        channels = tuple(of_rules if reached else personal)
        all_rules.append(Rule(BREAK_GLASS_RULE, when="true", channels=channels, to=to, grants=()))
    return all_rules


def told_already(event: Event, seen: Mapping[str, Any], registry: Registry) -> Sequence[Rule]:
    """The rules that told of the decision less than a minute before the runner heard of it."""
    if event.kind != APPROVAL_KIND or event.action != "resumed" or not _at_once(event, seen):
        return ()
    return registry.rules.match({**seen, "action": _ACKNOWLEDGED}).rules


def _at_once(event: Event, seen: Mapping[str, Any]) -> bool:
    decided = _member(seen, "decision").get("decidedAt")
    return isinstance(decided, str) and event.occurred_at - parse_instant(decided) <= _TOGETHER


def is_own_vote(event: Event, seen: Mapping[str, Any], recipient: str | None, registry: Registry) -> bool:
    """Is the event the vote of this very recipient, who needs no message about it?"""
    if event.kind != APPROVAL_KIND or event.action != _ACKNOWLEDGED or recipient is None:
        return False
    return _same(recipient, _member(seen, "decision").get("actor"), registry)


def is_own_request(event: Event, seen: Mapping[str, Any], recipient: str | None, registry: Registry) -> bool:
    """Is this person the one who asked, and so not one who decides?"""
    if event.kind != APPROVAL_KIND or recipient is None or registry.settings.approvals.allow_self_approval:
        return False
    return _same(recipient, seen.get("requestedBy"), registry)


def is_asked(event: Event, seen: Mapping[str, Any], people: Sequence[str], registry: Registry) -> bool:
    """Is the link of these people, a person or a deputy and theirs, one that decides: at the request, when a timer
    asks, and while others' votes are too few?"""
    waiting = event.action == _ACKNOWLEDGED and seen.get("status") == Status.PENDING.value
    if not (event.action in ("requested", *Timed) or waiting):
        return False
    return not have_voted(seen, people, registry)


def have_voted(seen: Mapping[str, Any], people: Sequence[str], registry: Registry) -> bool:
    """Has any of these people voted in the round, by what the event tells of it?"""
    voters = _member(seen, "approvals").get("actors")
    return any(_same(person, voter, registry) for voter in voters or () for person in people)


def _member(seen: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = seen.get(name)
    return value if isinstance(value, Mapping) else {}


def _same(recipient: str, name: Any, registry: Registry) -> bool:
    canonical = registry.actors.canonical
    return isinstance(name, str) and canonical(recipient) == canonical(name)
