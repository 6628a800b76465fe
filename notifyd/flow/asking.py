"""The rules by which an approval was asked for, and whom they have asked."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Final

import orjson
from attrs import frozen

from notifyd.approval.ballots import Ballot
from notifyd.approval.notices import step_key
from notifyd.approval.timers import Timed
from notifyd.config.settings import Rule
from notifyd.config.units import show_duration
from notifyd.errors import UndecodableRowError
from notifyd.model import APPROVAL_KIND, Approval, Event
from notifyd.registry.registry import Registry
from notifyd.store import Store
from notifyd.wire.codec import event_key

_ROUNDS: Final = 5
"""How many rounds an escalation is remembered for: this one, and those before it."""


@frozen
class Asking:
    """`rule` asked in a round. `people` are those whom it told of the request, also where a deputy was told."""

    rule: Rule
    people: frozenset[str] = frozenset()


async def asking_rules(approval: Approval, ballot: Ballot, registry: Registry, store: Store) -> list[Rule]:
    """The rule whose link decides or, where a program decides, all that asked. Raises `StoreError`."""
    if not ballot.rule:
        return await rules_that_asked(approval, registry, store)
    rule = registry.rule(ballot.rule)
    return [rule] if rule is not None else []


async def rules_that_asked(approval: Approval, registry: Registry, store: Store) -> list[Rule]:
    """Those that asked in this round and are still there. Raises `StoreError`."""
    return [one.rule for one in await asked_by(approval, registry, store)]


async def asked_by(approval: Approval, registry: Registry, store: Store) -> list[Asking]:
    """The rules that asked in this round and are still there.

    Where the plan of the round's request is not there any more, those that match it today. Raises `StoreError`.
    """
    planned = await _planned(approval, store)
    if planned is None:
        return [Asking(rule) for rule in _matching(approval, registry)]
    rules = ((registry.rule(name), people) for name, people in planned.items())
    return [Asking(rule, frozenset(people)) for rule, people in rules if rule is not None]


async def escalations_of(event: Event, rules: Iterable[Rule], store: Store) -> frozenset[tuple[str, str]]:
    """The escalations of `rules` that were taken before `event`, in its round or one shortly before.

    Each by the rule's name and its own. Raises `StoreError`.
    """
    key, first = event.approval_key, event.action == "requested" and event.round == 1
    if event.kind != APPROVAL_KIND or key is None or first or event.action in tuple(Timed):
        return frozenset()
    found = set()
    for step in {(rule.name, show_duration(one.after)) for rule in rules for one in rule.escalate}:
        for round_ in range(event.round, max(0, event.round - _ROUNDS), -1):
            with suppress(UndecodableRowError):
                if await store.event(key.tenant, step_key(key, round_, Timed.ESCALATED.value, step)):
                    found.add(step)
                    break
    return frozenset(found)


async def _planned(approval: Approval, store: Store) -> dict[str, set[str]] | None:
    """The people of each rule, in the plan's order."""
    request = orjson.loads(approval.request)
    try:
        event = await store.event(approval.tenant, event_key(approval.tenant, request["eventId"]))
    except UndecodableRowError:
        return None
    if event is None or event.plan is None:
        return None
    found: dict[str, set[str]] = {}
    for entry in event.plan:
        people = found.setdefault(entry.rule, set())
        if entry.personal and entry.recipient is not None:
            people.add(entry.on_behalf_of or entry.recipient)
    return found


def _matching(approval: Approval, registry: Registry) -> list[Rule]:
    more = {"round": approval.round, "correlationId": approval.correlation_id}
    return list(registry.rules.match(orjson.loads(approval.request) | more).rules)
