"""The timer: approvals nobody decided in time end as expired."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from notifyd.approval.ballots import expire
from notifyd.flow.queues import EffectQueue
from notifyd.metrics import Metrics
from notifyd.model import Approval, Clock, Instant
from notifyd.store import Store

log = logging.getLogger(__name__)

_BATCH: Final = 100


class Expiry:
    """Ends what is due. Approvals that owe new effects go to `effect_queue`."""

    def __init__(self, *, store: Store, effect_queue: EffectQueue, metrics: Metrics, clock: Clock) -> None:
        self._store = store
        self._effect_queue = effect_queue
        self._metrics = metrics
        self._clock = clock

    async def sweep(self) -> int:
        """End the approvals whose time has come; answers how many it ended itself."""
        total = 0
        while True:
            now = self._clock()
            due = await self._store.due_approvals(now, _BATCH)
            ended = sum(await asyncio.gather(*(self._end(approval, now) for approval in due)))
            total += ended
            if len(due) < _BATCH or not ended:
                return total

    async def _end(self, approval: Approval, now: Instant) -> bool:
        try:
            expired = expire(approval, now)
        except Exception as error:
            # Whatever is wrong with one, it must not hold up the others.
            if await self._store.set_aside(approval, f"cannot be ended: {type(error).__name__}"):
                log.exception("approval %s/%s cannot be ended", approval.run_id, approval.approval_id)
            return False
        # Where the write loses, somebody decided at the last moment: the first end wins.
        if expired is None or not await self._store.replace_approval(expired):
            return False
        self._metrics.outstanding.labels(approval.tenant).dec()
        self._metrics.ended.labels(expired.status.value).inc()
        self._effect_queue.offer(expired)
        return True
