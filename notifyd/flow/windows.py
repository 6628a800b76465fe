"""When an approval may be approved: the windows of the rules by which it was asked for."""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from notifyd.approval.ballots import Ballot
from notifyd.config.settings import Rule
from notifyd.config.windows import Window, open_together_at
from notifyd.errors import UndecodableRowError, WindowClosedError
from notifyd.model import Approval, Choice, Instant
from notifyd.registry.registry import Registry
from notifyd.store import Store
from notifyd.wire.codec import event_key, rfc3339


async def check_window(
    approval: Approval, ballot: Ballot, registry: Registry, store: Store, now: Instant
) -> None:
    """Rejecting is always possible, and so is breaking the glass. Raises `WindowClosedError`, `StoreError`."""
    if ballot.choice is not Choice.APPROVED or ballot.break_glass:
        return
    windows = await _windows(approval, ballot, registry, store)
    opens = open_together_at(windows.values(), now)
    if opens != now:
        when = f"from {rfc3339(opens)} on" if opens else "at no time: their windows are never open together"
        told = ", ".join(f"{name} ({window.text})" for name, window in windows.items())
        raise WindowClosedError(f"by the rules {told} approving is possible {when}; rejecting always is")


async def _windows(approval: Approval, ballot: Ballot, registry: Registry, store: Store) -> dict[str, Window]:
    """By rule: of the one whose link decides or, where a program decides, of all that asked in this round."""
    windowed = {rule.name: rule.window for rule in registry.settings.rules if rule.window}
    if not windowed:
        return {}
    rules = [ballot.rule] if ballot.rule else await _asking(approval, registry, store)
    return {name: windowed[name] for name in rules if name in windowed}


async def _asking(approval: Approval, registry: Registry, store: Store) -> Sequence[str]:
    """The rules in the plan of the round's request; where that is not there, those that match it today."""
    request = orjson.loads(approval.request)
    try:
        event = await store.event(approval.tenant, event_key(approval.tenant, request["eventId"]))
    except UndecodableRowError:
        event = None
    if event is not None and event.plan is not None:
        return list(dict.fromkeys(entry.rule for entry in event.plan))
    return [rule.name for rule in _matching(approval, registry)]


def _matching(approval: Approval, registry: Registry) -> Sequence[Rule]:
    more = {"round": approval.round, "correlationId": approval.correlation_id}
    return registry.rules.match(orjson.loads(approval.request) | more).rules
