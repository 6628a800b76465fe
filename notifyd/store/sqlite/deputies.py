"""The steps over `deputies`."""

from __future__ import annotations

from sqlite3 import Connection
from typing import Final

from notifyd.model import AuditRecord, Instant, OwnDeputy
from notifyd.store.sqlite import audit, rows
from notifyd.store.sqlite.files import Database
from notifyd.store.sqlite.rows import sql
from notifyd.store.sqlite.windows import AT_ONCE

_INSERT: Final = rows.insert_if_new("deputies", rows.DEPUTY)
_LIVE: Final = sql(rows.DEPUTIES.select_by("deputies_live"), "WHERE over_at > ? ORDER BY deputies.rowid")
_END: Final = """
UPDATE deputies SET ended_at = :at WHERE tenant = :tenant AND id = :id AND ended_at IS NULL AND over_at > :at
"""
_FORGET: Final = """
DELETE FROM deputies WHERE rowid IN (
    SELECT rowid FROM deputies INDEXED BY deputies_live WHERE over_at < ? LIMIT ?
)
"""


def add(db: Connection, deputy: OwnDeputy, record: AuditRecord) -> None:
    if db.execute(_INSERT, rows.deputy_row(deputy)).rowcount:
        audit.write(db, [record])


def end(db: Connection, tenant: str, deputy_id: str, at: Instant, record: AuditRecord) -> None:
    if db.execute(_END, {"tenant": tenant, "id": deputy_id, "at": at}).rowcount:
        audit.write(db, [record])


def live(db: Database, now: Instant) -> list[OwnDeputy]:
    return rows.some(db, rows.DEPUTIES, db.execute(_LIVE, (now,)))


def forget(db: Connection, before: Instant) -> int:
    """Remove the first `AT_ONCE` of them."""
    return db.execute(_FORGET, (before, AT_ONCE)).rowcount
