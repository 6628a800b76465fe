"""Lists, newest first, by keyset: a page goes on below the rowid that the last one ended at.

A list is a merge of streams. In a stream, a stretch of one index, rows are in the order of their rowids, so that
a page reads no more of it than it shows: one index over (tenant, channel, state) serves a list by all of them, by
any, and by none. Rowids come from the index alone, and of rows only those are read that the page shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from heapq import nlargest
from sqlite3 import SQLITE_INTERRUPT, Connection, OperationalError
from typing import Any, Final, Generic, TypeVar

import orjson
from attrs import frozen

from notifyd.store import PAGE_BYTES, PAGE_LOOKS, Page
from notifyd.store.sqlite.files import Database, primary_code
from notifyd.store.sqlite.rows import Kind, Row, some, sql

T = TypeVar("T")

_OLDEST: Final = 0
"""Below every rowid."""


@frozen
class Source(Generic[T]):
    """Where a list comes from. The index is named, because the planner, without statistics, guesses.

    `partial` is the condition of an index over only some of the rows. `rest` is what stands in a list for the
    values of the kind's last columns, which are not read.
    """

    kind: Kind[T]
    index: str
    partial: str = ""
    rest: tuple[Any, ...] = ()

    @property
    def table(self) -> str:
        return self.kind.table

    @property
    def columns(self) -> tuple[str, ...]:
        """Those that are read."""
        return self.kind.columns[: len(self.kind.columns) - len(self.rest)]


def newest_first(
    db: Database, source: Source[T], streams: Iterable[Mapping[str, Any]], page: Page
) -> tuple[list[T], int | None]:
    """A page of the rows that equal all terms of one of the `streams`, and the position it ended at.

    A row that does not decode takes its place on the page, and is not shown.
    """
    with _snapshot(db):
        found = nlargest(page.limit + 1, _positions(db, source, streams, page, _OLDEST))
        return _shown(db, source, found, page, _OLDEST)


def looked_through(
    db: Database, source: Source[T], terms: Mapping[str, Any], wanted: Mapping[str, Any], page: Page
) -> tuple[list[T], int | None]:
    """A page of the stream's rows that equal `wanted` too, which no index has.

    It ends after `PAGE_LOOKS` rows, however few it has found: then it goes on from the last that was looked at.
    """
    with _snapshot(db):
        floor = db.execute(_floor(source, tuple(terms)), {**terms, **_bounds(page, _OLDEST)}).fetchone()
        lowest = _OLDEST if floor is None else floor[0]
        found = list(_positions(db, source, [{**terms, **wanted}], page, lowest))
        return _shown(db, source, found, page, lowest)


@contextmanager
def _snapshot(db: Connection) -> Iterator[None]:
    """What is read in this block is of one time."""
    db.execute("BEGIN")
    try:
        yield
    finally:
        db.set_progress_handler(None, 0)  # what has stopped the list would stop this too
        db.execute("ROLLBACK")


def _positions(
    db: Connection, source: Source[Any], streams: Iterable[Mapping[str, Any]], page: Page, lowest: int
) -> Iterator[int]:
    for terms in streams:
        query = _stretch(source, tuple(terms))
        yield from (position for (position,) in db.execute(query, {**terms, **_bounds(page, lowest)}))


def _bounds(page: Page, lowest: int) -> dict[str, int]:
    above = 2**63 - 1 if page.after is None else page.after
    return {"above": above, "lowest": lowest, "limit": page.limit + 1, "looks": PAGE_LOOKS}


def _shown(
    db: Database, source: Source[T], found: Sequence[int], page: Page, lowest: int
) -> tuple[list[T], int | None]:
    """The rows at these positions, as many as a page may hold in number, bytes and time: one if there is one."""
    shown: list[Row] = []
    room = PAGE_BYTES
    try:
        for row in db.execute(_rows(source), (orjson.dumps(found[: page.limit]).decode(),)):
            room -= sum(len(value) for value in row if isinstance(value, str))
            if room < 0 and shown:
                break
            shown.append((*row, *source.rest))
    except OperationalError as error:
        if not shown or primary_code(error) != SQLITE_INTERRUPT:
            raise
    after = found[len(shown) - 1] if len(shown) < len(found) else lowest or None
    return some(db, source.kind, shown, whole=not source.rest), after


@cache
def _stretch(source: Source[Any], names: tuple[str, ...]) -> str:
    return sql(
        *("SELECT rowid FROM", source.table, "INDEXED BY", source.index, "WHERE"),
        _equal(source, names),
        "AND rowid < :above AND rowid >= :lowest ORDER BY rowid DESC LIMIT :limit",
    )


@cache
def _floor(source: Source[Any], names: tuple[str, ...]) -> str:
    """The query for the last row that one page may look at."""
    return sql(
        *("SELECT rowid FROM", source.table, "INDEXED BY", source.index, "WHERE"),
        _equal(source, names),
        "AND rowid < :above ORDER BY rowid DESC LIMIT 1 OFFSET :looks - 1",
    )


def _equal(source: Source[Any], names: tuple[str, ...]) -> str:
    return " AND ".join([*(f"{name} = :{name}" for name in names), *filter(None, [source.partial])])


@cache
def _rows(source: Source[Any]) -> str:
    """The query for rows in the order of a JSON array of their rowids: one, so that it can be stopped."""
    return sql(
        *("SELECT", ", ".join((f"{source.table}.rowid", *source.columns))),
        "FROM (SELECT value AS position FROM json_each(?)) AS shown",
        f"CROSS JOIN {source.table} ON {source.table}.rowid = shown.position",
    )
