"""Fire drills: a test message through a channel on a schedule, so that one which is seldom used is known to work.

A drill goes to the channel at once, as `channels test` does: it is in no lane, no ledger and no count of messages,
and no silence holds it. When each channel was last drilled, and when with success, is kept in the store: so a
restart drills nothing again, and all nodes tell the same.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeAlias

from attrs import asdict, frozen

from notifyd.config.settings import Settings
from notifyd.config.units import MINUTE
from notifyd.errors import JobTakenError, RenderError, SealError, StoppingError
from notifyd.flow.jobs import JobLease
from notifyd.flow.trial import trial_message
from notifyd.metrics import Metrics
from notifyd.model import SECOND, Attempt, AttemptOutcome, Clock, Instant, Message
from notifyd.registry.channels import OpenChannel
from notifyd.registry.registry import Registry
from notifyd.registry.state import CHANNEL_STATE, DRILLS
from notifyd.security.secrets import Keyring
from notifyd.store import ChannelState, Job, Store

log = logging.getLogger(__name__)

AGAIN: Final = 5 * MINUTE
"""How soon (microseconds) a drill that failed is repeated, where `drill.interval` is not shorter."""

_NAME: Final = "last"
"""What a channel's times are kept under."""

Send: TypeAlias = Callable[[OpenChannel, Message], Awaitable[Attempt]]


@frozen
class Times:
    """When a channel was last drilled, and when with success; 0 for never."""

    tried: Instant = 0
    succeeded: Instant = 0

    def due(self, interval: Instant, now: Instant) -> bool:
        rest = interval if self.succeeded == self.tried else min(interval, AGAIN)
        return not 0 <= now - self.tried < rest  # a clock that was set back must not stop the drills


class Drills:
    """Of the nodes that share a store one at a time drills: it holds a lease. `send` raises `StoppingError`."""

    def __init__(
        self, *, store: Store, current: Callable[[], Registry], metrics: Metrics, clock: Clock, send: Send
    ) -> None:
        self._store = store
        self._current = current
        self._metrics = metrics
        self._clock = clock
        self._send = send
        self._lease = JobLease(Job.DRILL, store, lambda: _longest(current().settings), clock)

    async def sweep(self) -> int:
        """Drill what is due, unless another node is at it; answers how many channels. Raises `StoreError`."""
        due = self._due(await self._times())
        if not due:
            return 0
        try:
            async with self._lease.held():
                due = self._due(await self._times())  # another node may have been at it meanwhile
                await asyncio.gather(*(self._drill(name, times) for name, times in due.items()))
        except JobTakenError as error:
            log.debug("%s", error)
            return 0
        await self._times()
        return len(due)

    def _due(self, known: Mapping[str, Times]) -> dict[str, Times]:
        interval, now = self._current().settings.drill.interval, self._clock()
        return {name: times for name, times in known.items() if times.due(interval, now)}

    async def _drill(self, name: str, before: Times) -> None:
        registry, now = self._current(), self._clock()
        if name not in registry.settings.drill.channels:
            return  # a reload has come
        try:
            fault = await self._fault(registry, registry.channels[name], now)
        except StoppingError:
            return
        self._metrics.drilled(name, fault is None)
        if fault is not None:
            log.error("the fire drill of channel %s has failed: %s", name, fault)
        elif before.succeeded != before.tried:
            log.info("the fire drill of channel %s succeeds again", name)
        await self._keep(name, Times(now, now if fault is None else before.succeeded), registry.keyring)

    async def _fault(self, registry: Registry, channel: OpenChannel, now: Instant) -> str | None:
        """Send the message; what kept it from arriving, without secrets. Raises `StoppingError`."""
        recipient = registry.settings.drill.to if channel.personal else None
        try:
            made = await self._send(channel, trial_message(registry, channel, recipient, now, drill=True))
        except RenderError as error:
            return error.detail
        if made.outcome is not AttemptOutcome.SENT:
            return f"{made.reason}: {made.detail}"
        self._metrics.drill_seconds.labels(channel.name).observe(made.duration_ms / 1000)
        return None

    # -- what is kept -------------------------------------------------------------------------------------

    async def _times(self) -> Mapping[str, Times]:
        """Those of each channel that is drilled, which are told as numbers too."""
        registry = self._current()
        drill = registry.settings.drill
        known = {name: await self._kept(name, registry.keyring) for name in drill.channels}
        seconds = {name: (one.tried / SECOND, one.succeeded / SECOND) for name, one in known.items()}
        self._metrics.set_drills(seconds, drill.interval / SECOND)
        return known

    async def _kept(self, name: str, keyring: Keyring) -> Times:
        found = await self._store.channel_state(DRILLS + name, _NAME)
        try:
            return Times(**json.loads(keyring.open(CHANNEL_STATE, found.sealed))) if found else Times()
        except SealError:
            return Times()  # its key was given up

    async def _keep(self, name: str, times: Times, keyring: Keyring) -> None:
        sealed = keyring.seal(CHANNEL_STATE, json.dumps(asdict(times)).encode())
        await self._store.keep_channel_state(ChannelState(DRILLS + name, _NAME, sealed))


def _longest(settings: Settings) -> Instant:
    """How long the job is leased for: longer than the channels take, which are drilled at the same time."""
    timeouts = (settings.channels[name].timeout for name in settings.drill.channels)
    return settings.dispatch.lease + max(timeouts, default=0)
