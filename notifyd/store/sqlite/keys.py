"""Which row bears a key: a unique index over hashes, written in bulk.

A key is a hash, so in an index over a table's keys each new row has a page of its own to change, once there are
more pages than rows in a commit. So a new row's key is kept in memory at first, in the bucket of its part of the
hashes; when there are many, a bucket at a time is merged into `<table>_keys`, in order, many keys to a page
(ADR 0011). `key_marks` tells up to which row all keys are there: those of later rows are read at the start.

Nothing here decides alone. An entry says where to look, and the row that is found says what its tenant and key
are: so an entry of a row that was rolled back or removed does no harm.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from zlib import crc32

from attrs import frozen

KEPT: Final = 32_768
"""How many of a table's keys memory holds before the next bucket is merged."""

AT_ONCE: Final = 1_024
"""How many keys one step merges, at most: steps run on the event loop."""

_BUCKETS: Final = 128
_SHIFT: Final = 48 - 7  # leaves of a hash the bits that number its bucket
_MASK: Final = (1 << 48) - 1


def hash_of(key: str) -> int:
    """The 48 bits that a key is looked up by: of a SHA-256 in hex the last. Keys may share them: the row tells."""
    try:
        return int(key[-12:], 16) & _MASK  # "-1" is a number too
    except ValueError:  # a key that is none of notifyd's own
        return crc32(key.encode()) << 16


_COLUMNS: Final = {"events": "key", "deliveries": "id", "audit": "id"}
"""The tables that have hashes for keys, and the columns these are in."""


def bearing(table: str, tenant: str, key: str) -> str:
    """The condition on a row of `table` that it bears a tenant's key, each a parameter or a column.

    The plus keeps SQLite from an index that begins with the tenant, and so from all of the tenant's rows.
    """
    return (
        f"{table}.rowid IN (SELECT recent_{table}({key})"  # noqa: S608 - names of our own
        f" UNION ALL SELECT row FROM {table}_keys WHERE hash = key_hash({key}))"
        f" AND +{table}.tenant = {tenant} AND {table}.{_COLUMNS[table]} = {key}"
    )


def entry_of_old(table: str) -> list[str]:
    """The query that goes to the entry of `old`, a row of `table`; none where its keys are an index's."""
    if table not in _COLUMNS:
        return []
    return [f"(SELECT 1 FROM {table}_keys WHERE hash = key_hash(old.{_COLUMNS[table]}) AND row = old.rowid)"]  # noqa: S608


class Database(sqlite3.Connection):
    """A connection to notifyd's file, with what is known of keys in memory: see `attach`."""

    keys: Keys


@frozen
class Merged:
    """What a merge wrote: of one bucket the hashes after one and up to another, of the rows up to one."""

    bucket: int
    after: int
    hash: int
    row: int
    whole: bool

    def left(self, keys: dict[int, int]) -> dict[int, int]:
        """Those of a bucket's keys that it did not write."""
        return {
            hash_: row for hash_, row in keys.items() if not self.after < hash_ <= self.hash or row > self.row
        }


