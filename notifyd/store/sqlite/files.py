"""The database's file: who owns it, how it is made and opened, and what its faults are called."""

from __future__ import annotations

import fcntl
import os
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from notifyd.errors import StoreError, StoreInUseError, StoreMissingError, StoreUnusableError
from notifyd.store.aside import SetAside
from notifyd.store.upkeep import Usage

_FAULTS: Final = {
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_BUSY: "locked by another program",
    sqlite3.SQLITE_LOCKED: "locked by another program",
    sqlite3.SQLITE_CORRUPT: "the file is corrupt: restore a backup",
    sqlite3.SQLITE_NOTADB: "not an SQLite database, or corrupt: restore a backup",
    sqlite3.SQLITE_IOERR: "I/O error",
    sqlite3.SQLITE_READONLY: "the file is read-only",
    sqlite3.SQLITE_PERM: "access denied",
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened",
    sqlite3.SQLITE_NOMEM: "out of memory",
}
"""What the primary result codes mean for an operator (https://www.sqlite.org/rescode.html)."""

_CORRUPT: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_UNREADABLE: Final = frozenset(
    {
        sqlite3.SQLITE_IOERR_READ,
        sqlite3.SQLITE_IOERR_SHORT_READ,
        sqlite3.SQLITE_IOERR_CORRUPTFS,
        sqlite3.SQLITE_IOERR_DATA,
    }
)
"""What was written does not come back. A write that fails loses nothing: its callers are told."""
_LACKING: Final = re.compile(r"no such (table|column|index)|has no column")
"""No code of its own says that the schema was changed; the statements are notifyd's and fit its schema."""

_EXISTING: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
"""A link could lead root out of the folder, which need not be root's own."""

STEP_CODES: Final = frozenset(
    {
        sqlite3.SQLITE_ERROR,
        sqlite3.SQLITE_MISUSE,
        sqlite3.SQLITE_CONSTRAINT,
        sqlite3.SQLITE_TOOBIG,
        sqlite3.SQLITE_MISMATCH,
        sqlite3.SQLITE_RANGE,
    }
)
"""Faults of one step's own values, which say nothing about the file."""


def broken_pages(path: Path) -> list[str]:
    """What SQLite finds wrong with the pages of a file, ten faults at most; all of it is read.

    See https://www.sqlite.org/pragma.html#pragma_quick_check.
    """
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            told = [line for (line,) in db.execute("PRAGMA quick_check(10)")]
    except sqlite3.Error as error:
        return [str(error)]
    return [] if told == ["ok"] else told


def primary_code(error: sqlite3.Error) -> int:
    """The primary result code; that of a misuse for what the Python module raises of its own accord."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_MISUSE) & 0xFF


def store_error(path: object, error: BaseException) -> StoreError:
    """A `StoreError` that names the file and the fault, `StoreUnusableError` where rows are lost or may be."""
    if isinstance(error, StoreError):
        return error
    if not isinstance(error, sqlite3.Error):
        return StoreError(f"{path}: {error}")
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    if getattr(error, "sqlite_errorcode", None) in _UNREADABLE:
        return StoreUnusableError(f"{path}: cannot be read: see to the disk, or restore a backup ({name})")
    if _LACKING.search(str(error)):
        return StoreUnusableError(f"{path}: {error}: another program has changed it, restore a backup")
    kind = StoreUnusableError if primary_code(error) in _CORRUPT else StoreError
    return kind(f"{path}: {_FAULTS.get(primary_code(error), str(error))} ({name})")


class FileLock:
    """Ownership of a database by one process, by `flock` on `<database>.lock`.

    The system ends it with the process, however that ends. The file is never removed: a removed one could be
    locked by two. It is not the database itself, because closing any descriptor of that one would end
    SQLite's own locks (https://www.sqlite.org/howtocorrupt.html, 2.2).
    """

    def __init__(self, database: Path, node: str) -> None:
        """Raises `StoreInUseError` where another process has it, `StoreError` where it cannot be had."""
        path = database.with_name(f"{database.name}.lock")
        try:
            made = _made(path, database if database.exists() else database.parent)
            self._descriptor = os.open(path, _EXISTING) if made is None else made
        except OSError as error:
            raise _refused(database, error) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(self._descriptor, 300, 0).decode(errors="replace").strip()
            os.close(self._descriptor)
            raise StoreInUseError(f"{database}: in use by {owner or 'another process'}") from None
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"process {os.getpid()}, node {node}\n".encode(), 0)

    def release(self) -> None:
        os.close(self._descriptor)


def _made(path: Path, like: Path) -> int | None:
    """A new file, open, for its owner alone; None where there is one already.

    Made by root, it belongs to whoever `like` belongs to: a command that an operator runs as root must not shut
    the service out.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return None
    if os.geteuid() == 0:
        owner = like.stat()
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
    return descriptor


