"""What many callers ask for at once is written together.

A batch waits for the one before it, and so grows with the load, as the database's own commit does.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from contextvars import Context
from typing import Generic, TypeVar

from attrs import define, field

T = TypeVar("T")


@define(eq=False)
class Batches(Generic[T]):
    """Entries that wait to be written. Used on one event loop.

    `write` takes a batch from those that wait, at least one, writes it, and tells their callers what came of it.
    """

    write: Callable[[deque[T]], Awaitable[None]]
    _waiting: deque[T] = field(factory=deque)
    _task: asyncio.Task[None] | None = None

    def add(self, entries: Iterable[T]) -> None:
        self._waiting.extend(entries)
        if self._task is None:
            # In a context of its own: the first caller's deadline is not that of those who come later.
            self._task = asyncio.create_task(self._drain(), context=Context())

    async def settled(self) -> None:
        """Nothing is under way any more."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _drain(self) -> None:
        try:
            while self._waiting:
                await self.write(self._waiting)
        finally:
            self._task = None
