"""Calls of a channel under test that end in time, whatever it does: the kit never hangs with it."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Final, TypeVar

import pytest
from blockbuster import blockbuster_ctx

from notifyd.plugin import InboundRequest, InboundResponse, Receiving, TransientError

PATIENCE: Final = 20.0
"""Seconds within which a channel under test must have ended what it was told to do."""

PROMPT: Final = 1.0
"""Seconds that it may take to end what was cancelled. The daemon gives it half as many."""

T = TypeVar("T")


def demand(condition: object, complaint: str) -> None:
    if not condition:
        pytest.fail(complaint, pytrace=False)


async def within(seconds: float, call: Awaitable[T], what: str) -> T:
    """What `call` gives or raises. The test fails where it has not ended in time, or holds the event loop."""
    task = asyncio.ensure_future(call)
    with not_held(2 * seconds, what):
        await asyncio.wait({task}, timeout=seconds)
    if not task.done():
        await give_up(task)
        demand(False, f"{what} has not ended after {seconds:g} seconds")
    demand(not task.cancelled(), f"{what} raised CancelledError, and nobody had cancelled it")
    return task.result()


async def answered(
    channel: Receiving, request: InboundRequest, patience: float = PATIENCE
) -> InboundResponse:
    """What `channel` answers within `patience` seconds. `TransientError` alone is let through."""
    try:
        answer = await within(patience, channel.receive(request), "receive")
    except TransientError:
        raise
    except Exception as error:
        name = type(error).__name__
        raise AssertionError(f"receive raised {name}: answer what cannot be used by a status") from error
    demand(isinstance(answer, InboundResponse), f"receive gave {type(answer).__name__}")
    return answer


async def give_up(task: asyncio.Future[T]) -> bool:
    """Cancel it, and say whether it ended by that. One that is deaf to it is closed by force."""
    task.cancel()
    await asyncio.wait({task}, timeout=PROMPT)
    if task.done():
        return True
    if isinstance(task, asyncio.Task):
        with suppress(BaseException):
            task.get_coro().close()
        task.cancel()
        await asyncio.wait({task}, timeout=PROMPT)
    return False


@contextmanager
def unblocked(thing: object) -> Iterator[None]:
    """Here a call that blocks the event loop from the module of `thing` raises `blockbuster.BlockingError`.

    One at a time: of two that overlap, the one that ends last would put the other's patches back for good.
    """
    name = getattr(thing, "__module__", None) or type(thing).__module__
    with blockbuster_ctx(sys.modules[name]):
        yield


async def settled(condition: Callable[[], object], seconds: float) -> bool:
    """Does it become true within so many seconds?"""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110 - what it waits for tells nobody
                await asyncio.sleep(0.002)
    return bool(condition())


@contextmanager
def not_held(seconds: float, what: str) -> Iterator[None]:
    """Fails the test in the very line that holds the event loop so long: no timeout of asyncio's could end it.

    Signals reach the main thread only, and a timer of somebody else's, such as pytest-timeout's, goes on after.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(number: int, frame: FrameType | None) -> None:
        pytest.fail(f"{what} holds the event loop: nothing else of the daemon goes on", pytrace=False)

    handler = signal.signal(signal.SIGALRM, ring)
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, left, interval)
        signal.signal(signal.SIGALRM, handler)
