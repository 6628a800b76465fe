"""The steps over `approvals` and `incidents`."""

from __future__ import annotations

from collections.abc import Sequence
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
from notifyd.store import ApprovalFilter, EffectCounts, Page, parted
from notifyd.store.sqlite import rows
from notifyd.store.sqlite.paging import Source, newest_first
from notifyd.store.sqlite.rows import sql

_KEY: Final = ("tenant", "run_id", "approval_id")
_INCIDENT_KEY: Final = (*_KEY, "policy_id")
_BY_KEY: Final = "tenant = ? AND run_id = ? AND approval_id = ?"

_SELECT: Final = sql("SELECT", ", ".join(rows.APPROVAL), "FROM approvals WHERE")
_FIND: Final = sql(_SELECT, _BY_KEY)
DUE: Final = sql(_SELECT, "status = 'pending' AND expires_at <= ? ORDER BY expires_at LIMIT ?")
OWING: Final = sql(_SELECT, "effects_due_at <= ? ORDER BY effects_due_at LIMIT ?")
COUNT_EFFECTS: Final = (
    "SELECT (SELECT count(*) FROM approvals WHERE effects_due_at IS NOT NULL),"
    " (SELECT count(*) FROM approvals WHERE dead_effects > 0)"
)
WITH_DEAD_EFFECT: Final = sql(
    *("SELECT", ", ".join(rows.APPROVAL), "FROM approvals INDEXED BY approvals_dead_effects"),
    "WHERE tenant = ? AND dead_effects > 0 AND instr(effects, ?)",
)
_SAVE: Final = rows.upsert("approvals", rows.SAVED_APPROVAL, _KEY)
_RESTORE: Final = rows.insert_if_new("approvals", rows.SAVED_APPROVAL)
_SUPERSEDE: Final = sql(
    *("INSERT INTO decisions (", ", ".join((*rows.DECISION, "approval")), ")"),
    *("SELECT ?, ?, ?, rowid FROM approvals WHERE", _BY_KEY),
)
_SUPERSEDED: Final = sql(
    "SELECT decision FROM decisions INDEXED BY decisions_superseded",
    *("WHERE approval = (SELECT rowid FROM approvals WHERE", _BY_KEY, ")"),
)
SUPERSEDED: Final = sql(_SUPERSEDED, "ORDER BY decisions.rowid DESC LIMIT ?")
SUPERSEDED_BY: Final = sql(_SUPERSEDED, "AND actor = ? AND plan_hash = ? ORDER BY decisions.rowid")
_VERSION: Final = sql("SELECT version FROM approvals WHERE", _BY_KEY)
NEXT_TENANT: Final = "SELECT tenant FROM approvals WHERE tenant > ? ORDER BY tenant LIMIT 1"
PENDING: Final = "SELECT count(*) FROM approvals WHERE tenant = ? AND status = 'pending'"
_LISTED: Final = Source("approvals", "approvals_listed", rows.APPROVAL)
_OF_RUN: Final = Source("approvals", "approvals_key", rows.APPROVAL)
_DEAD: Final = Source("approvals", "approvals_dead_effects", rows.APPROVAL, "dead_effects > 0")

_SELECT_INCIDENT: Final = sql("SELECT", ", ".join(rows.INCIDENT), "FROM incidents WHERE")
_FIND_INCIDENT: Final = sql(_SELECT_INCIDENT, _BY_KEY, "AND policy_id = ?")
_SAVE_INCIDENT: Final = rows.upsert("incidents", rows.INCIDENT, _INCIDENT_KEY)
_RESTORE_INCIDENT: Final = rows.insert_if_new("incidents", rows.INCIDENT)


def find(db: Connection, key: ApprovalKey) -> Approval | None:
    row = db.execute(_FIND, (key.tenant, key.run_id, key.approval_id)).fetchone()
    return None if row is None else rows.approval_of(row)


def save(db: Connection, approval: Approval) -> None:
    db.execute(_SAVE, rows.approval_row(approval))


def supersede(db: Connection, key: ApprovalKey, decisions: Sequence[Decision]) -> None:
    """Keep what was decided in a round that is over."""
    for decision in decisions:
        row = rows.decision_row(decision)
        db.execute(_SUPERSEDE, (*row, key.tenant, key.run_id, key.approval_id))


