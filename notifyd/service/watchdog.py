"""Finds out that the event loop stands still, and what holds it up: a thread that asks for a sign of life.

A channel that blocks holds up every other. That cannot be undone from outside, but it can be named. A loop that
never turns again is ended by the service manager, see `service/systemd.py`.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Final, Self

from notifyd.flow.calls import calling
from notifyd.metrics import OTHER, Metrics
from notifyd.registry.registry import Registry

log = logging.getLogger(__name__)

THRESHOLD: Final = 1.0
"""Seconds without a turn after which the loop counts as blocked."""

_SHOWN: Final = 5
"""How many frames of the stack are told, the innermost first."""

_IDLE: Final = frozenset({"selectors", "asyncio.base_events", "asyncio.runners"})
"""Modules whose frame is the innermost where the loop waits for something to do."""


class Watchdog:
    """Watches the loop it is entered in: `async with Watchdog(current, metrics)`.

    Each blockage is told once when it is found, with the channel and the place, and once when it is over.
    """

    def __init__(
        self, current: Callable[[], Registry], metrics: Metrics, *, threshold: float = THRESHOLD
    ) -> None:
        self._current = current
        self._metrics = metrics
        self._threshold = threshold
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._watched = threading.get_ident()
        self._thread.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._ended.set()
        # Not by a thread of the loop's pool: plugins may have taken all of them, and never given them back.
        while self._thread.is_alive():  # noqa: ASYNC110 - nothing tells the loop that a thread has ended
            await asyncio.sleep(0.01)

    def _watch(self) -> None:
        while not self._ended.wait(self._threshold / 2):
            turned = threading.Event()
            try:
                self._loop.call_soon_threadsafe(turned.set)
            except RuntimeError:
                return  # it is closed
            # Twice: where the whole process stood still, both threads go on together, and the loop gets a moment.
            if not (turned.wait(self._threshold) or turned.wait(self._threshold / 10)):
                self._on_blocked(turned)

    def _on_blocked(self, turned: threading.Event) -> None:
        began, stack = time.monotonic() - self._threshold, self._stack()
        if stack[0].f_globals.get("__name__") in _IDLE:
            return  # this machine is busy, the loop is not
        channel = channel_in(stack, self._current())
        self._metrics.loop_blocked.labels(channel).inc()
        culprit = f"channel {channel}" if channel != OTHER else "no channel that is known"
        log.warning("the event loop is blocked, by %s: %s", culprit, " < ".join(map(place, stack[:_SHOWN])))
        while not (turned.wait(self._threshold) or self._ended.is_set()):
            pass
        log.warning("the event loop turns again, after %.1f s", time.monotonic() - began)

    def _stack(self) -> Sequence[FrameType]:
        """The frames of the loop's thread, the innermost first."""
        return stack_from(sys._current_frames()[self._watched])  # noqa: SLF001 - documented, for this use


def stack_from(frame: FrameType | None) -> list[FrameType]:
    """This frame and those that called it, the innermost first."""
    stack = []
    while frame is not None:
        stack.append(frame)
        frame = frame.f_back
    return stack


def channel_in(stack: Sequence[FrameType], registry: Registry) -> str:
    """The channel that is running: the one whose method is called, else the only one with code of that package."""
    for frame in stack:
        if (name := calling(frame)) is not None:
            return name
    packages = [str(frame.f_globals.get("__name__", "")).partition(".")[0] for frame in stack]
    for package in packages:
        named = [c.name for c in registry.channels.values() if _package(c.channel) == package != "notifyd"]
        if len(named) == 1:
            return named[0]
    return OTHER


def _package(channel: object) -> str:
    return str(type(channel).__module__).partition(".")[0]


def place(frame: FrameType) -> str:
    return f"{frame.f_globals.get('__name__')}:{frame.f_lineno} {frame.f_code.co_name}"
