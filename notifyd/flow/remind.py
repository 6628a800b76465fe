"""The timers: who is asked and has not answered is reminded, and then others are asked."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from notifyd.approval.timers import take_steps
from notifyd.config.settings import Settings
from notifyd.errors import StoreError
from notifyd.flow.asking import rules_that_asked
from notifyd.flow.queues import EffectQueue
from notifyd.model import Approval, Clock, Instant
from notifyd.registry.registry import Registry
from notifyd.store import Store

log = logging.getLogger(__name__)

_BATCH: Final = 100


class Timers:
    """Takes the steps that are due. What they set off is owed by the approval; those go to `effect_queue`."""

    def __init__(
        self, *, store: Store, current: Callable[[], Registry], effect_queue: EffectQueue, clock: Clock
    ) -> None:
        self._store = store
        self._current = current
        self._effect_queue = effect_queue
        self._clock = clock
        self._known: list[object] = []

    async def sweep(self) -> int:
        """Look at the approvals whose time has come; answers how many it has written. Raises `StoreError`."""
        await self._note_changes()
        total = 0
        while True:
            now = self._clock()
            due = await self._store.timed_approvals(now, _BATCH)
            written = sum(await asyncio.gather(*(self._take(approval, now) for approval in due)))
            total += written
            if len(due) < _BATCH or not written:
                return total

    async def _note_changes(self) -> None:
        """At the start, and where a reload has changed timers, all that is pending is looked at anew.

        When to look at an approval next was reckoned by the configuration before.
        """
        known = timers_of(self._current().settings)
        if known != self._known:
            await self._store.wake_timers()
            self._known = known

    async def _take(self, approval: Approval, now: Instant) -> bool:
        if approval.overdue(now):
            return False  # the end comes in a moment
        try:
            registry = self._current()
            rules = await rules_that_asked(approval, registry, self._store)
            looked = take_steps(approval, rules, now)
        except StoreError:
            raise
        except Exception as error:
            # Whatever is wrong with one, it must not hold up the others.
            if await self._store.set_aside(approval, f"cannot be timed: {type(error).__name__}"):
                log.exception("approval %s/%s cannot be timed", approval.run_id, approval.approval_id)
            return False
        # Where the write loses, somebody decided, or another node was first: the next look sees it.
        if not await self._store.replace_approval(looked):
            return False
        self._effect_queue.offer(looked)
        return True


def timers_of(settings: Settings) -> list[object]:
    """What tells one configuration's timers from another's: nothing, where it has none."""
    return [
        (rule.name, rule.remind, rule.escalate) for rule in settings.rules if rule.remind or rule.escalate
    ]
