"""The steps of retention: looking for rows that are old enough, reading what they stand on, and removing them.

Looking and reading are the readers'; only the removal is the writer's, and it looks again, since a row may have
changed in between. Old rows are cold: removing one takes ten pages or so that nobody has had in memory for weeks.
The writer works on the event loop and must not wait for a disk, so a reader fetches these pages before, into the
system's cache. A mark of where to go on is the age of a row and its rowid.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from sqlite3 import Connection
from time import perf_counter
from typing import Any, Final

from attrs import frozen

from notifyd.model import Instant
from notifyd.store import Aged, CollectionName, LegalHold
from notifyd.store.sqlite.rows import has_key, sql

STEP_SECONDS: Final = 0.005
"""How long one removal may hold the event loop, on which it runs; what is left over is for the next one."""

WARM_SECONDS: Final = 0.05
"""How long a reader may be busy with fetching pages for one removal."""

_SAME_APPROVAL: Final = (
    "other.tenant = old.tenant AND other.run_id = old.run_id AND other.approval_id = old.approval_id"
)
_OWES: Final = sql(
    "EXISTS (SELECT 1 FROM approvals AS other WHERE", _SAME_APPROVAL, "AND other.effects_due_at IS NOT NULL)"
)
_WANTED: Final = sql(
    "EXISTS (SELECT 1 FROM approvals AS other WHERE",
    _SAME_APPROVAL,
    "AND (other.status = 'pending' OR other.effects_due_at IS NOT NULL))",
)
_UNPLANNED: Final = "EXISTS (SELECT 1 FROM planning WHERE planning.event = old.rowid)"
_UNPLANNED_EVENT: Final = sql(
    "EXISTS (SELECT 1 FROM events JOIN planning ON planning.event = events.rowid WHERE",
    has_key("events", "old.tenant", "old.event_key"),
    ")",
)
_LABELLED: Final = """
(NOT json_valid(other.request) OR EXISTS (
    SELECT 1 FROM json_each(CASE WHEN json_valid(other.request) THEN other.request END, '$.labels') AS label
    WHERE label.key = :hold_key AND (:hold_value IS NULL OR label.value = :hold_value)
))
"""
"""What cannot be read is held: nobody knows its labels."""
_HELD: Final = sql(
    *("(EXISTS (SELECT 1 FROM approvals AS other WHERE", _SAME_APPROVAL, "AND", _LABELLED, ")"),
    *("OR EXISTS (SELECT 1 FROM incidents AS other WHERE", _SAME_APPROVAL, "AND", _LABELLED, "))"),
)


@frozen
class _Kind:
    """How a collection ages: by which column and index, what keeps a row, and what goes with it."""

    age: str
    over: str  # what an index over only the rows that are over needs
    kept: str
    part: tuple[str, str] | None = None  # what belongs to a row and stands in a table of its own, by a key


_KINDS: Final[Mapping[CollectionName, _Kind]] = {
    CollectionName.EVENTS: _Kind(
        "received_at",
        "",
        sql("(old.occurred_at >= :before OR", _UNPLANNED, "OR", _WANTED, ")"),
        ("plans", "event"),
    ),
    CollectionName.APPROVALS: _Kind(
        "ended_at",
        "ended_at IS NOT NULL AND",
        "(old.effects_due_at IS NOT NULL OR old.resume = 'queued')",
        ("decisions", "approval"),
    ),
    CollectionName.INCIDENTS: _Kind("closed_at", "open = 0 AND", "old.occurred_at >= :before"),
    CollectionName.DELIVERIES: _Kind(
        "ended_at",
        "ended_at IS NOT NULL AND",
        sql("(old.due_at IS NOT NULL OR", _UNPLANNED_EVENT, "OR", _OWES, ")"),
        ("messages", "delivery"),
    ),
    CollectionName.AUDIT: _Kind("at", "", "0"),
}


@frozen
class Candidate:
    rowid: int
    age: Instant
    removable: bool

    @property
    def mark(self) -> str:
        return f"{self.age}:{self.rowid}"


@frozen
class Removal:
    """How far a removal got among its candidates, and when it began (`perf_counter`)."""

    done: int
    removed: int
    began: float


def candidates(db: Connection, aged: Aged, limit: int, after: str) -> list[Candidate]:
    """Rows that are old enough, oldest first, each with whether it may go."""
    age, rowid = _position(after)
    terms, found = {**_terms(aged), "age": age, "rowid": rowid}, list[Candidate]()
    # Two searches, as SQLite does not search by rowid too where it compares pairs: all of one age would be read.
    for same_age in (True, False):
        query = _find(aged.collection, same_age=same_age, held=aged.hold is not None)
        found += [Candidate(*row) for row in db.execute(query, {**terms, "limit": limit - len(found)})]
    return found


def warm(db: Connection, aged: Aged, found: list[Candidate]) -> list[Candidate]:
    """Read the pages that removing takes; answers those of `found`, from its head, that there was time for."""
    end, statements = perf_counter() + WARM_SECONDS, _reads(db, aged.collection)
    for number, candidate in enumerate(found, start=1):
        if candidate.removable:
            for statement in statements:
                db.execute(statement, (candidate.rowid,)).fetchall()
        if perf_counter() >= end:
            return found[:number]
    return found


def remove(db: Connection, aged: Aged, found: list[Candidate]) -> Removal:
    """Remove those of `found` that may still go, as many as there is time for, and one at least."""
    began, removed, done = perf_counter(), 0, 0
    statement, terms = _delete(aged.collection, held=aged.hold is not None), _terms(aged)
    part = _KINDS[aged.collection].part
    for candidate in found:
        if candidate.removable and db.execute(statement, {**terms, "rowid": candidate.rowid}).rowcount:
            removed += 1
            if part is not None:
                db.execute(sql("DELETE FROM", part[0], "WHERE", part[1], "= ?"), (candidate.rowid,))
        done += 1
        if perf_counter() - began >= STEP_SECONDS:
            break
    return Removal(done, removed, began)


def _position(after: str) -> tuple[int, int]:
    if not after:
        return -(2**63), 0
    age, _, rowid = after.partition(":")
    try:
        return int(age), int(rowid)
    except ValueError:
        raise ValueError("the mark to go on from is none that this store gave") from None


def _terms(aged: Aged) -> dict[str, Any]:
    terms: dict[str, Any] = {"before": aged.before}
    return terms if aged.hold is None else terms | _label(aged.hold)


def _label(hold: LegalHold) -> dict[str, Any]:
    return {"hold_key": hold.key, "hold_value": hold.value}


@cache
def _find(collection: CollectionName, *, same_age: bool, held: bool) -> str:
    kind = _KINDS[collection]
    return sql(
        f"SELECT rowid, {kind.age},",
        _removable(collection, held=held),
        f"FROM {collection} AS old INDEXED BY {collection}_by_age WHERE",
        kind.over,
        f"{kind.age} < :before AND",
        f"{kind.age} = :age AND rowid > :rowid" if same_age else f"{kind.age} > :age",
        f"ORDER BY {kind.age}, rowid LIMIT :limit",
    )


@cache
def _delete(collection: CollectionName, *, held: bool) -> str:
    kind = _KINDS[collection]
    return sql(
        *("DELETE FROM", collection, "AS old WHERE rowid = :rowid AND", kind.over),
        f"{kind.age} < :before AND",
        _removable(collection, held=held),
    )


def _reads(db: Connection, collection: CollectionName) -> list[str]:
    """Statements that read what a row, by its rowid, stands on: its own pages, and its place in each index."""
    row = sql(
        "SELECT", ", ".join(["old.*", *_places(db, collection)]), "FROM", collection, "AS old WHERE rowid = ?"
    )
    part = _KINDS[collection].part
    return [row] if part is None else [row, sql("SELECT * FROM", part[0], "WHERE", part[1], "= ?")]


def _places(db: Connection, table: str) -> list[str]:
    """For each index of a table what goes to the place of `old` in it, if it has one there."""
    indexes = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = ?"
    places = []
    for name, text in db.execute(indexes, (table,)).fetchall():
        partial = text.partition(" WHERE ")[2] or "1"
        columns = db.execute("SELECT name FROM pragma_index_info(?)", (name,))
        same = " AND ".join(
            ["own.rowid = old.rowid", *(f"own.{column} IS old.{column}" for (column,) in columns)]
        )
        place = sql("(SELECT 1 FROM", table, "AS own INDEXED BY", name, "WHERE", same, "AND", partial, ")")
        places.append(f"CASE WHEN {partial} THEN {place} END")
    return places


def _removable(collection: CollectionName, *, held: bool) -> str:
    return sql("NOT", _KINDS[collection].kept, *(("AND NOT", _HELD) if held else ()))
