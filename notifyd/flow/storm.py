"""Storm control: which deliveries are held back, for how long, and together with which others.

A *window* holds deliveries of one rule, channel and recipient until it closes; then one digest stands for
them all. Three things open one: `group_by` with `group_wait`, a spent `throttle`, and `quiet_hours`. Approval
requests are exempt from the latter two, and are never in a window with anything else, since a digest must
give each its own link.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from datetime import datetime, time, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from attrs import frozen

from notifyd.codec import canonical, derived_id
from notifyd.model import SECOND, Event, Instant, PlanEntry
from notifyd.settings import QuietHours, Rate, Rule
from notifyd.store import Store

_REQUEST: Final = ("pack.approval", "requested")


@frozen
class Hold:
    """A delivery is to wait in the window `key`, which closes at `closes_at` if this opens it."""

    key: str
    closes_at: Instant


def is_request(kind: str, action: str) -> bool:
    """Does somebody wait for an answer to this?"""
    return (kind, action) == _REQUEST


def window_key(purpose: str, tenant: str, entry: PlanEntry, *group: str) -> str:
    return derived_id("window", tenant, purpose, entry.rule, entry.channel, entry.recipient or "", *group)


def group_of(rule: Rule, seen: Mapping[str, Any]) -> list[str]:
    """The values of the rule's `group_by`, dotted paths into the event; a missing one is the empty value."""
    return [_value_at(seen, path) for path in rule.group_by]


def _value_at(seen: Mapping[str, Any], path: str) -> str:
    value: Any = seen
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value if isinstance(value, str) else canonical(value).decode() if value is not None else ""


def quiet_until(quiet: QuietHours, now: Instant) -> Instant | None:
    """When the quiet hours that `now` lies in are over, by the wall clock of their zone; None outside them."""
    local = datetime.fromtimestamp(now / SECOND, ZoneInfo(quiet.zone))
    begins, ends = time.fromisoformat(quiet.from_), time.fromisoformat(quiet.to)
    at = local.time()
    overnight = begins > ends
    if not (at >= begins or at < ends if overnight else begins <= at < ends):
        return None
    day = local.date() + timedelta(days=1 if overnight and at >= begins else 0)
    # Combined in the zone, not added in seconds: a night in which the clocks change is longer or shorter.
    return int(datetime.combine(day, ends, local.tzinfo).timestamp() * SECOND)


class Budgets:
    """What `throttle` has let through of late, by rule, channel and recipient; read back after a restart."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._spent: dict[str, deque[Instant]] = {}

    async def load(self, tenant: str, budget: str, rate: Rate, now: Instant) -> None:
        """Know what was spent before this life began."""
        if budget not in self._spent:
            known = await self._store.spent(tenant, budget, now - rate.per, rate.count)
            self._spent[budget] = deque(reversed(known))

    def full_until(self, budget: str, rate: Rate, now: Instant) -> Instant | None:
        """When the budget has room again; None where it has room now."""
        spent = self._spent[budget]
        while spent and not now - rate.per < spent[0] <= now:
            spent.popleft()  # over, or from a clock that has been set back since
        return spent[len(spent) - rate.count] + rate.per if len(spent) >= rate.count else None

    def spend(self, budget: str, now: Instant) -> None:
        self._spent[budget].append(now)

    def forget(self, before: Instant) -> None:
        """Drop budgets that nothing was spent from since `before`; they are read back if need be."""
        idle = [budget for budget, spent in self._spent.items() if not spent or spent[-1] < before]
        for budget in idle:
            del self._spent[budget]


def hold_of(
    rule: Rule, entry: PlanEntry, event: Event, seen: Mapping[str, Any], budgets: Budgets, now: Instant
) -> Hold | None:
    """The window this delivery has to wait in, None where it may go. The longest wait comes first."""
    request = is_request(event.kind, event.action)
    if rule.quiet_hours and not request and (ends := quiet_until(rule.quiet_hours, now)) is not None:
        return Hold(window_key("quiet", event.tenant, entry), ends)
    if rule.group_by and rule.group_wait is not None:
        group = ["requests" if request else "", *group_of(rule, seen)]
        return Hold(window_key("group", event.tenant, entry, *group), now + rule.group_wait)
    if rule.throttle and not request:
        full_until = budgets.full_until(budget_key(event.tenant, entry), rule.throttle, now)
        if full_until is not None:
            return Hold(window_key("throttle", event.tenant, entry), full_until)
    return None


def budget_key(tenant: str, entry: PlanEntry) -> str:
    return window_key("budget", tenant, entry)