def _refused(database: Path, error: OSError) -> StoreError:
    folder = database.parent
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return StoreError(f"{folder}: no such folder; create it, or change store.url")
    return StoreError(f"{database}: cannot be written in {folder}: {error.strerror}")


def needs_file(path: Path, create: bool) -> bool:
    """Is there no store yet, so that one is to be made? An empty file is none.

    Raises `StoreMissingError`, and `StoreError` where a write-ahead log has lost its database: SQLite would
    throw it away, and with it what was committed.
    """
    try:
        if path.stat().st_size:
            return False
    except FileNotFoundError:
        pass
    except OSError as error:
        raise _refused(path, error) from error
    if not create:
        raise StoreMissingError(path)
    log = path.with_name(f"{path.name}-wal")
    if log.exists() and log.stat().st_size:
        raise StoreError(f"{log}: has lost its database {path}: put that back, or remove both")
    return True


def ensure_file(path: Path) -> None:
    """Create the database's file if it is not there; its WAL takes the same mode and owner."""
    try:
        descriptor = _made(path, path.parent)
    except OSError as error:
        raise _refused(path, error) from error
    if descriptor is None:
        return
    os.close(descriptor)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def usage(path: Path) -> Usage:
    """Raises `StoreError`."""
    parts = {"database": path, "log": path.with_name(f"{path.name}-wal")}
    try:
        sizes = {part: file.stat().st_size for part, file in parts.items() if file.exists()}
        free = os.statvfs(path.parent)
    except OSError as error:
        raise store_error(path, error) from error
    return Usage(sizes, free.f_bavail * free.f_frsize)


class Database(sqlite3.Connection):
    """A connection to a store's file, and which of its rows are set aside."""

    aside: SetAside

    def reads_on(self, error: sqlite3.Error) -> bool:
        """Was it text that is not UTF-8? Then this connection gives such text as bytes from now on.

        The module's own error tells what the text is, and no row after it is read.
        """
        if not str(error).startswith("Could not decode to UTF-8"):
            return False
        self.text_factory = _text_or_bytes
        return True


def _text_or_bytes(value: bytes) -> str | bytes:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def connect(path: Path, *, aside: SetAside | None = None, timeout: float = 0.0) -> Database:
    """A connection in which every transaction is begun by hand, for use from any one thread at a time.

    `timeout` is how long a statement waits for another program's lock, in seconds.
    """
    db: Database = sqlite3.connect(
        path,
        timeout=timeout,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
        factory=Database,
    )
    db.aside = aside or SetAside()
    return db


def open_writer(path: Path, aside: SetAside | None = None) -> Database:
    """The writing connection. A step must find its pages in memory, since it runs on the event loop.

    Nothing spills to disk before the commit, and checkpoints are the writer's own.
    """
    db = connect(path, aside=aside)
    try:
        (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise StoreError(f"{path}: this file system cannot hold a write-ahead log")
        for setting in (
            "synchronous = FULL",
            "wal_autocheckpoint = 0",
            "cache_size = -65536",
            "cache_spill = OFF",
            "secure_delete = OFF",
            "temp_store = MEMORY",
        ):
            db.execute(f"PRAGMA {setting}")
    except BaseException:
        db.close()
        raise
    return db


def open_copier(path: Path) -> Database:
    """A connection for checkpoints alone, which sync the database. Like a reader's it opens the log now."""
    db = connect(path)
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA wal_autocheckpoint = 0")
    db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    return db


def open_reader(path: Path, timeout: float, aside: SetAside | None = None) -> Database:
    """The log is opened at the first look into the file, by its name: now, while that leads to the right one."""
    db = connect(path, aside=aside, timeout=timeout)
    db.execute("PRAGMA query_only = ON")
    db.execute("PRAGMA temp_store = MEMORY")
    db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    return db
