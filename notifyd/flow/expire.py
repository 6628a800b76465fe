"""The timer: approvals nobody decided in time end as expired."""

from __future__ import annotations

from notifyd.approval.ballots import expire
from notifyd.flow.due import leave_aside, sweep
from notifyd.flow.queues import EffectQueue
from notifyd.metrics import Metrics
from notifyd.model import Approval, Clock, Instant
from notifyd.store import Store


class Expiry:
    """Ends what is due. Approvals that owe new effects go to `effect_queue`."""

    def __init__(self, *, store: Store, effect_queue: EffectQueue, metrics: Metrics, clock: Clock) -> None:
        self._store = store
        self._effect_queue = effect_queue
        self._metrics = metrics
        self._clock = clock

    async def sweep(self) -> int:
        """End the approvals whose time has come; answers how many it ended itself."""
        return await sweep(self._store.due_approvals, self._end, self._clock)

    async def _end(self, approval: Approval, now: Instant) -> bool:
        try:
            expired = expire(approval, now)
        except Exception as error:  # noqa: BLE001 - whatever it is, it holds up none of the others
            await leave_aside(approval, "cannot be ended", error, self._store)
            return False
        # Where the write loses, somebody decided at the last moment: the first end wins.
        if expired is None or not await self._store.replace_approval(expired):
            return False
        self._metrics.outstanding.labels(approval.tenant).dec()
        self._metrics.ended.labels(expired.status.value).inc()
        self._effect_queue.offer(expired)
        return True
