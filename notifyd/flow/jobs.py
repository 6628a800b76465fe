"""What one node at a time does for all that share the store: it holds a lease of the job while it is at it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from notifyd.errors import JobTakenError, StoreError
from notifyd.model import SECOND, Clock, Instant
from notifyd.store import Store

log = logging.getLogger(__name__)

_FRESH: Final = SECOND
"""How old (microseconds) what is known of a lease may be when a step begins."""

_RETRY: Final = 5.0
"""Seconds after which somebody may ask again who was told that another node is at it."""


class JobLease:
    """This node's lease of a job. Runs of it that overlap, by the clock and by hand, share it.

    `lease` is how long it is taken for, and renewed for, in microseconds.
    """

    def __init__(self, job: str, store: Store, lease: Callable[[], Instant], clock: Clock) -> None:
        self._job = job
        self._store = store
        self._lease = lease
        self._clock = clock
        self._changing = asyncio.Lock()
        self._runs = 0
        self._renewed: Instant = 0
        self._done_at: Instant | None = None

    @asynccontextmanager
    async def held(self, *, rest: Instant | None = None) -> AsyncIterator[None]:
        """Have the lease. Raises `JobTakenError`, also where the job was done within `rest` (microseconds)."""
        async with self._changing:
            await self._claim(None if rest is None else self._clock() - rest)
            self._runs += 1
        try:
            yield
        finally:
            self._runs -= 1  # before anything that a cancellation can end
            async with self._changing:
                if not self._runs:
                    await self._give_back()

    async def keep(self) -> None:
        """Before each step: renew the lease in time. Raises `JobTakenError` where it was lost."""
        if not 0 <= self._clock() - self._renewed < min(_FRESH, self._lease() // 3):
            await self._claim(None)

    def note_done(self) -> None:
        """The job is done as a whole."""
        self._done_at = self._clock()

    async def _claim(self, unless_done_since: Instant | None) -> None:
        now = self._clock()
        turn = await self._store.claim_job(
            self._job, now, now + self._lease(), unless_done_since=unless_done_since
        )
        if not turn.mine:
            why = f"node {turn.node!r} has it" if turn.node else "this host's clock is not the database's"
            raise JobTakenError(f"the job '{self._job}' is not done here: {why}", retry_after=_RETRY)
        self._renewed = now

    async def _give_back(self) -> None:
        done_at, self._done_at = self._done_at, None
        try:
            await self._store.end_job(self._job, done_at)
        except StoreError as error:
            log.warning("the lease of the job '%s' ends by itself: %s", self._job, error)
