"""The longer part of a checkpoint: the log is copied into the database while commits go on."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from notifyd.store.sqlite.guard import FileGuard


class Copier:
    """A connection and a thread of its own. A failed copy loses nothing: the log keeps what it has."""

    def __init__(self, db: sqlite3.Connection, guard: FileGuard) -> None:
        self._db = db
        self._guard = guard
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store-copy")

    def start(self, done: Callable[[str], object]) -> None:
        """Copy what the log holds now; `done` is called on the thread with what went wrong, else with ''."""
        self._thread.submit(self._copy, done)

    def _copy(self, done: Callable[[str], object]) -> None:
        fault = ""
        try:
            copy_log(self._db)
        except Exception as error:  # noqa: BLE001 - a thread that died would leave the writer waiting
            fault = str(self._guard.fault(error))
        done(fault)

    def close(self) -> None:
        """Wait for a copy under way, then close. Blocks."""
        self._thread.shutdown()
        self._db.close()


def copy_log(db: sqlite3.Connection) -> bool:
    """Copy as much of the log into the database as no reader holds back, waiting for nobody; is that all of it?

    See SQLITE_CHECKPOINT_PASSIVE in https://www.sqlite.org/c3ref/wal_checkpoint_v2.html.
    """
    busy, frames, done = db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    return not busy and frames == done
