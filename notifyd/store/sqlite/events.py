"""Accepting and planning: the steps over `events`, `plans` and `planning`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from sqlite3 import Connection, IntegrityError
from typing import Final

from notifyd.errors import NotFoundError, UndecodableRowError
from notifyd.model import Approval, ApprovalKey, Decision, Event, IncidentKey, Instant, PlanEntry
from notifyd.store import Append, Appended, CollectionName, PlanFixed, Planned, StoredEvent, Subject, refused
from notifyd.store.sqlite import approvals, audit, deliveries, rows
from notifyd.store.sqlite.files import Database
from notifyd.store.sqlite.rows import has_key, sql

_log = logging.getLogger("notifyd.store")

_BY_KEY: Final = sql(rows.EVENTS.select, "WHERE", has_key("events", "?1", "?2"))
_ROWID: Final = sql("SELECT rowid FROM events WHERE", has_key("events", "?1", "?2"))
_INSERT: Final = rows.insert("events", rows.EVENT)
_INSERT_IF_NEW: Final = rows.insert_if_new("events", rows.EVENT)
_QUEUE: Final = "INSERT OR REPLACE INTO planning (event, life, until) VALUES (?, ?, ?)"
_FINISH: Final = "DELETE FROM planning WHERE event = ?"
_RESTORE_PLAN: Final = "INSERT INTO plans (event, plan) VALUES (?, ?)"
_FIX: Final = sql(
    "INSERT INTO plans (event, plan) SELECT rowid, ?3 FROM events WHERE",
    has_key("events", "?1", "?2"),
    "ON CONFLICT (event) DO NOTHING",
)
_FREE: Final = "NOT (life = :life AND until > :now AND until <= :ceiling)"
_OTHERS: Final = "AND event NOT IN (SELECT value FROM json_each(:aside)) ORDER BY event LIMIT :limit"
UNPLANNED: Final = sql("SELECT event FROM planning WHERE", _FREE, _OTHERS)
_SIZE: Final = "SELECT length(CAST(body AS BLOB)) FROM events WHERE rowid = ?"
_LEASE: Final = sql("UPDATE planning SET life = :life, until = :until WHERE event = :event AND", _FREE)


def find(db: Database, tenant: str, key: str) -> Event | None:
    return rows.one(db, rows.EVENTS, db.execute(_BY_KEY, (tenant, key)).fetchone())


def append(db: Database, life: int, request: Append) -> Appended:
    subject = None if request.subject is None else _subject(db, request.subject)
    first = None if subject is None else find(db, *request.key)
    if first is not None:
        return Appended(first, fresh=False)
    advance = request.advance(subject)
    event = advance.accept(request.event)
    try:
        row = db.execute(_INSERT, rows.event_row(event)).lastrowid
    except IntegrityError:  # where there is no subject it is looked for only here: nearly every key is new
        first = find(db, *request.key)
        if first is None:
            raise
        return Appended(first, fresh=False)
    if advance.subject is not None:
        _save_subject(db, advance.subject, advance.superseded)
    _queue(db, life, row, event, event.received_at + request.lease if request.leased else 0)
    audit.write(db, advance.audit)
    return Appended(event, fresh=True)


def append_planned(
    db: Database, life: int, request: Append, planned: Planned
) -> tuple[Appended, PlanFixed | None]:
    appended = append(db, life, request)
    return appended, _fix_plan(db, life, planned) if appended.fresh else None


def append_all(db: Database, life: int, requests: Sequence[Append]) -> list[Appended]:
    found = (find(db, *request.key) for request in requests)
    stored = {(event.tenant, event.key): event for event in found if event is not None}
    return refused(requests, stored) or [append(db, life, request) for request in requests]


def _subject(db: Database, key: ApprovalKey | IncidentKey) -> Subject | None:
    return approvals.find(db, key) if isinstance(key, ApprovalKey) else approvals.find_incident(db, key)


def _save_subject(db: Connection, subject: Subject, superseded: Sequence[Decision]) -> None:
    if isinstance(subject, Approval):
        approvals.save(db, subject)
        approvals.supersede(db, subject.key, superseded)
    else:
        approvals.save_incident(db, subject)


def insert(db: Connection, life: int, event: Event, leased_until: Instant) -> None:
    """Insert an event, if its key is new, with its planning due, which is this node's until then."""
    row = rows.inserted(db.execute(_INSERT_IF_NEW, rows.event_row(event)))
    if row is not None:
        _queue(db, life, row, event, leased_until)


