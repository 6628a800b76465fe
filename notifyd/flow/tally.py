"""What the dispatcher counts: attempts, ends, what waits, and how fast it drains."""

from __future__ import annotations

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final

from prometheus_client import Gauge

from notifyd.flow.lane import Lane
from notifyd.metrics import Metrics
from notifyd.model import (
    APPROVAL_KIND,
    SECOND,
    Attempt,
    AttemptOutcome,
    Delivery,
    Instant,
    State,
    Wait,
    carries_ends,
)
from notifyd.store import AttemptRecord

log = logging.getLogger(__name__)

_INTERVAL: Final = 1.0
"""Seconds at least over which a drain rate is taken."""

_MAX_RETRY_AFTER: Final = 60.0
"""The longest wait, in seconds, that a caller is asked for."""


class Tally:
    """The dispatcher's numbers, and what follows from them for those who have to wait."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._ended = 0
        self._drain_rate = 0.0  # deliveries ended per second, smoothed
        self._reported = time.monotonic()
        self._told: defaultdict[Gauge, dict[str, float]] = defaultdict(dict)
        self._waits: dict[str, Mapping[Wait, int]] = {}
        self._known: Collection[str] = ()
        self._kept: Collection[str] = ()
        self._met: set[str] = set()  # the channels of which something was told since

    def attempt(self, delivery: Delivery, made: Attempt) -> None:
        outcome = made.reason.value if made.reason else made.outcome.value
        self._met.add(delivery.channel)
        self._metrics.attempt(delivery.channel, outcome).inc()
        if made.outcome is AttemptOutcome.SENT:
            self._metrics.succeeded(delivery.channel).set(made.at / SECOND)

    def end(self, delivery: Delivery, record: AttemptRecord, now: Instant) -> None:
        """A delivery is sent, or dead."""
        channel = delivery.channel
        self._ended += 1
        self._met.add(channel)
        self._metrics.delivery(channel, record.state.value).inc()
        if record.state is State.SENT:
            self._metrics.seconds(channel).observe(max(0, now - delivery.created_at) / SECOND)
            if delivery.kind == APPROVAL_KIND and not carries_ends(channel):
                self._metrics.approvals_sent.inc()
        else:
            self._metrics.dead_letters.labels(channel).inc()
            reason = record.reason.value if record.reason else "unknown"
            log.error("delivery %s to channel %s is dead: %s", delivery.id, channel, reason)

    def report(
        self,
        lanes: Iterable[Lane],
        channels: Iterable[str],
        held: Callable[[Lane], Mapping[Wait, int]],
        at: Instant,
    ) -> None:
        """Bring the gauges and the drain rate up to date. `held` tells what a lane's deliveries wait for."""
        now, known = time.monotonic(), set(channels)
        lanes = [lane for lane in lanes if lane.backlog or lane.waits or lane.channel in known]
        backlog = dict.fromkeys(known, 0)
        opened = dict.fromkeys(known, False)
        oldest = dict.fromkeys(known, at)
        for lane in lanes:
            if lane.backlog and lane.oldest is not None:
                oldest[lane.channel] = min(lane.oldest, oldest.get(lane.channel, at))
            backlog[lane.channel] = backlog.get(lane.channel, 0) + lane.backlog
            if lane.channel in known:
                opened[lane.channel] |= lane.breaker.open
        for channel, waiting in backlog.items():
            self._tell(self._metrics.backlog, channel, waiting)
            self._tell(self._metrics.oldest_pending, channel, (at - oldest.get(channel, at)) / SECOND)
        for channel, is_open in opened.items():
            self._tell(self._metrics.breaker_open, channel, is_open)
        if now - self._reported >= _INTERVAL:
            rate = self._ended / (now - self._reported)
            self._drain_rate += (rate - self._drain_rate) / 4
            self._ended, self._reported = 0, now
            self._report_held(lanes, backlog, held)
            self._keep(known, set(backlog))

    def _tell(self, gauge: Gauge, channel: str, value: float) -> None:
        """Most values of many channels stay as they are, and finding a series takes longer than knowing that."""
        told = self._told[gauge]
        if told.get(channel) != value:
            gauge.labels(channel).set(value)
            told[channel] = value
            self._met.add(channel)

    def _keep(self, known: Collection[str], kept: Collection[str]) -> None:
        """Forget the series of channels that are gone. To look for them takes as long as there are series."""
        same = not self._kept or (known == self._known and kept == self._kept)
        # A channel may have come and gone since. That of a breaker goes with it, whatever waits for it still.
        tried = self._told[self._metrics.breaker_open].keys()
        if not (same and self._met <= set(kept) and tried <= set(known)):
            self._metrics.keep_breakers(known)
            self._metrics.keep_channels(kept)
            for gauge, told in self._told.items():
                _forget(told, known if gauge is self._metrics.breaker_open else kept)
            _forget(self._waits, kept)
        self._known, self._kept = known, kept
        self._met.clear()

    def _report_held(
        self, lanes: Iterable[Lane], channels: Iterable[str], held: Callable[[Lane], Mapping[Wait, int]]
    ) -> None:
        waits: defaultdict[str, Counter[Wait]] = defaultdict(Counter)
        for lane in lanes:
            waits[lane.channel].update(held(lane))
        for channel in channels:
            if self._waits.get(channel) != waits[channel]:
                for why in Wait:
                    self._metrics.held.labels(channel, why.value).set(waits[channel][why])
                self._waits[channel] = waits[channel]

    def seconds_for(self, count: float) -> float:
        """Seconds until `count` have drained at the present rate: a caller's Retry-After."""
        return min(max(1.0, count / max(self._drain_rate, 1.0)), _MAX_RETRY_AFTER)


def _forget(by_channel: dict[str, Any], kept: Collection[str]) -> None:
    for channel in by_channel.keys() - set(kept):
        del by_channel[channel]
