"""The steps over `silences`."""

from __future__ import annotations

from sqlite3 import Connection
from typing import Final

from notifyd.model import AuditRecord, Instant, Silence
from notifyd.store import Page
from notifyd.store.sqlite import audit, rows
from notifyd.store.sqlite.files import Database
from notifyd.store.sqlite.paging import Source, newest_first
from notifyd.store.sqlite.rows import sql
from notifyd.store.sqlite.windows import AT_ONCE

_INSERT: Final = rows.insert_if_new("silences", rows.SILENCE)
_FORGET: Final = """
DELETE FROM silences WHERE rowid IN (
    SELECT rowid FROM silences INDEXED BY silences_live WHERE ends_at < ? LIMIT ?
)
"""
_FIND: Final = sql(rows.SILENCES.select, "WHERE tenant = ? AND id = ?")
_LIVE: Final = sql(rows.SILENCES.select_by("silences_live"), "WHERE ends_at > ? ORDER BY silences.rowid")
_LISTED: Final = Source(rows.SILENCES, "silences_listed")
_END: Final = """
UPDATE silences SET ended_at = :at, ended_by = :by
WHERE tenant = :tenant AND id = :id AND ended_at IS NULL AND ends_at > :at
"""
_CLOSE: Final = """
UPDATE deliveries SET next_attempt_at = :at WHERE rowid IN (
    SELECT rowid FROM deliveries INDEXED BY deliveries_window
    WHERE tenant = :tenant AND window = :window AND next_attempt_at > :at LIMIT :limit
)
"""
_NEXT_WINDOW: Final = """
SELECT window FROM deliveries INDEXED BY deliveries_window
WHERE window IS NOT NULL AND tenant = ? AND window > ? AND window < ? ORDER BY window LIMIT 1
"""


def add(db: Connection, silence: Silence, record: AuditRecord, forget: Instant) -> None:
    db.execute(_FORGET, (forget, AT_ONCE))  # more with the next: many go over one at a time
    if db.execute(_INSERT, rows.silence_row(silence)).rowcount:
        audit.write(db, [record])


def end(db: Database, tenant: str, silence_id: str, at: Instant, record: AuditRecord) -> Silence | None:
    terms = {"tenant": tenant, "id": silence_id, "at": at, "by": record.actor}
    if db.execute(_END, terms).rowcount:
        audit.write(db, [record])
    return rows.one(db, rows.SILENCES, db.execute(_FIND, (tenant, silence_id)).fetchone())


def search(db: Database, tenant: str, page: Page) -> tuple[list[Silence], int | None]:
    return newest_first(db, _LISTED, [{"tenant": tenant}], page)


def live(db: Database, now: Instant) -> list[Silence]:
    return rows.some(db, rows.SILENCES, db.execute(_LIVE, (now,)))


def close_windows(db: Connection, tenant: str, after: str, last: str, at: Instant) -> str | None:
    """Some of the rows of the windows whose keys lie between: the key to go on after, None at the end.

    A window that has more rows than one step may change is the next step's first.
    """
    room = AT_ONCE
    while found := db.execute(_NEXT_WINDOW, (tenant, after, last)).fetchone():
        terms = {"tenant": tenant, "window": found[0], "at": at, "limit": room}
        room -= db.execute(_CLOSE, terms).rowcount + 1
        if room <= 0:
            return after
        (after,) = found
    return None
