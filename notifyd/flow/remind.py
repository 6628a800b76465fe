"""The timers: who is asked and has not answered is reminded, and then others are asked."""

from __future__ import annotations

from collections.abc import Callable

from notifyd.approval.timers import due_steps, take_steps
from notifyd.errors import StoreError
from notifyd.flow.asking import rules_that_asked
from notifyd.flow.due import leave_aside, sweep
from notifyd.flow.queues import EffectQueue
from notifyd.metrics import Metrics
from notifyd.model import Approval, Clock, Instant
from notifyd.registry.registry import Registry
from notifyd.store import Store


class Timers:
    """Takes the steps that are due. What they set off is owed by the approval; those go to `effect_queue`."""

    def __init__(
        self,
        *,
        store: Store,
        current: Callable[[], Registry],
        effect_queue: EffectQueue,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._store = store
        self._current = current
        self._effect_queue = effect_queue
        self._metrics = metrics
        self._clock = clock
        self._known: list[object] = []

    async def sweep(self) -> int:
        """Look at the approvals whose time has come; answers how many it has written. Raises `StoreError`."""
        await self._note_changes()
        return await sweep(self._store.timed_approvals, self._take, self._clock)

    async def _note_changes(self) -> None:
        """At the start, and where a reload has changed timers, all that is pending is looked at anew.

        When to look at an approval next was reckoned by the configuration before.
        """
        known: list[object] = [(rule.name, rule.remind, rule.escalate) for rule in self._current().timed]
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
        except Exception as error:  # noqa: BLE001 - whatever it is, it holds up none of the others
            await leave_aside(approval, "cannot be timed", error, self._store)
            return False
        # Where the write loses, somebody decided, or another node was first: the next look sees it.
        if not await self._store.replace_approval(looked):
            return False
        for step in due_steps(approval, rules, now):
            self._metrics.timer_steps.labels(step.action.value).inc()
        self._effect_queue.offer(looked)
        return True