def superseded(db: Connection, key: ApprovalKey, limit: int) -> list[Decision]:
    found = db.execute(SUPERSEDED, (key.tenant, key.run_id, key.approval_id, limit)).fetchall()
    return [rows.decision_of(text) for (text,) in reversed(found)]


def superseded_by(db: Connection, key: ApprovalKey, actor: str, plan_hash: str) -> list[Decision]:
    terms = (key.tenant, key.run_id, key.approval_id, actor, plan_hash)
    return [rows.decision_of(text) for (text,) in db.execute(SUPERSEDED_BY, terms)]


def find_incident(db: Connection, key: IncidentKey) -> Incident | None:
    row = db.execute(_FIND_INCIDENT, (key.tenant, key.run_id, key.approval_id, key.policy_id)).fetchone()
    return None if row is None else rows.incident_of(row)


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


def replace(db: Connection, approval: Approval) -> bool:
    """Write `approval` over the version before it. A repetition of a write that was done is True again."""
    row = db.execute(_VERSION, (approval.tenant, approval.run_id, approval.approval_id)).fetchone()
    if row is None:
        return False
    if row[0] == approval.version - 1:
        save(db, approval)
        return True
    return row[0] == approval.version and find(db, approval.key) == approval


def complete_effect(db: Connection, key: ApprovalKey, effect_id: str) -> None:
    approval = find(db, key)
    if approval is None or all(effect.id != effect_id for effect in approval.effects):
        return
    save(db, evolve(approval.complete_effect(effect_id), version=approval.version + 1))


def set_resume(db: Connection, delivery: Delivery, status: ResumeStatus) -> None:
    """Tell the approval how its callback stands, if `delivery` is its callback."""
    key = delivery.approval_key
    approval = None if key is None else find(db, key)
    if approval is None or approval.resume_delivery not in (None, delivery.id):
        return
    changed = evolve(approval, resume=status, resume_delivery=delivery.id)
    if changed != approval:
        save(db, evolve(changed, version=approval.version + 1))


def due(db: Connection, now: Instant, limit: int) -> list[Approval]:
    return [rows.approval_of(row) for row in db.execute(DUE, (now, limit)).fetchall()]


def owing(db: Connection, now: Instant, limit: int) -> list[Approval]:
    return [rows.approval_of(row) for row in db.execute(OWING, (now, limit)).fetchall()]


def effect_counts(db: Connection) -> EffectCounts:
    return EffectCounts(*db.execute(COUNT_EFFECTS).fetchone())


def with_dead_effects(db: Connection, tenant: str, page: Page) -> tuple[list[Approval], int | None]:
    found, after = newest_first(db, _DEAD, [{"tenant": tenant}], page)
    return [rows.approval_of(row) for row in found], after


def with_dead_effect(db: Connection, tenant: str, effect_id: str) -> Approval | None:
    having = map(rows.approval_of, db.execute(WITH_DEAD_EFFECT, (tenant, effect_id)))
    return next((one for one in having if any(e.id == effect_id for e in one.dead_effects)), None)


def outstanding(db: Connection) -> dict[str, int]:
    """Two steps over the index for each tenant, and one for each approval that is pending."""
    counted, tenant = {}, ""
    while (found := db.execute(NEXT_TENANT, (tenant,)).fetchone()) is not None:
        (tenant,) = found
        (pending,) = db.execute(PENDING, (tenant,)).fetchone()
        counted[tenant] = pending
    return {tenant: pending for tenant, pending in counted.items() if pending}


def search(
    db: Connection, tenant: str, where: ApprovalFilter, page: Page
) -> tuple[list[Approval], int | None]:
    if where.run_id is not None:
        # A run's approvals are not in the order of their rowids: these are sorted.
        status = {} if where.status is None else {"status": where.status.value}
        found, after = newest_first(db, _OF_RUN, [{"tenant": tenant, "run_id": where.run_id, **status}], page)
    else:
        statuses = tuple(Status) if where.status is None else (where.status,)
        streams = ({"tenant": tenant, "status": status.value} for status in statuses)
        found, after = newest_first(db, _LISTED, streams, page)
    return [rows.approval_of(row) for row in found], after
