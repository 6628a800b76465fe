"""From a path to an open store: what is taken hold of, in order, and given up again where it fails."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from sqlite3 import Connection, Error
from typing import Final

from attrs import evolve

from notifyd.errors import StoreUnusableError
from notifyd.model import Clock
from notifyd.store import CommitObserver
from notifyd.store.aside import SetAside
from notifyd.store.sqlite.copier import Copier
from notifyd.store.sqlite.files import (
    FileLock,
    ensure_file,
    needs_file,
    open_copier,
    open_writer,
    store_error,
)
from notifyd.store.sqlite.guard import FileGuard
from notifyd.store.sqlite.readers import Readers
from notifyd.store.sqlite.schema import FORGET_STRAYS, check_shape, check_version, migrate
from notifyd.store.sqlite.store import Parts, SqliteStore
from notifyd.store.sqlite.writer import Commit, GroupWriter, Limits, commit

_log = logging.getLogger("notifyd.store")

_READERS: Final = 2
"""Threads, and connections, for each kind of reading: none waits for another kind."""


async def open_sqlite(
    path: Path,
    *,
    node: str,
    clock: Clock,
    create: bool = True,
    upgrade: bool = True,
    timeout: float = 2.0,
    observer: CommitObserver | None = None,
    limits: Limits | None = None,
    commit: Commit = commit,
) -> SqliteStore:
    """Open the file at `path` for this process alone; all leases in it are void.

    A file that is missing or empty becomes an empty store, unless `create` is false. One of an earlier notifyd is
    brought to the newest schema, unless `upgrade` is false.

    `node` is named to those who find the file in use. `timeout` is how long to wait for a lock that another
    program holds on the database for a moment, and how long a page of a list may take, in seconds.

    Raises `StoreMissingError` where there is no store, `StoreOutdatedError` where its schema is older and may not
    be changed, `StoreInUseError` where another process has the file open, `StoreUnusableError` where it is corrupt
    or not one of this notifyd's, and `StoreError`, naming file or folder, where it cannot be used for now.
    """
    worker = ThreadPoolExecutor(1, thread_name_prefix="store-write")
    limits = evolve(limits or Limits(), lock_timeout=timeout)
    try:
        opening = partial(_open, Path(path), node, timeout, create, upgrade, SetAside(observer))
        parts = await asyncio.get_running_loop().run_in_executor(worker, opening)
    except BaseException:
        worker.shutdown(wait=False)
        raise
    writer = GroupWriter(
        parts.db,
        parts.path,
        parts.guard,
        worker=worker,
        copier=parts.copier,
        observer=observer,
        limits=limits,
        commit=commit,
    )
    return SqliteStore(parts, writer, worker, clock)


def _open(named: Path, node: str, timeout: float, create: bool, upgrade: bool, aside: SetAside) -> Parts:
    path = named.resolve()
    with ExitStack() as undo:
        try:
            new = needs_file(path, create)
            lock = FileLock(path, node)
            undo.callback(lock.release)
            ensure_file(path)
            check_version(path, upgrade)
            db = open_writer(path, aside)
            undo.callback(db.close)
            migrate(db, path)
            check_shape(db, path)
            if new:
                _log.warning("%s: no store was there, an empty one is made", path)
            life = _begin_life(db, path)
            guard = FileGuard(named, path)
            copier = Copier(open_copier(path), guard)
            undo.callback(copier.close)
            readers, lists, surveys = (
                Readers(path, guard, name, count=_READERS, timeout=timeout, aside=aside)
                for name in ("read", "list", "survey")
            )
        except (OSError, Error) as error:
            raise store_error(path, error) from error
        undo.pop_all()
        return Parts(path, lock, db, guard, copier, readers, lists, surveys, timeout, life)


def _begin_life(db: Connection, path: Path) -> int:
    """Void every lease there is, by counting one life on: a lease of an earlier one is not looked at."""
    if not db.execute("UPDATE store SET life = life + 1").rowcount:
        raise StoreUnusableError(
            f"{path}: lacks its row in store: another program has changed it, restore a backup"
        )
    for statement in FORGET_STRAYS:
        db.execute(statement)
    life: int = db.execute("SELECT life FROM store").fetchone()[0]
    return life
