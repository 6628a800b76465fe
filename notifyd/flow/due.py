"""Approvals whose time has come, for the steps that look for them once a second."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from notifyd import correlation
from notifyd.model import Approval, Clock, Instant
from notifyd.store import Store

log = logging.getLogger(__name__)

_BATCH: Final = 100
_AT_ONCE: Final = 20
"""How many are taken in one turn of the event loop: some 10 ms."""


async def sweep(
    find: Callable[[Instant, int], Awaitable[Sequence[Approval]]],
    take: Callable[[Approval, Instant], Awaitable[bool]],
    clock: Clock,
) -> int:
    """`take` what `find` gives of this time and number until there is no more; for how many it answered True."""
    total = 0
    while True:
        now = clock()
        due = await find(now, _BATCH)
        taken = 0
        for first in range(0, len(due), _AT_ONCE):
            some = due[first : first + _AT_ONCE]
            taken += sum(await asyncio.gather(*(take(approval, now) for approval in some)))
        total += taken
        if len(due) < _BATCH or not taken:
            return total


async def leave_aside(approval: Approval, what: str, error: Exception, store: Store) -> None:
    """Whatever is wrong with one, it must not hold up the others. `what`: it "cannot be ended". Logged once."""
    if await store.set_aside(approval, f"{what}: {type(error).__name__}"):
        with correlation.about(approval.correlation_id):
            log.error("approval %s/%s %s", approval.run_id, approval.approval_id, what, exc_info=error)
