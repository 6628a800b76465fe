"""The steps of moving: rows out, oldest first, and rows in, where they are not there yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from sqlite3 import Connection
from typing import Final

from attrs import evolve, frozen

from notifyd.model import Approval, AuditRecord, Delivery, Incident, State
from notifyd.store import CollectionName, Stored, StoredEvent
from notifyd.store.sqlite import approvals, audit, deliveries, events, rows
from notifyd.store.sqlite.rows import Row, sql


@frozen
class _Kind:
    """How a collection's rows are read: the columns, the tables that belong to it, and what a row becomes."""

    columns: tuple[str, ...]
    record: Callable[[Row], Stored]
    join: str = ""


def _event(row: Row) -> StoredEvent:
    *columns, unplanned = row
    return StoredEvent(rows.event_of(tuple(columns)), planned=not unplanned)


def _delivery(row: Row) -> Delivery:
    """As nobody's: whoever had leased it has it no longer, wherever it comes to."""
    delivery = rows.delivery_of(row)
    state = State.PENDING if delivery.state is State.SENDING else delivery.state
    return evolve(delivery, state=state, lease_owner=None, lease_until=0)


_SUPERSEDED: Final = """(
    SELECT json_group_array(json(decision)) FROM (
        SELECT decision FROM decisions INDEXED BY decisions_superseded WHERE approval = approvals.rowid
        ORDER BY decisions.rowid
    )
)"""


def _approval(row: Row) -> Approval:
    """With what was decided in earlier rounds before the rest."""
    *columns, superseded = row
    approval = rows.approval_of(tuple(columns))
    return evolve(approval, decisions=(*rows.decisions_of(superseded), *approval.decisions))


_KINDS: Final[Mapping[CollectionName, _Kind]] = {
    CollectionName.EVENTS: _Kind(
        (*rows.EVENT, "plan", "planning.event IS NOT NULL"),
        _event,
        "LEFT JOIN plans ON plans.event = events.rowid LEFT JOIN planning ON planning.event = events.rowid",
    ),
    CollectionName.APPROVALS: _Kind((*rows.APPROVAL, _SUPERSEDED), _approval),
    CollectionName.INCIDENTS: _Kind(rows.INCIDENT, rows.incident_of),
    CollectionName.DELIVERIES: _Kind(
        (*rows.DELIVERY, "message"), _delivery, "JOIN messages ON messages.delivery = deliveries.rowid"
    ),
    CollectionName.AUDIT: _Kind(rows.AUDIT, rows.audit_of),
}


def count(db: Connection, collection: CollectionName) -> int:
    (found,) = db.execute(f"SELECT count(*) FROM {collection}").fetchone()  # noqa: S608 - a name of our own
    number: int = found
    return number


def dump(
    db: Connection, collection: CollectionName, after: str, limit: int
) -> tuple[list[Stored], str | None]:
    kind = _KINDS[collection]
    query = sql(
        f"SELECT {collection}.rowid,",
        ", ".join(kind.columns),
        f"FROM {collection}",
        kind.join,
        f"WHERE {collection}.rowid > ? ORDER BY {collection}.rowid LIMIT ?",
    )
    found = db.execute(query, (int(after or 0), limit)).fetchall()
    return [kind.record(row[1:]) for row in found], str(found[-1][0]) if len(found) == limit else None


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
