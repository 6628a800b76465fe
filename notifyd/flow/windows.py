"""When an approval may be approved: the windows of the rules by which it was asked for."""

from __future__ import annotations

from notifyd.approval.ballots import Ballot
from notifyd.config.windows import Window, open_together_at
from notifyd.errors import WindowClosedError
from notifyd.flow.asking import asking_rules
from notifyd.model import Approval, Choice, Instant
from notifyd.registry.registry import Registry
from notifyd.store import Store
from notifyd.wire.codec import rfc3339


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
    """The windows of each rule."""
    if all(rule.window is None for rule in registry.settings.rules):
        return {}
    rules = await asking_rules(approval, ballot, registry, store)
    return {rule.name: rule.window for rule in rules if rule.window}
