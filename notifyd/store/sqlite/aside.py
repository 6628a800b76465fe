"""Looking at rows that are set aside again, and setting aside what a step can do nothing with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeAlias

from notifyd.model import Approval, Delivery, Event
from notifyd.store import CollectionName
from notifyd.store.aside import KEYS, LOOKED_AT
from notifyd.store.sqlite import rows
from notifyd.store.sqlite.files import Database
from notifyd.store.sqlite.rows import has_key, sql

Row: TypeAlias = Event | Approval | Delivery

_COLLECTIONS: Final[Mapping[type[Row], CollectionName]] = {
    Event: CollectionName.EVENTS,
    Approval: CollectionName.APPROVALS,
    Delivery: CollectionName.DELIVERIES,
}
_NUMBER: Final[Mapping[CollectionName, str]] = {
    CollectionName.EVENTS: sql("SELECT rowid FROM events WHERE", has_key("events", ":tenant", ":key")),
    CollectionName.APPROVALS: (
        "SELECT rowid FROM approvals"
        " WHERE tenant = :tenant AND run_id = :run_id AND approval_id = :approval_id"
    ),
    CollectionName.DELIVERIES: sql(
        "SELECT rowid FROM deliveries WHERE", has_key("deliveries", ":tenant", ":id")
    ),
}


def note(db: Database, row: Row, fault: str) -> bool:
    """Set aside a row that decodes, if it is there. False where it is set aside already."""
    collection = _COLLECTIONS[type(row)]
    key = {name: getattr(row, name) for name in KEYS[collection]}
    found = db.execute(_NUMBER[collection], key).fetchone()
    return found is None or db.aside.put(collection, found[0], key, fault, noted=True)


def look_again(db: Database) -> None:
    """Read some rows that are set aside, and forget what has been repaired, or removed."""
    db.aside.lapse()
    for table, kind in rows.KINDS.items():
        for number in db.aside.untried(table, LOOKED_AT):
            found = db.execute(kind.by_number, (number,)).fetchone()
            if found is None:
                db.aside.drop(table, number)
            else:
                rows.some(db, kind, [found])
