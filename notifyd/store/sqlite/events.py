"""Accepting and planning: the steps over `events`, `plans` and `planning`."""

from __future__ import annotations

from collections.abc import Sequence
from sqlite3 import Connection, IntegrityError
from typing import Final

from notifyd.errors import NotFoundError
from notifyd.model import Approval, ApprovalKey, Decision, Event, IncidentKey, Instant, PlanEntry
from notifyd.store import Append, Appended, PlanFixed, Planned, StoredEvent, Subject, refused
from notifyd.store.sqlite import approvals, audit, deliveries, rows
from notifyd.store.sqlite.rows import has_key, sql

_FROM: Final = ", plan FROM events LEFT JOIN plans ON plans.event = events.rowid"
_SELECT: Final = sql("SELECT", ", ".join(rows.EVENT), _FROM)
_BY_ROWID: Final = sql(_SELECT, "WHERE events.rowid = ?")
_BY_KEY: Final = sql(_SELECT, "WHERE", has_key("events", "?1", "?2"))
_ROWID: Final = sql("SELECT rowid FROM events WHERE", has_key("events", "?1", "?2"))
_INSERT: Final = rows.insert("events", rows.EVENT)
_INSERT_IF_NEW: Final = rows.insert_if_new("events", rows.EVENT)
_QUEUE: Final = "INSERT INTO planning (event, life, until) VALUES (?, ?, ?)"
_FINISH: Final = "DELETE FROM planning WHERE event = ?"
_RESTORE_PLAN: Final = "INSERT INTO plans (event, plan) VALUES (?, ?)"
_FIX: Final = sql(
    "INSERT INTO plans (event, plan) SELECT rowid, ?3 FROM events WHERE",
    has_key("events", "?1", "?2"),
    "ON CONFLICT (event) DO NOTHING",
)
_FREE: Final = "NOT (life = :life AND until > :now AND until <= :ceiling)"
UNPLANNED: Final = sql("SELECT event FROM planning WHERE", _FREE, "ORDER BY event LIMIT :limit")
_SIZE: Final = "SELECT length(CAST(body AS BLOB)) FROM events WHERE rowid = ?"
_LEASE: Final = sql("UPDATE planning SET life = :life, until = :until WHERE event = :event AND", _FREE)


def find(db: Connection, tenant: str, key: str) -> Event | None:
    row = db.execute(_BY_KEY, (tenant, key)).fetchone()
    return None if row is None else rows.event_of(row)


def append(db: Connection, life: int, request: Append) -> Appended:
    subject = _subject(db, request.subject)
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


def append_all(db: Connection, life: int, requests: Sequence[Append]) -> list[Appended]:
    found = (find(db, *request.key) for request in requests)
    stored = {(event.tenant, event.key): event for event in found if event is not None}
    return refused(requests, stored) or [append(db, life, request) for request in requests]


def _subject(db: Connection, key: ApprovalKey | IncidentKey | None) -> Subject | None:
    if isinstance(key, ApprovalKey):
        return approvals.find(db, key)
    return None if key is None else approvals.find_incident(db, key)


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


def unplanned(db: Connection, life: int, now: Instant, limit: int, size: int | None = None) -> list[int]:
    """The rowids of events that can be claimed for planning, oldest first."""
    terms = {**rows.lease_terms(life, now), "limit": limit}
    found = [event for (event,) in db.execute(UNPLANNED, terms).fetchall()]
    return rows.within(db, _SIZE, found, size)


def claim_unplanned(
    db: Connection, life: int, now: Instant, until: Instant, candidates: Sequence[int]
) -> list[Event]:
    """Lease those of `candidates` that are free still."""
    terms = {**rows.lease_terms(life, now), "until": until}
    claimed = [event for event in candidates if db.execute(_LEASE, {**terms, "event": event}).rowcount]
    return [_by_rowid(db, event) for event in claimed]


def fix_plans(db: Connection, life: int, planned: Sequence[Planned]) -> list[PlanFixed]:
    return [_fix_plan(db, life, one) for one in planned]


def _fix_plan(db: Connection, life: int, planned: Planned) -> PlanFixed:
    key = planned.event.tenant, planned.event.key
    event = rows.inserted(db.execute(_FIX, (*key, rows.plan_text(planned.plan))))
    if event is None:
        return PlanFixed(_plan(db, planned.event), won=False, inserted=frozenset())
    inserted = deliveries.insert(db, life, planned.deliveries)
    db.execute(_FINISH, (event,))
    return PlanFixed(planned.plan, won=True, inserted=inserted)


def finish(db: Connection, event: Event) -> None:
    db.execute(_FINISH, (_rowid(db, event),))


def _plan(db: Connection, event: Event) -> tuple[PlanEntry, ...]:
    row = _rowid(db, event)
    return rows.plan_of(db.execute("SELECT plan FROM plans WHERE event = ?", (row,)).fetchone()[0])


def _by_rowid(db: Connection, row: int) -> Event:
    return rows.event_of(db.execute(_BY_ROWID, (row,)).fetchone())


def _rowid(db: Connection, event: Event) -> int:
    row = _find_rowid(db, event)
    if row is None:
        raise NotFoundError(f"no event {event.key} of tenant {event.tenant} is stored")
    return row


def _find_rowid(db: Connection, event: Event) -> int | None:
    found = db.execute(_ROWID, (event.tenant, event.key)).fetchone()
    return None if found is None else int(found[0])