class KeyIndex:
    """The keys of one table. Changed by the writer's steps alone; looked into from any thread.

    It numbers the rows, never one twice: an entry of a row that is gone is never taken for another's.
    """

    def __init__(self, table: str) -> None:
        self.table = table
        self.count = 0  # of the keys in memory
        self._buckets: list[dict[int, int]] = [{} for _ in range(_BUCKETS)]  # hash to row, rows ascending
        self._newest = 0  # the number given last
        self._settled = 0  # the one given last of those that were committed
        self._turn = 0  # the bucket to merge next
        self._after = -1  # the hash to go on from in it
        names = {"table": table, "key": _COLUMNS[table], "bearing": bearing(table, "?1", "?2")}
        self._may = "SELECT 1 FROM {table}_keys WHERE hash = ? LIMIT 1".format_map(names)
        self._find = "SELECT rowid FROM {table} WHERE {bearing}".format_map(names)
        self._keep = "INSERT OR IGNORE INTO {table}_keys (hash, row) VALUES (?, ?)".format_map(names)
        self._oldest = "SELECT coalesce(min(rowid), ?) FROM {table}".format_map(names)
        self._load = "SELECT {key}, rowid FROM {table} WHERE rowid > ? ORDER BY rowid".format_map(names)

    # -- looking ------------------------------------------------------------------------------------------

    def recent(self, key: str) -> int | None:
        """The row that may bear `key`, if it is one of those in memory."""
        hash_ = hash_of(key)
        return self._buckets[hash_ >> _SHIFT].get(hash_)

    def find(self, db: sqlite3.Connection, tenant: str, key: str) -> int | None:
        """The row that bears `key`, for the writer. Nearly every new key is told by its hash to have none."""
        hash_ = hash_of(key)
        if hash_ not in self._buckets[hash_ >> _SHIFT] and db.execute(self._may, (hash_,)).fetchone() is None:
            return None
        found = db.execute(self._find, (tenant, key)).fetchone()
        return None if found is None else int(found[0])

    # -- writing ------------------------------------------------------------------------------------------

    def insert(self, db: sqlite3.Connection, statement: str, values: tuple[Any, ...]) -> int | None:
        """Insert a row by a statement of rowid, tenant, key and the rest; its number, None if the key is there.

        `values` are those from the tenant on.
        """
        if self.find(db, values[0], values[1]) is not None:
            return None
        return self.insert_new(db, statement, values)

    def insert_new(self, db: sqlite3.Connection, statement: str, values: tuple[Any, ...]) -> int:
        """As `insert`, of a key that was looked for in this very step and not found."""
        row = self._newest + 1
        db.execute(statement, (row, *values))
        self._add(db, values[1], row)
        return row

    def _add(self, db: sqlite3.Connection, key: str, row: int) -> None:
        self._newest = row
        hash_ = hash_of(key)
        if self._buckets[hash_ >> _SHIFT].setdefault(hash_, row) == row:
            self.count += 1
        else:  # two keys of one hash: memory has room for one
            db.execute(self._keep, (hash_, row))

    def settle(self) -> None:
        """What was inserted has been committed."""
        self._settled = self._newest

    def undo(self) -> None:
        """Forget what was inserted since it was last settled: it has been rolled back."""
        if self._newest == self._settled:
            return
        for bucket in self._buckets:
            while bucket and next(reversed(bucket.values())) > self._settled:
                bucket.popitem()
                self.count -= 1
        self._newest = self._settled

    # -- merging ------------------------------------------------------------------------------------------

    @property
    def full(self) -> bool:
        return self.count > KEPT

    def merge(self, db: sqlite3.Connection) -> Merged:
        """Write the next bucket's keys, at most `AT_ONCE`. Memory keeps them until `merged` is told."""
        bucket, others = self._buckets[self._turn], [*self._buckets]
        waiting = sorted(item for item in bucket.items() if item[0] > self._after)
        taken = waiting[:AT_ONCE]
        (oldest,) = db.execute(self._oldest, (self._newest + 1,)).fetchone()
        db.executemany(self._keep, [item for item in taken if item[1] >= oldest])  # what retention has left
        last = taken[-1][0] if taken else self._after
        done = Merged(self._turn, self._after, last, self._newest, whole=len(taken) == len(waiting))
        others[self._turn] = done.left(bucket)
        first = min((next(iter(other.values())) for other in others if other), default=self._newest + 1)
        db.execute("UPDATE key_marks SET row = ? WHERE name = ?", (first - 1, self.table))
        return done

    def merged(self, done: Merged) -> None:
        """Forget what a merge wrote, now that it is durable."""
        bucket = self._buckets[done.bucket]
        self._buckets[done.bucket] = left = done.left(bucket)
        self.count += len(left) - len(bucket)
        if done.whole:
            self._turn, self._after = (done.bucket + 1) % _BUCKETS, -1
        else:
            self._after = done.hash

    # -- opening ------------------------------------------------------------------------------------------

    def load(self, db: sqlite3.Connection) -> None:
        """Read the keys of the rows past the mark, as the life before left them."""
        (mark,) = db.execute("SELECT row FROM key_marks WHERE name = ?", (self.table,)).fetchone()
        self._newest = mark
        for key, row in db.execute(self._load, (mark,)):
            self._add(db, key, row)
        self.settle()


class Keys:
    """The keys of all tables that have hashes for keys."""

    def __init__(self) -> None:
        self.events = KeyIndex("events")
        self.deliveries = KeyIndex("deliveries")
        self.audit = KeyIndex("audit")

    def __iter__(self) -> Iterator[KeyIndex]:
        return iter((self.events, self.deliveries, self.audit))

    def settle(self) -> None:
        for index in self:
            index.settle()

    def undo(self) -> None:
        for index in self:
            index.undo()


def attach(db: Database, keys: Keys) -> None:
    """Let a connection's statements look keys up."""
    db.keys = keys
    register(db)
    for index in keys:
        db.create_function(f"recent_{index.table}", 1, index.recent)


def register(db: sqlite3.Connection) -> None:
    db.create_function("key_hash", 1, hash_of, deterministic=True)


_REMOVE: Final = """
CREATE TEMP TRIGGER {0}_keys_remove AFTER DELETE ON main.{0} BEGIN
    DELETE FROM {0}_keys WHERE hash = key_hash(old.{1}) AND row = old.rowid;
END
"""


def begin(db: Database, keys: Keys) -> None:
    """Make a connection the writer's: what it removes takes its keys along, and what a life left is read."""
    attach(db, keys)
    for index in keys:
        db.execute(_REMOVE.format(index.table, _COLUMNS[index.table]))
    with _little_cache(db):
        for index in keys:
            index.load(db)


@contextmanager
def _little_cache(db: sqlite3.Connection) -> Iterator[None]:
    """Keep few of the pages that are read: whole rows are read for their keys, and each of them once."""
    (size,) = db.execute("PRAGMA cache_size").fetchone()
    db.execute("PRAGMA cache_size = -256")
    try:
        yield
    finally:
        db.execute(f"PRAGMA cache_size = {size}")