def _queue(db: Connection, life: int, row: int | None, event: Event, leased_until: Instant) -> None:
    if event.notify:
        db.execute(_QUEUE, (row, life, leased_until))


def restore(db: Connection, given: StoredEvent) -> bool:
    """Insert an event of another store, if its key is new, its planning due at once unless it is finished."""
    event = given.event
    row = rows.inserted(db.execute(_INSERT_IF_NEW, rows.event_row(event)))
    if row is None:
        return False
    if event.plan is not None:
        db.execute(_RESTORE_PLAN, (row, rows.plan_text(event.plan)))
    if not given.planned:
        db.execute(_QUEUE, (row, 0, 0))
    return True


def unplanned(db: Database, life: int, now: Instant, limit: int, size: int | None = None) -> list[int]:
    """The rowids of events that can be claimed for planning, oldest first."""
    aside = rows.passed_over(db, CollectionName.EVENTS)
    terms = {**rows.lease_terms(life, now), "limit": limit, "aside": aside}
    found = [event for (event,) in db.execute(UNPLANNED, terms).fetchall()]
    return rows.within(db, _SIZE, found, size)


def claim_unplanned(
    db: Database, life: int, now: Instant, until: Instant, candidates: Sequence[int]
) -> list[Event]:
    """Lease those of `candidates` that decode, and are free still."""
    terms = {**rows.lease_terms(life, now), "until": until}
    found = {event: _by_rowid(db, event) for event in candidates}
    return [
        one
        for event, one in found.items()
        if one is not None and db.execute(_LEASE, {**terms, "event": event}).rowcount
    ]


def fix_plans(db: Database, life: int, planned: Sequence[Planned]) -> list[PlanFixed]:
    return [_fix_plan(db, life, one) for one in planned]


def _fix_plan(db: Database, life: int, planned: Planned) -> PlanFixed:
    key = planned.event.tenant, planned.event.key
    event = rows.inserted(db.execute(_FIX, (*key, rows.plan_text(planned.plan))))
    if event is None:
        return PlanFixed(_plan(db, planned.event), won=False, inserted=frozenset())
    inserted = deliveries.insert(db, life, planned.deliveries[: deliveries.AT_ONCE])
    if len(planned.deliveries) <= deliveries.AT_ONCE:  # else whoever inserts the rest finishes it
        db.execute(_FINISH, (event,))
    return PlanFixed(planned.plan, won=True, inserted=inserted)


def finish(db: Connection, event: Event) -> None:
    db.execute(_FINISH, (_rowid(db, event),))


def _plan(db: Database, event: Event) -> tuple[PlanEntry, ...]:
    """The plan of a stored event. Raises `NotFoundError`, and `UndecodableRowError`."""
    stored = find(db, event.tenant, event.key)
    if stored is None:
        raise _missing(event)
    return stored.plan or ()


def _by_rowid(db: Database, row: int) -> Event | None:
    """None where the event does not decode, which sets it aside, or is not there, which leaves nothing to plan."""
    found = db.execute(rows.EVENTS.by_number, (row,)).fetchone()
    if found is None:
        _log.error("event row %s is to be planned, and is not there", row)
        db.execute(_FINISH, (row,))
    with suppress(UndecodableRowError):
        return rows.one(db, rows.EVENTS, found)
    return None


def _rowid(db: Connection, event: Event) -> int:
    found = db.execute(_ROWID, (event.tenant, event.key)).fetchone()
    if found is None:
        raise _missing(event)
    return int(found[0])


def _missing(event: Event) -> NotFoundError:
    return NotFoundError(f"no event {event.key} of tenant {event.tenant} is stored")
