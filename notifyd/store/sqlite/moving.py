"""The steps of moving: rows out, oldest first, and rows in, where they are not there yet."""

from __future__ import annotations

from collections.abc import Sequence
from sqlite3 import Connection
from typing import Any, Final

from attrs import evolve

from notifyd.model import Approval, AuditRecord, AuditSeal, Delivery, Event, Incident, State
from notifyd.store import SEALS, CollectionName, Stored, StoredEvent
from notifyd.store.sqlite import approvals, audit, audit_seals, deliveries, events, rows
from notifyd.store.sqlite.files import Database
from notifyd.store.sqlite.rows import sql

_BEFORE_ALL: Final = -(2**63)
"""Below every number that a row can have."""


def _unleased(delivery: Delivery) -> Delivery:
    """As nobody's: whoever had leased it has it no longer, wherever it comes to."""
    state = State.PENDING if delivery.state is State.SENDING else delivery.state
    return evolve(delivery, state=state, lease_owner=None, lease_until=0)


_SEALS: Final = sql(
    "SELECT rowid, tenant, number, envelope FROM audit_seals WHERE rowid > ? ORDER BY rowid LIMIT ?"
)
_UNPLANNED: Final = "SELECT EXISTS (SELECT 1 FROM planning WHERE event = ?)"
_SUPERSEDED: Final = sql(
    rows.DECISIONS.select_by("decisions_superseded"), "WHERE approval = ? ORDER BY decisions.rowid"
)


def count(db: Connection, collection: CollectionName) -> int:
    (found,) = db.execute(f"SELECT count(*) FROM {collection}").fetchone()  # nosec B608 # noqa: S608 - a name of our own
    number: int = found
    return number


def dump(db: Database, collection: CollectionName, after: str, limit: int) -> tuple[list[Stored], str | None]:
    """Rows that do not decode are left out."""
    if after.startswith(SEALS):
        return _seals(db, after.removeprefix(SEALS), limit)
    kind = rows.KINDS[collection]
    number = f"{collection}.rowid"
    query = sql(kind.select, f"WHERE {number} > ? ORDER BY {number} LIMIT ?")
    found = db.execute(query, (int(after) if after else _BEFORE_ALL, limit)).fetchall()
    stored = [_stored(db, row[0], record) for row in found for record in rows.some(db, kind, [row])]
    end = SEALS if collection is CollectionName.AUDIT else None
    return stored, str(found[-1][0]) if len(found) == limit else end


def _seals(db: Connection, after: str, limit: int) -> tuple[list[Stored], str | None]:
    found = db.execute(_SEALS, (int(after or 0), limit)).fetchall()
    return [AuditSeal(*row[1:]) for row in found], f"{SEALS}{found[-1][0]}" if len(found) == limit else None


def _stored(db: Database, number: int, record: Any) -> Stored:
    match record:
        case Event():
            (unplanned,) = db.execute(_UNPLANNED, (number,)).fetchone()
            return StoredEvent(record, planned=not unplanned)
        case Approval():
            superseded = rows.some(db, rows.DECISIONS, db.execute(_SUPERSEDED, (number,)))
            return evolve(record, decisions=(*superseded, *record.decisions))
        case Delivery():
            return _unleased(record)
    found: Stored = record
    return found


def restore(db: Connection, given: Sequence[Stored]) -> int:
    return sum(_restore(db, row) for row in given)


def _restore(db: Connection, row: Stored) -> bool:
    """Insert one row; False where its key is there already."""
    match row:
        case StoredEvent():
            return events.restore(db, row)
        case Approval():
            return approvals.restore(db, row)
        case Incident():
            return approvals.restore_incident(db, row)
        case Delivery():
            return deliveries.insert_row(db, 0, row)
        case AuditRecord():
            return audit.restore(db, row)
        case AuditSeal():
            return audit_seals.restore(db, row)
