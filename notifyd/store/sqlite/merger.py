"""Moves keys from memory into the file, a bucket at a time, each a step among those of the callers."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Final

from notifyd.errors import StoreError
from notifyd.store.sqlite.keys import Keys
from notifyd.store.sqlite.writer import GroupWriter

_log: Final = logging.getLogger("notifyd.store")


class Merger:
    """Looks after each commit whether memory holds too many keys, and merges until it does not."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._task: asyncio.Task[None] | None = None
        self._fault = ""
        self._closed = False

    def look(self, writer: GroupWriter) -> None:
        idle = self._task is None or self._task.done()
        if idle and not self._closed and any(index.full for index in self._keys):
            self._task = asyncio.create_task(self._merge(writer))

    async def _merge(self, writer: GroupWriter) -> None:
        try:
            while full := [index for index in self._keys if index.full]:
                # First, so that one is in every batch and memory stays bounded however many callers wait.
                done = await asyncio.gather(*(writer.submit(index.merge, first=True) for index in full))
                for index, one in zip(full, done, strict=True):
                    index.merged(one)
            self._fault = ""
        except StoreError as error:
            if error.detail != self._fault:
                _log.warning("keys stay in memory, their merge will be repeated: %s", error)
            self._fault = error.detail

    async def aclose(self) -> None:
        """Leave what is in memory to the next start, which reads it from the rows."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
