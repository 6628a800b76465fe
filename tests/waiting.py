"""Waiting for a condition, and never for a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

T = TypeVar("T")

PATIENCE: Final = 30.0
"""Seconds that a condition has to come true. It is of no use to fail sooner: the machine may be busy."""


async def until(condition: Callable[[], T], seconds: float = PATIENCE) -> T:
    """What `condition` gives, once that is true. TimeoutError where it does not come to."""
    async with asyncio.timeout(seconds):
        while not (result := condition()):  # noqa: ASYNC110 - nobody tells when it does
            await asyncio.sleep(0.01)
    return result


async def until_async(condition: Callable[[], Awaitable[T]], seconds: float = PATIENCE) -> T:
    """The same for an async `condition`."""
    async with asyncio.timeout(seconds):
        while not (result := await condition()):  # noqa: ASYNC110 - nobody tells when it does
            await asyncio.sleep(0.01)
    return result
