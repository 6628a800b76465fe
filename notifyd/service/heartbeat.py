"""Tells a watcher outside that all is well: it raises the alarm where it hears nothing.

The alarm of a daemon that is dead, or of its whole machine, can only come from elsewhere.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final

from notifyd.config.settings import Heartbeat as Settings
from notifyd.errors import NotifydError
from notifyd.model import SECOND, Clock
from notifyd.post import check_response, post
from notifyd.registry.egress import open_session
from notifyd.registry.registry import Registry
from notifyd.security.secrets import Secret

log = logging.getLogger(__name__)

_TIMEOUT: Final = 10.0
_LOOK: Final = 1.0
"""Seconds after which the configuration is looked at again: a reload may have brought another heartbeat."""


class Heartbeat:
    """Calls `heartbeat.url` by an empty POST, once in each `heartbeat.interval`, while `ready` raises nothing.

    One call at a time: where the answer takes longer than the interval, the next one follows at once. Each fault
    that keeps it from calling is logged once, and once that it calls again.
    """

    def __init__(
        self, *, current: Callable[[], Registry], ready: Callable[[], Awaitable[None]], clock: Clock
    ) -> None:
        self._current = current
        self._ready = ready
        self._clock = clock
        self._faults: set[str] = set()

    async def run(self) -> None:
        """Beat until cancelled."""
        while True:
            settings, begun = self._settings(), time.monotonic()
            if settings.url is not None:
                await self.beat(settings.url)
            await self._rest(settings, begun)

    def _settings(self) -> Settings:
        return self._current().settings.heartbeat

    async def _rest(self, settings: Settings, begun: float) -> None:
        """Until the next beat is due, or the configuration asks for another heartbeat."""
        until = begun + (settings.interval / SECOND if settings.url else _LOOK)
        while self._settings() == settings:
            left = until - time.monotonic()
            if left <= 0:
                return
            await asyncio.sleep(min(left, _LOOK))

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
        except Exception as error:  # noqa: BLE001 - the watcher is no reason to end; its text may show the URL
            return self._note(f"the call failed with {type(error).__name__}")
        return self._note(None)

    async def _call(self, url: Secret, registry: Registry) -> None:
        tls = registry.settings.egress.tls_ca
        context = await asyncio.to_thread(tls.context) if tls else None
        async with open_session(registry.guard, limit=1, timeout=_TIMEOUT, tls=context) as session:
            answer = await post(session, url, b"")
            check_response(answer.status, answer.headers, now=self._clock())

    def _note(self, fault: str | None) -> bool:
        if fault is None and self._faults:
            log.info("the heartbeat goes on")
            self._faults.clear()
        elif fault is not None and fault not in self._faults:
            self._faults.add(fault)
            log.warning("no heartbeat: %s", self._current().redactor.text(fault))
        return fault is None
