"""Group commit: many callers' steps, one transaction, one flush to disk.

Steps run on the event loop, where they take microseconds each, because their pages are in memory. The commit,
which waits for the disk, runs on one thread, and meanwhile the loop leaves the connection alone: steps that arrive
then wait for the next batch, which so grows with the load. The loop is woken once for each batch.

A checkpoint has two parts. The log is copied into the database on a connection and a thread of their own, while
commits go on. Then the writer's own thread copies the little that came meanwhile, so that the log can start over.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any, Final, Generic, TypeAlias, TypeVar

from attrs import define, frozen

from notifyd.errors import StoreError, StoreUnusableError
from notifyd.store import CHECKPOINT, CommitObserver
from notifyd.store.sqlite.copier import Copier, copy_log
from notifyd.store.sqlite.files import STEP_CODES, Database, primary_code, store_error
from notifyd.store.sqlite.guard import FileGuard
from notifyd.store.sqlite.wal import WalGauge

T = TypeVar("T")
Commit: TypeAlias = Callable[[Database], object]

MIB: Final = 1024 * 1024
_log = logging.getLogger("notifyd.store")


@frozen
class Limits:
    """How much is done at once. Sizes are bytes of the write-ahead log in use, times seconds."""

    batch_steps: int = 512
    batch_seconds: float = 0.01  # of the event loop's time
    idle_checkpoint: int = 4 * MIB  # checkpoint at this size when nothing waits
    busy_checkpoint: int = 16 * MIB  # checkpoint at this size whatever waits
    rest: int = 4 * MIB  # copy once more beside the commits where so much came meanwhile
    truncate: int = 64 * MIB  # wait for the copy, and a moment for readers, so that the log can start over
    truncate_wait: float = 0.05
    checkpoint_pause: float = 0.1  # between two checkpoints
    blocked_pause: float = 1.0  # after one that a reader, such as a backup, kept from its end
    lock_timeout: float = 2.0  # for another program's lock


@define(eq=False)
class _Step(Generic[T]):
    run: Callable[[Database], T]
    future: asyncio.Future[T]
    result: Any = None
    error: Exception | None = None

    def settle(self, fault: StoreError | None) -> None:
        if self.future.done():  # its caller gave up waiting
            return
        if fault is not None:
            self.future.set_exception(type(fault)(fault.detail))
        elif self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class _SpoiltError(Exception):
    """A step failed after it had written something, so the transaction cannot be committed as it is.

    Or it met text that is not UTF-8, and can go on from its start.
    """


def commit(db: sqlite3.Connection) -> None:
    db.execute("COMMIT")


class GroupWriter:
    """Owns the writing connection. Made, used and closed on one event loop."""

    def __init__(
        self,
        db: Database,
        path: Path,
        guard: FileGuard,
        *,
        worker: ThreadPoolExecutor,
        copier: Copier,
        observer: CommitObserver | None = None,
        limits: Limits | None = None,
        commit: Commit = commit,
    ) -> None:
        self._db = db
        self._path = path
        self._guard = guard
        self._worker = worker  # one thread
        self._copier = copier
        self._observer = observer
        self._limits = limits or Limits()
        self._commit = commit
        self._wal = WalGauge(path)
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Step[Any]] = deque()
        self._busy = False  # a turn is scheduled, or the worker has the connection
        self._closed = False
        self._rest = asyncio.Event()
        self._rest.set()
        self._wal_used = 0
        self._copying = False
        self._copied = 0  # bytes of the log: what was there when the last copy began
        self._checkpoint_after = 0.0  # loop time
        self._checkpoint_wanted = False
        self._checkpoint_fault = ""
        self._failing = False
        self._changes = 0

    def submit(self, run: Callable[[Database], T]) -> asyncio.Future[T]:
        """The future result of a step, which comes once it is durable.

        `run` may be called twice, the first call's writes undone. Its exception reaches this caller alone.
        A future that is cancelled before its step's turn withdraws the step.
        """
        if self._closed:
            raise StoreError(f"{self._path}: the store is closed")
        step = _Step(run, self._loop.create_future())
        self._waiting.append(step)
        self._wake()
        return step.future

    async def aclose(self) -> None:
        """Commit what was handed in, empty the log into the database, and close."""
        self._closed = True
        await self._rest.wait()
        await self._loop.run_in_executor(self._worker, self._copier.close)
        await self._loop.run_in_executor(self._worker, self._close)

    # -- on the event loop --------------------------------------------------------------------------------

    def _wake(self) -> None:
        if not self._busy:
            self._busy = True
            self._rest.clear()
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        if self._checkpoint_due():
            if self._checkpoint_wanted or self._little_is_left:
                self._worker.submit(self._checkpoint)
                return
            self._copy()
        if self._waiting and not self._outgrown:
            self._begin()
        else:
            self._busy = False
            if not self._waiting:
                self._rest.set()

    def _begin(self) -> None:
        if self._guard.broken is not None:
            self._refuse(self._guard.broken)
            return
        try:
            self._start_transaction()
        except sqlite3.Error as error:
            if primary_code(error) == sqlite3.SQLITE_BUSY:
                self._worker.submit(self._begin_patiently)
            else:
                self._refuse(self._guard.fault(error))
        else:
            self._run_batch()

    def _begun(self, fault: StoreError | None) -> None:
        if fault is None:
            self._run_batch()
        else:
            self._refuse(fault)

    def _refuse(self, fault: StoreError) -> None:
        """Fail all that waits: no transaction can be begun."""
        self._tell(fault)
        waiting, self._waiting = self._waiting, deque()
        for step in waiting:
            step.settle(fault)
        self._loop.call_soon(self._turn)

    def _run_batch(self) -> None:
        batch: list[_Step[Any]] = []
        try:
            self._take_steps(batch)
        except _SpoiltError:
            try:
                self._rerun_apart(batch)
            except sqlite3.Error as error:
                self._abandon(batch, error)
                return
        except sqlite3.Error as error:
            self._abandon(batch, error)
            return
        self._worker.submit(self._commit_batch, batch)

    def _take_steps(self, batch: list[_Step[Any]]) -> None:
        """Run waiting steps, at least one, within the limits, adding each to `batch`."""
        end = perf_counter() + self._limits.batch_seconds
        while self._waiting and len(batch) < self._limits.batch_steps:
            step = self._waiting.popleft()
            if step.future.done():  # its caller gave up waiting
                continue
            batch.append(step)
            self._run_step(step)
            if perf_counter() >= end:
                break

    def _run_step(self, step: _Step[Any]) -> None:
        before = self._db.total_changes
        try:
            step.result = step.run(self._db)
        except Exception as error:
            if isinstance(error, sqlite3.Error) and self._db.reads_on(error):
                raise _SpoiltError from error
            self._blame(step, error)
            if self._db.total_changes != before:
                raise _SpoiltError from error

    def _rerun_apart(self, batch: list[_Step[Any]]) -> None:
        """Begin again with each step in a savepoint: dear, so only when one has failed."""
        self._start_transaction()
        for step in batch:
            step.result = step.error = None
            self._db.execute("SAVEPOINT step")
            try:
                step.result = step.run(self._db)
            except Exception as error:  # noqa: BLE001 - whatever it is belongs to the step's caller
                self._blame(step, error)
                self._db.execute("ROLLBACK TO step")
            self._db.execute("RELEASE step")

    def _blame(self, step: _Step[Any], error: Exception) -> None:
        """Lay `error` on the step, or raise it where it is the file's and not the step's."""
        if isinstance(error, sqlite3.Error):
            if not self._db.in_transaction or primary_code(error) not in STEP_CODES:
                raise error
            error = self._guard.fault(error)
        step.error = error

    def _abandon(self, batch: list[_Step[Any]], error: sqlite3.Error) -> None:
        self._worker.submit(self._roll_back_batch, batch, self._guard.fault(error))

    def _tell(self, fault: StoreError | None) -> None:
        """Log once that nothing can be written, and once that something was. Of its place the guard tells."""
        changed, self._changes = self._db.total_changes != self._changes, self._db.total_changes
        if fault is None:
            if self._failing and changed:
                _log.warning("%s: is written again", self._path)
                self._failing = False
        elif not self._failing and not isinstance(fault, StoreUnusableError):
            _log.error("%s; until it can be written no event is taken", fault.detail)
            self._failing = True

    def _settle(self, batch: list[_Step[Any]], fault: StoreError | None, seconds: float) -> None:
        self._tell(fault)
        try:
            for step in batch:
                step.settle(fault)
        finally:  # the turn comes after the callers just woken, so that their next steps join the batch
            self._loop.call_soon(self._turn)
        if fault is None and self._observer is not None:
            self._observer.commit(seconds, len(batch))

    @property
    def _outgrown(self) -> bool:
        """Must the log not grow on before a copy is done that is under way?"""
        return self._copying and self._wal_used >= self._limits.truncate

    @property
    def _little_is_left(self) -> bool:
        """Has the log been copied but for what came meanwhile?"""
        return self._copied > 0 and self._wal_used - self._copied < self._limits.rest

    def _checkpoint_due(self) -> bool:
        if self._copying:
            return False
        limit = self._limits.busy_checkpoint if self._waiting else self._limits.idle_checkpoint
        due = self._wal_used >= limit or self._checkpoint_wanted
        return due and self._loop.time() >= self._checkpoint_after

    def _copy(self) -> None:
        self._copying = True
        wake, copied = self._loop.call_soon_threadsafe, self._wal_used
        self._copier.start(lambda fault: wake(self._copy_done, copied, fault))

    def _copy_done(self, copied: int, fault: str) -> None:
        self._copying = False
        self._copied = copied
        if fault:
            self._pause(complete=False, fault=fault)
        if self._waiting or not self._closed:
            self._wake()

    def _checkpointed(self, complete: bool, fault: str) -> None:
        self._pause(complete, fault)
        self._turn()

    def _pause(self, complete: bool, fault: str) -> None:
        """Leave the log's size alone for a moment."""
        pause = self._limits.checkpoint_pause if complete else self._limits.blocked_pause
        self._checkpoint_after = self._loop.time() + pause
        self._checkpoint_wanted = False
        self._wal_used = self._copied = 0  # until the next commit tells: the log may start over
        if fault and fault != self._checkpoint_fault:
            _log.warning("checkpoint failed, will be repeated: %s", fault)
        if fault and self._observer is not None:
            self._observer.store_error(CHECKPOINT)
        self._checkpoint_fault = fault

    # -- on the worker ------------------------------------------------------------------------------------

    def _start_transaction(self) -> None:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")
        self._db.execute("BEGIN IMMEDIATE")

    def _begin_patiently(self) -> None:
        """Begin a transaction as soon as another program lets go of its lock."""
        fault = None
        try:
            with self._patience(self._limits.lock_timeout):
                self._start_transaction()
        except sqlite3.Error as error:
            fault = self._guard.fault(error)
        self._loop.call_soon_threadsafe(self._begun, fault)

    def _commit_batch(self, batch: list[_Step[Any]]) -> None:
        start = perf_counter()
        fault = None
        try:
            self._guard.check_if_astray()
            self._commit(self._db)
            # Only now: a file that was still there before the commit may have gone while it lasted.
            self._guard.check()
            self._wal_used = self._wal.used()
        except Exception as error:  # noqa: BLE001 - each caller is told; a worker that died would leave them waiting
            fault = self._guard.fault(error)
            self._roll_back()
        seconds = perf_counter() - start
        self._loop.call_soon_threadsafe(self._settle, batch, fault, seconds)

    def _roll_back_batch(self, batch: list[_Step[Any]], fault: StoreError) -> None:
        self._roll_back()
        self._loop.call_soon_threadsafe(self._settle, batch, fault, 0.0)

    def _roll_back(self) -> None:
        """Undo what a failed commit left. The log may have no room: a checkpoint would let it start over."""
        self._checkpoint_wanted = True
        try:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        except sqlite3.Error as error:
            # The next transaction begins with a rollback of its own, and fails aloud if that fails too.
            _log.warning("rollback failed: %s", store_error(self._path, error))

    def _checkpoint(self) -> None:
        complete, fault = False, ""
        try:
            self._guard.check_whole()
            if self._wal_used >= self._limits.truncate or self._guard.astray:
                complete = self._truncate_log(self._limits.truncate_wait)
            else:
                complete = copy_log(self._db)
        except Exception as error:  # noqa: BLE001 - a worker that died would leave every caller waiting
            fault = str(self._guard.fault(error))
        self._loop.call_soon_threadsafe(self._checkpointed, complete, fault)

    def _truncate_log(self, wait: float) -> bool:
        """Empty the log, waiting for readers for `wait` seconds; False where one was in the way."""
        with self._patience(wait):
            (busy, _, _) = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return not busy

    @contextmanager
    def _patience(self, seconds: float) -> Iterator[None]:
        """Let statements wait for another program's lock: only ever here, never on the event loop."""
        self._db.execute(f"PRAGMA busy_timeout = {int(seconds * 1000)}")
        try:
            yield
        finally:
            self._db.execute("PRAGMA busy_timeout = 0")

    def _close(self) -> None:
        try:
            self._guard.check_whole()
            self._truncate_log(self._limits.lock_timeout)
        except (StoreError, sqlite3.Error) as error:
            _log.warning("the last checkpoint failed: %s", store_error(self._path, error))
        finally:
            self._wal.close()
            self._db.close()
