"""What a decision or an expiry sets off, made durable effect by effect: audit line, notice, the end to be told."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

from attrs import evolve

from notifyd import correlation
from notifyd.approval.effects import bury, let_go, owed_row, put_off, revive, within
from notifyd.errors import NoSigningKeyError, NotFoundError, NotifydError, StoreError, UndecodableRowError
from notifyd.flow.lane import retry_delay
from notifyd.flow.measures import measure_end
from notifyd.flow.queues import DispatchQueue, PlanningQueue
from notifyd.flow.receipts import receipt_of
from notifyd.flow.resume import answer, forward
from notifyd.metrics import Metrics
from notifyd.model import SECOND, Approval, ApprovalKey, AuditRecord, Clock, Effect, EffectKind, Instant
from notifyd.registry.registry import Registry
from notifyd.store import Store, append_as_is
from notifyd.text import one_line

log = logging.getLogger(__name__)

_BATCH: Final = 100

_SOONEST: Final = SECOND
"""How long at least an effect that failed is left alone: the sweep would find it again at once."""

_FAULT: Final = 200
"""Characters kept of why an effect failed."""


class Effects:
    """Settles what approvals owe: at once for the decisions of this node, by sweep for what was left over.

    An effect that fails is put off, with the backoff of deliveries, and after `dispatch.max_attempts` is dead:
    listed, counted, and taken up again by hand. Events it raises go to `planning_queue`, callbacks to
    `dispatch_queue`.
    """

    def __init__(
        self,
        *,
        store: Store,
        current: Callable[[], Registry],
        planning_queue: PlanningQueue,
        dispatch_queue: DispatchQueue,
        metrics: Metrics,
        clock: Clock,
        randomness: random.Random | None = None,
    ) -> None:
        self._store = store
        self._current = current
        self._planning_queue = planning_queue
        self._dispatch_queue = dispatch_queue
        self._metrics = metrics
        self._clock = clock
        self._randomness = randomness or random.Random()  # nosec B311 # noqa: S311 - jitter, not a secret
        self._queue: asyncio.Queue[Approval] = asyncio.Queue(_BATCH)

    def offer(self, approval: Approval) -> None:
        """Settle this soon. Where memory is full the sweep finds it."""
        if not self._queue.full():
            self._queue.put_nowait(approval)

    async def run(self) -> None:
        """Settle what is offered, until cancelled."""
        while True:
            approval = await self._queue.get()
            correlation.current.set(approval.correlation_id)  # of this task alone
            try:
                await self.settle(approval)
            except (StoreError, UndecodableRowError) as error:
                log.warning("effects of %s/%s wait: %s", approval.run_id, approval.approval_id, error)

    async def sweep(self) -> int:
        """Settle or put off all that is due; answers for how many approvals it did. Raises `StoreError`."""
        total = 0
        while True:
            now = self._clock()
            owing = await self._store.owing_approvals(now, _BATCH, horizon=self._horizon(now))
            for approval in owing:
                # Since it was found the store may have set it aside.
                with suppress(UndecodableRowError), correlation.about(approval.correlation_id):
                    await self.settle(approval)
            total += len(owing)
            if len(owing) < _BATCH:
                return total

    async def settle(self, approval: Approval) -> None:
        """Do each effect that is due, then complete it. Doing one again makes the same row under the same id.

        One that fails holds up none of the others. Raises `StoreError` where the store takes no word of that
        either, and `UndecodableRowError`; then the effect is due as it was.
        """
        now = self._clock()
        approval = within(approval, self._horizon(now))
        if any(effect.waits_with and effect.next_attempt_at <= now for effect in approval.effects):
            freed = await self._let_go(approval, now)
            if freed is None:
                return  # it was taken back, or another write came between: the sweep comes again
            approval = freed
        for effect in approval.effects:
            if effect.dead or effect.next_attempt_at > now:
                continue
            try:
                await self._do(approval, effect)
                await self._store.complete_effect(approval.key, effect.id)
            except Exception as error:  # noqa: BLE001 - whatever it is, it must not hold up the others
                await self._put_off(approval, effect, error)

    def _horizon(self, now: Instant) -> Instant:
        """Until when an effect is put off at the furthest, with a minute for another node's clock."""
        settings = self._current().settings
        furthest: int = max(settings.dispatch.backoff.ceiling, settings.approvals.undo, _SOONEST)
        return now + furthest + 60 * SECOND

    async def _let_go(self, approval: Approval, now: Instant) -> Approval | None:
        """Write that what is due can no longer be taken back: either this write or the taking back comes first."""
        freed = evolve(let_go(approval, now), version=approval.version + 1)
        if not await self._store.replace_approval(freed):
            return None
        last = approval.decisions[-1].decision_hash if approval.decisions else ""
        if freed.status.ended and any(e.waits_with == last for e in approval.effects):
            measure_end(self._metrics, freed)
        return freed

    async def count(self) -> None:
        """Bring the gauges up to date."""
        counts = await self._store.effect_counts()
        self._metrics.owing_approvals.set(counts.owing)
        self._metrics.dead_effects.set(counts.dead)

    async def retry(self, tenant: str, effect_id: str) -> None:
        """Take up a dead effect again, its tries at zero. Raises `NotFoundError` where there is none."""
        found = await self._store.with_dead_effect(tenant, effect_id)
        if found is None:
            raise NotFoundError(f"no dead effect {effect_id!r}")
        revived = await self._change(found.key, effect_id, lambda approval: revive(approval, effect_id))
        if revived is not None:
            self.offer(revived)
        await self.count()

    async def _put_off(self, approval: Approval, effect: Effect, error: Exception) -> None:
        settings, now = self._current().settings.dispatch, self._clock()
        tries, fault = effect.tries + 1, self._fault(error)
        wait = retry_delay(tries, settings.backoff, None, self._randomness)
        later = evolve(effect, tries=tries, fault=fault, next_attempt_at=now + max(wait, _SOONEST))
        dead = tries >= settings.max_attempts
        log.log(
            logging.ERROR if dead else logging.WARNING,
            "the %s effect %s of %s/%s %s: %s",
            *(effect.kind.value, effect.id, approval.run_id, approval.approval_id),
            "is dead" if dead else "waits",
            fault,
            exc_info=None if isinstance(error, NotifydError) else error,
        )
        await self._change(
            approval.key,
            effect.id,
            lambda stored: bury(stored, later, now) if dead else put_off(stored, later),
        )
        if dead:
            await self.count()

    async def _change(
        self, key: ApprovalKey, effect_id: str, change: Callable[[Approval], Approval]
    ) -> Approval | None:
        """Write what `change` makes of the stored approval; None where the effect is completed already."""
        while True:
            stored = await self._store.approval(key)
            if stored is None or all(one.id != effect_id for one in stored.effects):
                return None
            changed = change(stored)
            if await self._store.replace_approval(changed):
                return changed

    def _fault(self, error: Exception) -> str:
        """Why an effect failed, for its reader: of what nobody foresaw the type alone, which holds no secret."""
        text = error.detail if isinstance(error, NotifydError) else type(error).__name__
        return one_line(self._current().redactor.text(text))[:_FAULT]

    async def _do(self, approval: Approval, effect: Effect) -> None:
        if effect.kind is EffectKind.RESUME:
            await self._queue_end(approval, effect)
            return
        row = owed_row(effect)
        if isinstance(row, AuditRecord):
            await self._store.write_audit([row])
            return
        lease = self._current().settings.dispatch.lease
        appended = await self._store.append(append_as_is(row, lease=lease))
        if appended.fresh:
            self._planning_queue.offer(appended.event)

    async def _queue_end(self, approval: Approval, effect: Effect) -> None:
        """The callback or the gate's answer, where one is owed, and what each forwarder is sent."""
        registry, now = self._current(), self._clock()
        with suppress(NoSigningKeyError, NotFoundError):  # asked for anew since
            receipt = await receipt_of(approval.key, self._store, registry)
            approval = evolve(approval, receipt=receipt)
        forwarders = registry.settings.resume.forwarders.values()
        ready = [forward(approval, effect, one, registry, now) for one in forwarders if not one.type.gate]
        if approval.resume_delivery == effect.id:
            ready.append(answer(approval, effect, registry, now))
        if ready:
            await self._dispatch_queue.enqueue(ready, partial(self._store.insert_deliveries, None))
