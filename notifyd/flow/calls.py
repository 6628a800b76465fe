"""Calls of a channel's methods: bounded in time though a channel is deaf to its cancellation, and known by it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from types import FrameType
from typing import Any, Final, TypeVar

from notifyd.registry.channels import OpenChannel

log = logging.getLogger(__name__)

T = TypeVar("T")

LAST_WORDS: Final = 0.5
"""Seconds that a channel is given to end once it is cancelled."""

MAX_STRAYS: Final = 8
"""After so many calls of a channel were left behind, and go on, it is not called any more."""


async def called(channel: OpenChannel, call: Coroutine[Any, Any, T]) -> T:
    """What `call` gives or raises. Its frame names the channel to whoever looks at the stack: see `calling`."""
    return await call


def calling(frame: FrameType) -> str | None:
    """The channel whose method runs where this frame is on the stack; None for any other frame."""
    return str(frame.f_locals["channel"].name) if frame.f_code is called.__code__ else None


async def bounded(
    channel: OpenChannel, call: Coroutine[Any, Any, T], strays: set[asyncio.Task[T]], what: str
) -> T:
    """What `call` gives or raises within the channel's `timeout`, else `TimeoutError`.

    One that goes on when it is cancelled is left behind, among `strays`; `what` names it in the log.
    """
    # In a task of its own, because a coroutine that is awaited ends when it likes.
    task = asyncio.create_task(called(channel, call))
    try:
        await _ended(task, channel.timeout)
    finally:
        if not task.done():
            complaint = f"channel {channel.name} does not end {what} that was cancelled: it is left behind"
            await stop(task, LAST_WORDS, strays, complaint)
    if task.done() and not task.cancelled():
        return task.result()
    raise TimeoutError


async def _ended(task: asyncio.Task[Any], seconds: float) -> None:
    """Wait until the task has ended, for so long at most: `asyncio.wait` for one task, at half its price."""
    loop = asyncio.get_running_loop()
    woken = loop.create_future()

    def wake(_: object = None) -> None:
        if not woken.done():
            woken.set_result(None)

    timer = loop.call_later(seconds, wake)
    task.add_done_callback(wake)
    try:
        await woken
    finally:
        timer.cancel()
        task.remove_done_callback(wake)


async def stop(task: asyncio.Task[T], seconds: float, strays: set[asyncio.Task[T]], complaint: str) -> None:
    """Cancel a call, and give it `seconds` to end. One that goes on regardless is left behind, among `strays`."""
    task.cancel()
    try:
        await asyncio.wait({task}, timeout=seconds)
    finally:
        if not task.done():
            log.error("%s", complaint)
            strays.add(task)
            task.add_done_callback(strays.discard)
