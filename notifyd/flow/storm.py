"""Storm control: which deliveries are held back, for how long, and together with which others.

A *window* holds deliveries of one rule, channel and recipient until it closes; then one digest stands for
them all. Three things open one: `group_by` with `group_wait`, a spent `throttle`, and `quiet_hours`. Approval
requests are exempt from the latter two, and are never in a window with anything else, since a digest must
give each its own link.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from attrs import frozen

from notifyd.config.settings import QuietHours, Rate, Rule
from notifyd.config.windows import Hours
from notifyd.model import APPROVAL_KIND, Event, Instant, PlanEntry
from notifyd.store import Store
from notifyd.wire.codec import canonical, derived_id

_REQUEST: Final = (APPROVAL_KIND, "requested")


@frozen
class Deferral:
    """A delivery is to wait in the window `key`, which closes at `closes_at` if this opens it."""

    key: str
    closes_at: Instant


def is_request(kind: str, action: str) -> bool:
    """Does somebody wait for an answer to this?"""
    return (kind, action) == _REQUEST


def window_key(purpose: str, tenant: str, entry: PlanEntry, *group: str) -> str:
    target = (entry.rule, entry.channel, entry.channel_type, entry.recipient or "")
    return derived_id("window", tenant, purpose, *target, *group)


def group_of(rule: Rule, seen: Mapping[str, Any]) -> list[str]:
    """The values of the rule's `group_by`, dotted paths into the event, as JSON; "" for a missing one."""
    return [_value_at(seen, path) for path in rule.group_by]


def _value_at(seen: Mapping[str, Any], path: str) -> str:
    value: Any = seen
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return "" if value is None else canonical(value).decode()


def quiet_until(quiet: QuietHours, now: Instant) -> Instant | None:
    """When the quiet hours that `now` lies in are over, by the wall clock of their zone; None outside them."""
    return Hours.daily(quiet.from_, quiet.to, quiet.zone).closes_at(now)


class Budgets:
    """What `throttle` has let through of late, by rule, channel and recipient; read back after a restart.

    The nodes that are alive, which `nodes` counts, divide each budget among them; each has one at least.
    """

    def __init__(self, store: Store, nodes: Callable[[], int] = lambda: 1) -> None:
        self._store = store
        self._nodes = nodes
        self._spent: dict[str, deque[Instant]] = {}
        self._owing: set[str] = set()  # a digest waits to spend from these

    async def load(self, tenant: str, budget: str, rate: Rate, now: Instant) -> None:
        """Know what was spent before this life began."""
        if budget not in self._spent:
            known = await self._store.spent(tenant, budget, now - rate.per, rate.count)
            # Another step may have read it meanwhile, and spent since.
            self._spent.setdefault(budget, deque(reversed(known)))

    def full_until(self, budget: str, rate: Rate, now: Instant, *, digest: bool = False) -> Instant | None:
        """When the budget has room again; None where it has room now.

        Where a digest waits for room, the first is the digest's: else a storm that goes on would take it away.
        """
        spent = self._spent[budget]
        while spent and not now - rate.per < spent[0] <= now:
            spent.popleft()  # over, or from a clock that has been set back since
        kept = 1 if budget in self._owing and not digest else 0
        over = len(spent) + kept - max(1, rate.count // self._nodes())
        if over < 0:
            return None
        return (spent[over] if over < len(spent) else now) + rate.per

    def spend(self, budget: str, now: Instant) -> None:
        self._spent[budget].append(now)

    def owe(self, budget: str) -> None:
        """A window is open whose digest will spend from this budget."""
        self._owing.add(budget)

    def settle(self, budget: str, now: Instant) -> None:
        """Spend for a window that has closed."""
        self._owing.discard(budget)
        self.spend(budget, now)

    def forget(self) -> None:
        """A write has failed, and with it what it was to spend: read all back from the store."""
        self._spent.clear()
        self._owing.clear()


def deferral_of(
    rule: Rule, entry: PlanEntry, event: Event, seen: Mapping[str, Any], budgets: Budgets, now: Instant
) -> Deferral | None:
    """The window this delivery has to wait in, None where it may go. The longest wait comes first."""
    request = is_request(event.kind, event.action)
    if rule.quiet_hours and not request and (ends := quiet_until(rule.quiet_hours, now)) is not None:
        return Deferral(window_key("quiet", event.tenant, entry), ends)
    if rule.group_by and rule.group_wait is not None:
        group = ["requests" if request else "", *group_of(rule, seen)]
        return Deferral(window_key("group", event.tenant, entry, *group), now + rule.group_wait)
    if rule.throttle and not request:
        budget = budget_key(event.tenant, entry)
        full_until = budgets.full_until(budget, rule.throttle, now)
        if full_until is not None:
            budgets.owe(budget)
            return Deferral(window_key("throttle", event.tenant, entry), full_until)
    return None


def budget_key(tenant: str, entry: PlanEntry) -> str:
    return window_key("budget", tenant, entry)
