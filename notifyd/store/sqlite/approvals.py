"""The steps over `approvals` and `incidents`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from sqlite3 import Connection
from typing import Final

from attrs import evolve

from notifyd.model import (
    Approval,
    ApprovalKey,
    Decision,
    Delivery,
    Incident,
    IncidentKey,
    Instant,
    ResumeStatus,
    Status,
)
from notifyd.store import ApprovalFilter, EffectCounts, IncidentFilter, Page, parted
from notifyd.store.sqlite import rows
from notifyd.store.sqlite.files import Database
from notifyd.store.sqlite.paging import Source, newest_first
from notifyd.store.sqlite.rows import sql

_KEY: Final = ("tenant", "run_id", "approval_id")
_INCIDENT_KEY: Final = (*_KEY, "policy_id")
_BY_KEY: Final = "tenant = ? AND run_id = ? AND approval_id = ?"

_SELECT: Final = sql(rows.APPROVALS.select, "WHERE")
_FIND: Final = sql(_SELECT, _BY_KEY)
_OTHERS: Final = "AND approvals.rowid NOT IN (SELECT value FROM json_each(:aside)) ORDER BY"
DUE: Final = sql(_SELECT, "status = 'pending' AND expires_at <= :now", _OTHERS, "expires_at LIMIT :limit")
TIMED: Final = sql(_SELECT, "status = 'pending' AND timer_at <= :now", _OTHERS, "timer_at LIMIT :limit")
_ALL_PENDING: Final = "SELECT rowid FROM approvals INDEXED BY approvals_due WHERE status = 'pending'"
_WAKE_TIMER: Final = """
UPDATE approvals SET timer_at = 0, version = version + 1
WHERE rowid = ? AND status = 'pending' AND typeof(version) = 'integer' AND timer_at IS NOT 0
"""
OWING: Final = sql(_SELECT, "effects_due_at <= :now", _OTHERS, "effects_due_at LIMIT :limit")
OWING_FAR: Final = sql(_SELECT, "effects_due_at > :horizon", _OTHERS, "effects_due_at LIMIT :limit")
COUNT_EFFECTS: Final = (
    "SELECT (SELECT count(*) FROM approvals WHERE effects_due_at IS NOT NULL),"
    " (SELECT count(*) FROM approvals WHERE dead_effects > 0)"
)
WITH_DEAD_EFFECT: Final = sql(
    rows.APPROVALS.select_by("approvals_dead_effects"),
    "WHERE tenant = ? AND dead_effects > 0 AND instr(effects, ?)",
)
_SAVE: Final = rows.upsert("approvals", rows.SAVED_APPROVAL, _KEY)
_RESTORE: Final = rows.insert_if_new("approvals", rows.SAVED_APPROVAL)
_SUPERSEDE: Final = sql(
    *("INSERT INTO decisions (", ", ".join((*rows.DECISION, "approval")), ")"),
    *("SELECT ?, ?, ?, rowid FROM approvals WHERE", _BY_KEY),
)
_SUPERSEDED: Final = sql(
    rows.DECISIONS.select_by("decisions_superseded"),
    *("WHERE approval = (SELECT rowid FROM approvals WHERE", _BY_KEY, ")"),
)
SUPERSEDED: Final = sql(_SUPERSEDED, "ORDER BY decisions.rowid DESC LIMIT ?")
SUPERSEDED_BY: Final = sql(_SUPERSEDED, "AND actor = ? AND decisions.plan_hash = ? ORDER BY decisions.rowid")
_SET_RESUME: Final = """
UPDATE approvals SET resume = :status, resume_delivery = :delivery, version = version + 1
WHERE tenant = :tenant AND run_id = :run AND approval_id = :approval AND typeof(version) = 'integer'
AND coalesce(resume_delivery, :delivery) = :delivery
AND (resume, coalesce(resume_delivery, '')) <> (:status, :delivery)
"""
_VERSION: Final = sql("SELECT version FROM approvals WHERE", _BY_KEY)
NEXT_TENANT: Final = """
SELECT rowid, tenant FROM approvals WHERE tenant > ? AND rowid NOT IN (SELECT value FROM json_each(?))
ORDER BY tenant LIMIT 1
"""
PENDING: Final = "SELECT count(*) FROM approvals WHERE tenant = ? AND status = 'pending'"
_LISTED: Final = Source(rows.APPROVALS, "approvals_listed")
_OF_RUN: Final = Source(rows.APPROVALS, "approvals_key")
_DEAD: Final = Source(rows.APPROVALS, "approvals_dead_effects", "dead_effects > 0")

_FIND_INCIDENT: Final = sql(rows.INCIDENTS.select, "WHERE", _BY_KEY, "AND policy_id = ?")
_SAVE_INCIDENT: Final = rows.upsert("incidents", rows.INCIDENT, _INCIDENT_KEY)
_INCIDENTS: Final = Source(rows.INCIDENTS, "incidents_listed")
_INCIDENTS_OF_RUN: Final = Source(rows.INCIDENTS, "incidents_key")
_RESTORE_INCIDENT: Final = rows.insert_if_new("incidents", rows.INCIDENT)


def find(db: Database, key: ApprovalKey) -> Approval | None:
    found = db.execute(_FIND, (key.tenant, key.run_id, key.approval_id)).fetchone()
    return rows.one(db, rows.APPROVALS, found)


def versions(db: Connection, keys: Collection[ApprovalKey]) -> dict[ApprovalKey, int]:
    found = {key: db.execute(_VERSION, (key.tenant, key.run_id, key.approval_id)).fetchone() for key in keys}
    return {key: row[0] for key, row in found.items() if row is not None}


def save(db: Connection, approval: Approval) -> None:
    db.execute(_SAVE, rows.approval_row(approval))


def supersede(db: Connection, key: ApprovalKey, decisions: Sequence[Decision]) -> None:
    """Keep what was decided in a round that is over."""
    for decision in decisions:
        row = rows.decision_row(decision)
        db.execute(_SUPERSEDE, (*row, key.tenant, key.run_id, key.approval_id))


def superseded(db: Database, key: ApprovalKey, limit: int) -> list[Decision]:
    """Those that decode: what is over is shown as far as it can be read."""
    found = db.execute(SUPERSEDED, (key.tenant, key.run_id, key.approval_id, limit)).fetchall()
    return rows.some(db, rows.DECISIONS, reversed(found))


def superseded_by(db: Database, key: ApprovalKey, actor: str, plan_hash: str) -> list[Decision]:
    """Raises `UndecodableRowError`: a captured vote must not count again because the first is not known."""
    terms = (key.tenant, key.run_id, key.approval_id, actor, plan_hash)
    found = (rows.one(db, rows.DECISIONS, row) for row in db.execute(SUPERSEDED_BY, terms).fetchall())
    return [decision for decision in found if decision is not None]


def find_incident(db: Database, key: IncidentKey) -> Incident | None:
    found = db.execute(_FIND_INCIDENT, (key.tenant, key.run_id, key.approval_id, key.policy_id)).fetchone()
    return rows.one(db, rows.INCIDENTS, found)


def save_incident(db: Connection, incident: Incident) -> None:
    db.execute(_SAVE_INCIDENT, rows.incident_row(incident))


def restore(db: Connection, approval: Approval) -> bool:
    """Insert an approval of another store; False where there is one under its key."""
    present, earlier = parted(approval)
    inserted = bool(db.execute(_RESTORE, rows.approval_row(present)).rowcount)
    if inserted:
        supersede(db, approval.key, earlier)
    return inserted


def restore_incident(db: Connection, incident: Incident) -> bool:
    return bool(db.execute(_RESTORE_INCIDENT, rows.incident_row(incident)).rowcount)


def replace(db: Database, approval: Approval) -> bool:
    """Write `approval` over the version before it. A repetition of a write that was done is True again."""
    row = db.execute(_VERSION, (approval.tenant, approval.run_id, approval.approval_id)).fetchone()
    if row is None:
        return False
    if row[0] == approval.version - 1:
        save(db, approval)
        return True
    return row[0] == approval.version and find(db, approval.key) == approval


def complete_effect(db: Database, key: ApprovalKey, effect_id: str) -> None:
    approval = find(db, key)
    if approval is None or all(effect.id != effect_id for effect in approval.effects):
        return
    save(db, evolve(approval.complete_effect(effect_id), version=approval.version + 1))


def set_resume(db: Connection, delivery: Delivery, status: ResumeStatus) -> None:
    """Tell the approval how its callback stands, if `delivery` is its callback.

    Without reading the approval: a callback has ended, whether or not that decodes.
    """
    key = delivery.approval_key
    if key is not None:
        terms = {"tenant": key.tenant, "run": key.run_id, "approval": key.approval_id}
        db.execute(_SET_RESUME, {**terms, "status": status.value, "delivery": delivery.id})


def due(db: Database, now: Instant, limit: int) -> list[Approval]:
    return rows.due(db, rows.APPROVALS, DUE, {"now": now, "limit": limit})


def timed(db: Database, now: Instant, limit: int) -> list[Approval]:
    return rows.due(db, rows.APPROVALS, TIMED, {"now": now, "limit": limit})


def pending(db: Connection) -> list[int]:
    """The rowids of all that are."""
    return [rowid for (rowid,) in db.execute(_ALL_PENDING)]


def wake_timers(db: Connection, found: Sequence[int]) -> None:
    """A write under way that has read one of these approvals before this loses to it."""
    db.executemany(_WAKE_TIMER, ((rowid,) for rowid in found))


def owing(db: Database, now: Instant, limit: int) -> list[Approval]:
    return rows.due(db, rows.APPROVALS, OWING, {"now": now, "limit": limit})


def owing_far(db: Database, horizon: Instant, limit: int) -> list[Approval]:
    return rows.due(db, rows.APPROVALS, OWING_FAR, {"horizon": horizon, "limit": limit})


def effect_counts(db: Connection) -> EffectCounts:
    return EffectCounts(*db.execute(COUNT_EFFECTS).fetchone())


def with_dead_effects(db: Database, tenant: str, page: Page) -> tuple[list[Approval], int | None]:
    return newest_first(db, _DEAD, [{"tenant": tenant}], page)


def with_dead_effect(db: Database, tenant: str, effect_id: str) -> Approval | None:
    having = rows.some(db, rows.APPROVALS, db.execute(WITH_DEAD_EFFECT, (tenant, effect_id)))
    return next((one for one in having if any(e.id == effect_id for e in one.dead_effects)), None)


def outstanding(db: Database) -> dict[str, int]:
    """Two steps over the index for each tenant, and one for each approval that is pending."""
    counted = {}
    for tenant in rows.names(db, rows.APPROVALS, NEXT_TENANT):
        (pending,) = db.execute(PENDING, (tenant,)).fetchone()
        counted[tenant] = pending
    return {tenant: pending for tenant, pending in counted.items() if pending}


def search(db: Database, tenant: str, where: ApprovalFilter, page: Page) -> tuple[list[Approval], int | None]:
    if where.run_id is not None:
        # A run's approvals are not in the order of their rowids: these are sorted.
        status = {} if where.status is None else {"status": where.status.value}
        return newest_first(db, _OF_RUN, [{"tenant": tenant, "run_id": where.run_id, **status}], page)
    statuses = tuple(Status) if where.status is None else (where.status,)
    streams = ({"tenant": tenant, "status": status.value} for status in statuses)
    return newest_first(db, _LISTED, streams, page)


def incidents(
    db: Database, tenant: str, where: IncidentFilter, page: Page
) -> tuple[list[Incident], int | None]:
    states = (True, False) if where.open is None else (where.open,)
    if where.run_id is not None:
        # A run's incidents are not in the order of their rowids: these are sorted.
        stream = {
            "tenant": tenant,
            "run_id": where.run_id,
            **({} if where.open is None else {"open": where.open}),
        }
        return newest_first(db, _INCIDENTS_OF_RUN, [stream], page)
    return newest_first(db, _INCIDENTS, ({"tenant": tenant, "open": state} for state in states), page)
