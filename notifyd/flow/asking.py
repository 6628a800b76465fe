"""The rules by which an approval was asked for."""

from __future__ import annotations

import orjson

from notifyd.approval.ballots import Ballot
from notifyd.config.settings import Rule
from notifyd.errors import UndecodableRowError
from notifyd.model import Approval
from notifyd.registry.registry import Registry
from notifyd.store import Store
from notifyd.wire.codec import event_key


async def asking_rules(approval: Approval, ballot: Ballot, registry: Registry, store: Store) -> list[Rule]:
    """The rule whose link decides or, where a program decides, all that asked. Raises `StoreError`."""
    if not ballot.rule:
        return await rules_that_asked(approval, registry, store)
    rule = registry.rule(ballot.rule)
    return [rule] if rule is not None else []


async def rules_that_asked(approval: Approval, registry: Registry, store: Store) -> list[Rule]:
    """Those that asked in this round and are still there.

    Where the plan of the round's request is not there any more, those that match it today. Raises `StoreError`.
    """
    names = await _planned(approval, store)
    if names is None:
        return _matching(approval, registry)
    return [rule for rule in map(registry.rule, names) if rule is not None]


async def _planned(approval: Approval, store: Store) -> list[str] | None:
    request = orjson.loads(approval.request)
    try:
        event = await store.event(approval.tenant, event_key(approval.tenant, request["eventId"]))
    except UndecodableRowError:
        return None
    if event is None or event.plan is None:
        return None
    return list(dict.fromkeys(entry.rule for entry in event.plan))


def _matching(approval: Approval, registry: Registry) -> list[Rule]:
    more = {"round": approval.round, "correlationId": approval.correlation_id}
    return list(registry.rules.match(orjson.loads(approval.request) | more).rules)
