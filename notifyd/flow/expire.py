"""The timer: approvals nobody decided in time end as expired."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from notifyd.machine.ballots import expire
from notifyd.metrics import Metrics
from notifyd.model import Approval, Clock
from notifyd.store import Store

log = logging.getLogger(__name__)

_BATCH: Final = 100


class Expiry:
    """Ends what is due. `recorded` is told of each approval that owes new effects."""

    def __init__(
        self, *, store: Store, recorded: Callable[[Approval], None], metrics: Metrics, clock: Clock
    ) -> None:
        self._store = store
        self._recorded = recorded
        self._metrics = metrics
        self._clock = clock

    async def sweep(self) -> int:
        """End the approvals whose time has come, at most a batch; answers how many it ended itself."""
        now, ended = self._clock(), 0
        for approval in await self._store.due_approvals(now, _BATCH):
            expired = expire(approval, now)
            # Where the write loses, somebody decided at the last moment: the first end wins.
            if expired is not None and await self._store.replace_approval(expired):
                self._metrics.outstanding.labels(approval.tenant).dec()
                self._recorded(expired)
                ended += 1
        return ended
