"""Reading, off the event loop: each query runs on a thread, over a connection that cannot write."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Final, Generic, TypeVar

from attrs import define

from notifyd.errors import ListTimeoutError
from notifyd.store.aside import SetAside
from notifyd.store.sqlite.files import Database, open_reader, primary_code
from notifyd.store.sqlite.guard import FileGuard

T = TypeVar("T")

_STEPS: Final = 1000
"""After how many steps of SQLite's machine a query asks whether to go on: the time of some 30 rows."""


class Readers:
    """As many connections as threads, so that a long query does not hold up a short one, up to that number."""

    def __init__(
        self, path: Path, guard: FileGuard, name: str, *, count: int, timeout: float, aside: SetAside
    ) -> None:
        self._guard = guard
        self._free: SimpleQueue[Database] = SimpleQueue()
        for _ in range(count):
            self._free.put(open_reader(path, timeout, aside))
        self._threads = ThreadPoolExecutor(count, thread_name_prefix=f"store-{name}")

    async def run(self, query: Callable[[Database], T]) -> T:
        """What `query` answers, over all that was committed before. Raises `StoreError`."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._run, query)

    async def run_within(self, seconds: float, query: Callable[[Database], T]) -> T:
        """As `run`, but the query is interrupted after so long, its wait for a thread included.

        So it is where its caller gives up. Raises `ListTimeoutError`, unless the query makes do with what it has.
        """
        asked = _Stoppable(query)
        work = self._threads.submit(self._run, asked)
        loop, ends = asyncio.get_running_loop(), (work.cancel, asked.stop)  # before its turn, and in it
        timers = [loop.call_later(seconds, end) for end in ends]
        task = asyncio.current_task()
        try:
            return await asyncio.wrap_future(work)
        except asyncio.CancelledError:
            if task is not None and task.cancelling():
                raise
            raise ListTimeoutError from None
        finally:
            for timer in timers:
                timer.cancel()
            asked.stop()

    def _run(self, query: Callable[[Database], T]) -> T:
        db = self._free.get()
        try:
            return _answer(query, db)
        except sqlite3.Error as error:
            if primary_code(error) == sqlite3.SQLITE_INTERRUPT:
                raise ListTimeoutError from error
            raise self._guard.fault(error) from error
        finally:
            self._free.put(db)

    def close(self) -> None:
        """Wait for the queries under way, then close. Blocks."""
        self._threads.shutdown()
        while not self._free.empty():
            self._free.get().close()


def _answer(query: Callable[[Database], T], db: Database) -> T:
    try:
        return query(db)
    except sqlite3.Error as error:
        if not db.reads_on(error):
            raise
        return query(db)


@define(eq=False)
class _Stoppable(Generic[T]):
    """A query that ends once it is `stopped`, which the event loop may set at any time.

    SQLite asks every so many steps of its machine. `sqlite3_interrupt` would end the statement that happens to
    run, and, between two of them, none.
    """

    query: Callable[[Database], T]
    stopped: bool = False

    def __call__(self, db: Database) -> T:
        db.set_progress_handler(lambda: self.stopped, _STEPS)
        try:
            return self.query(db)
        finally:
            db.set_progress_handler(None, 0)

    def stop(self) -> None:
        self.stopped = True
