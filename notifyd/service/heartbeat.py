"""Tells a watcher outside that all is well: it raises the alarm where it hears nothing.

The alarm of a daemon that is dead, or of its whole machine, can only come from elsewhere.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from notifyd.errors import NotifydError
from notifyd.model import SECOND, Clock
from notifyd.post import check_response, post
from notifyd.registry.egress import open_session
from notifyd.registry.registry import Registry
from notifyd.security.secrets import Secret

log = logging.getLogger(__name__)

_TIMEOUT: Final = 10.0
_LOOK: Final = 1.0
"""Seconds after which a configuration without a heartbeat is looked at again: a reload may have brought one."""


class Heartbeat:
    """Calls `heartbeat.url` by an empty POST, once in each `heartbeat.interval`, while `ready` raises nothing.

    What keeps it from calling is logged once, and once that it calls again.
    """

    def __init__(
        self, *, current: Callable[[], Registry], ready: Callable[[], Awaitable[None]], clock: Clock
    ) -> None:
        self._current = current
        self._ready = ready
        self._clock = clock
        self._fault: str | None = None

    async def run(self) -> None:
        """Beat until cancelled."""
        while True:
            settings = self._current().settings.heartbeat
            if settings.url is not None:
                await self.beat(settings.url)
            await asyncio.sleep(settings.interval / SECOND if settings.url else _LOOK)

    async def beat(self, url: Secret) -> bool:
        """Call once; False where all is not well, or nobody answers."""
        try:
            async with asyncio.timeout(_TIMEOUT):
                await self._ready()
                await self._call(url, self._current())
        except NotifydError as error:
            return self._note(error.detail)
        except TimeoutError:
            return self._note(f"no answer in {_TIMEOUT:g} s")
        return self._note(None)

    async def _call(self, url: Secret, registry: Registry) -> None:
        tls = registry.settings.egress.tls_ca
        context = await asyncio.to_thread(tls.context) if tls else None
        async with open_session(registry.guard, limit=1, timeout=_TIMEOUT, tls=context) as session:
            answer = await post(session, url, b"")
            check_response(answer.status, answer.headers, now=self._clock())

    def _note(self, fault: str | None) -> bool:
        if fault is not None and self._fault is None:
            log.warning("no heartbeat: %s", self._current().redactor.text(fault))
        elif fault is None and self._fault is not None:
            log.info("the heartbeat goes on")
        self._fault = fault
        return fault is None
