"""Channels that listen for answers: each on one node at a time, begun again where it ends, and ended in time."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Collection
from typing import Final

from attrs import frozen

from notifyd.errors import JobTakenError, PermanentError, StoreError, TransientError
from notifyd.flow.attempt import DETAIL_LIMIT, Discretion
from notifyd.flow.calls import called, stop
from notifyd.flow.jobs import JobLease
from notifyd.metrics import Metrics
from notifyd.model import SECOND, Clock
from notifyd.plugin import Inbox, Listening
from notifyd.registry.channels import OpenChannel, is_ours
from notifyd.registry.registry import Registry
from notifyd.store import Store

log = logging.getLogger(__name__)

FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0
"""Seconds before a channel that has stopped listening begins again: doubling from the first to the longest."""

_STEADY: Final = 60.0
"""Seconds of listening after which the pauses begin anew."""

_TURN: Final = 5.0
"""Seconds after which another node's turn is asked for again."""

_LAST_WORDS: Final = 2.0
"""Seconds that a channel is given to end once it is cancelled."""


class Listeners:
    """`inbox` gives where a channel hands in what it is told."""

    def __init__(
        self,
        *,
        store: Store,
        current: Callable[[], Registry],
        inbox: Callable[[OpenChannel], Inbox],
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._store = store
        self._current = current
        self._inbox = inbox
        self._metrics = metrics
        self._clock = clock
        self._running: dict[str, _Running] = {}

    async def adjust(self) -> None:
        """Listen with the channels that are in force now. Those of before have stopped first."""
        channels = self._current().channels.values()
        wanted = {one.name: one for one in channels if one.answers and isinstance(one.channel, Listening)}
        await self._stop([name for name, one in self._running.items() if wanted.get(name) is not one.channel])
        self._metrics.name_listeners(wanted)
        for name, channel in wanted.items():
            if name not in self._running:
                task = asyncio.create_task(self._listen(channel), name=f"listening of {name}")
                self._running[name] = _Running(channel, task)

    async def aclose(self) -> None:
        """Stop listening. Bounded in time, whatever channels do."""
        await self._stop(list(self._running))

    async def _stop(self, names: Collection[str]) -> None:
        tasks = [self._running.pop(name).task for name in names]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=2 * _LAST_WORDS)

    async def _listen(self, channel: OpenChannel) -> None:
        lease = JobLease(f"listen:{channel.name}", self._store, self._lease_time, self._clock)
        pause, loop = FIRST_PAUSE, asyncio.get_running_loop()
        left: set[asyncio.Task[None]] = set()
        while True:
            if left:  # beside another it would be told everything twice
                await asyncio.wait(left)
            began = loop.time()
            try:
                async with lease.held():
                    await self._hold(channel, lease, left)
            except JobTakenError as error:
                log.debug("channel %s: %s", channel.name, error)
                await asyncio.sleep(_TURN)
                continue
            except StoreError as error:
                log.warning("channel %s listens again once the store answers: %s", channel.name, error)
            else:
                self._metrics.listen_ends.labels(channel.name).inc()
            if loop.time() - began >= _STEADY:
                pause = FIRST_PAUSE
            wait = pause * random.uniform(0.5, 1)  # nosec B311 # noqa: S311 - no secret
            log.warning("channel %s listens again in %.1f s", channel.name, wait)
            await asyncio.sleep(wait)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _lease_time(self) -> int:
        return self._current().settings.dispatch.lease

    async def _hold(self, channel: OpenChannel, lease: JobLease, left: set[asyncio.Task[None]]) -> None:
        """Listen until the channel stops. Raises `JobTakenError`, `StoreError` where the lease is not renewed."""
        task = asyncio.create_task(called(channel, self._call(channel)))
        self._metrics.listening.labels(channel.name).set(1)
        try:
            while not (await asyncio.wait({task}, timeout=self._lease_time() / SECOND / 3))[0]:
                await lease.keep()
        finally:
            self._metrics.listening.labels(channel.name).set(0)
            if not task.done():
                complaint = f"channel {channel.name} goes on listening though it was cancelled"
                await stop(task, _LAST_WORDS, left, complaint)

    async def _call(self, channel: OpenChannel) -> None:
        """Raises nothing but its cancellation by `_hold`: a plugin may raise anything, SystemExit too."""
        assert isinstance(channel.channel, Listening)  # nosec B101 # noqa: S101 - told to mypy
        discretion = Discretion(self._current().redactor)
        try:
            await channel.channel.listen(self._inbox(channel))
            log.warning("channel %s has stopped listening", channel.name)
        except (TransientError, PermanentError) as error:
            said = discretion.text(error.detail, DETAIL_LIMIT)
            log.warning("channel %s has stopped listening: %s", channel.name, said)
        except BaseException as error:
            if is_ours(error):
                raise
            discretion.log(channel.name, error)


@frozen
class _Running:
    channel: OpenChannel
    task: asyncio.Task[None]
