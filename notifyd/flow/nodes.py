"""This node among those that share the store: it beats, and knows how many do."""

from __future__ import annotations

import logging
from typing import Final

from notifyd.model import SECOND, Clock
from notifyd.store import Store

log = logging.getLogger(__name__)

BEAT: Final = 1.0
"""Seconds between beats."""

ALIVE: Final = 5 * SECOND
"""How long after its last beat a node counts as alive, in microseconds."""


class Nodes:
    """Called, it answers how many nodes were alive at the last beat, this one included: limits are divided so."""

    def __init__(self, *, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._live = 1

    def __call__(self) -> int:
        return self._live

    async def beat(self) -> int:
        """Show that this node lives. Raises `StoreInUseError` where another process has its name."""
        now = self._clock()
        live = await self._store.beat(now, now + ALIVE)
        if live != self._live:
            log.info("nodes alive: %d", live)
        self._live = live
        return live
