"""Reading, off the event loop: each query runs on a thread, over a connection that cannot write."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar

from notifyd.store.sqlite.files import open_reader
from notifyd.store.sqlite.guard import FileGuard

T = TypeVar("T")


class Readers:
    """As many connections as threads, so that a long list does not hold up a short look-up."""

    def __init__(self, path: Path, guard: FileGuard, *, count: int, timeout: float) -> None:
        self._guard = guard
        self._free: SimpleQueue[sqlite3.Connection] = SimpleQueue()
        for _ in range(count):
            self._free.put(open_reader(path, timeout))
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="store-read")

    async def run(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """What `query` answers, over all that was committed before. Raises `StoreError`."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._run, query)

    def _run(self, query: Callable[[sqlite3.Connection], T]) -> T:
        db = self._free.get()
        try:
            return query(db)
        except sqlite3.Error as error:
            raise self._guard.fault(error) from error
        finally:
            self._free.put(db)

    def close(self) -> None:
        """Wait for the queries under way, then close. Blocks."""
        self._threads.shutdown()
        while not self._free.empty():
            self._free.get().close()
