"""Records to rows and back, by hand where it is hot: a row holds a record's fields in the record's order.

What is searched is a column; tuples of records inside a record are one column of JSON each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from sqlite3 import Connection, Cursor
from typing import Any, Final, TypeAlias, TypeVar

import orjson
from cattrs.preconf.orjson import make_converter

from notifyd.errors import Reason
from notifyd.model import (
    SECOND,
    Approval,
    Attempt,
    AuditName,
    AuditRecord,
    Decision,
    Delivery,
    Effect,
    Event,
    Incident,
    Instant,
    Outcome,
    PlanEntry,
    ResumeStatus,
    State,
    Status,
)
from notifyd.store.sqlite.schema import short_key

T = TypeVar("T")
Row: TypeAlias = tuple[Any, ...]

_converter = make_converter()

EVENT: Final = (
    "tenant", "key", "event_id", "kind", "action", "occurred_at", "received_at", "body", "content_id",
    "client", "correlation_id", "run_id", "approval_id", "outcome", "notify", "version", "round",
)  # fmt: skip
APPROVAL: Final = (
    "tenant", "run_id", "approval_id", "version", "round", "status", "plan_hash", "required_grants",
    "required_approvals", "requested_by", "client", "requested_at", "created_at", "expires_at",
    "callback_url", "sealed_token", "correlation_id", "request", "decisions", "ended_at", "ended_by",
    "resume", "resume_delivery", "effects", "owner", "heard_again_at",
)  # fmt: skip
SAVED_APPROVAL: Final = (*APPROVAL, "effects_due_at", "dead_effects")
"""With what is derived from the effects, to search by."""
INCIDENT: Final = (
    "tenant", "run_id", "approval_id", "policy_id", "version", "open", "occurred_at", "opened_at",
    "closed_at", "request",
)  # fmt: skip
DECISION: Final = ("actor", "plan_hash", "decision")
"""Of a decision of an earlier round: what it is found by, and all of it as JSON."""
DELIVERY: Final = (
    "tenant", "id", "event_key", "kind", "action", "rule", "channel", "channel_type", "lane", "recipient",
    "sealed", "correlation_id", "created_at", "next_attempt_at", "deadline", "run_id", "approval_id", "seq",
    "state", "tries", "attempts", "ended_at", "reason", "lease_owner", "lease_until", "fencing_token",
    "folded_into", "window", "window_start", "budget",
)  # fmt: skip
AUDIT: Final = (
    "tenant", "id", "name", "at", "actor", "correlation_id", "run_id", "approval_id", "data",
)  # fmt: skip

_KEYS: Final = {"events": "key", "deliveries": "id"}
"""The tables that are looked up by a derived id, and the column of each."""


def sql(*parts: str) -> str:
    """One statement of constant parts."""
    return " ".join(parts)


def insert(table: str, columns: tuple[str, ...]) -> str:
    """The statement that inserts a row."""
    names, marks = ", ".join(columns), ", ".join("?" * len(columns))
    return sql("INSERT INTO", table, f"({names}) VALUES ({marks})")


def within(db: Connection, measure: str, rowids: Sequence[int], size: int | None) -> list[int]:
    """Those of `rowids` that come first and make `size` bytes at most by the query `measure`; one at least."""
    if size is None:
        return list(rowids)
    fitting: list[int] = []
    for rowid in rowids:
        size -= db.execute(measure, (rowid,)).fetchone()[0]
        if size < 0 and fitting:
            break
        fitting.append(rowid)
    return fitting


def insert_if_new(table: str, columns: tuple[str, ...]) -> str:
    """The statement that inserts a row, or does nothing where its key is there already."""
    return sql(insert(table, columns), "ON CONFLICT DO NOTHING")


def inserted(done: Cursor) -> int | None:
    """The rowid that `insert_if_new` gave the row, None where its key is there."""
    return done.lastrowid if done.rowcount else None


def has_key(table: str, tenant: str, key: str) -> str:
    """The condition that a row of `table` has a tenant's key, each a parameter or a column."""
    return (
        f"{table}.tenant = {tenant} AND {table}.short_key = {short_key(key)}"
        f" AND {table}.{_KEYS[table]} = {key}"
    )


def upsert(table: str, columns: tuple[str, ...], key: tuple[str, ...]) -> str:
    """The statement that inserts a row, or replaces the rest of the one with the same key."""
    rest = ", ".join(f"{name} = excluded.{name}" for name in columns if name not in key)
    return sql(insert(table, columns), f"ON CONFLICT ({', '.join(key)}) DO UPDATE SET {rest}")


def dump(value: Any) -> str:
    """JSON text of plain values or records."""
    return orjson.dumps(_converter.unstructure(value)).decode()


def _many(records: tuple[Any, ...]) -> str:
    return dump(records) if records else "[]"


def _load(text: str, record: type[T]) -> tuple[T, ...]:
    return tuple(_converter.structure(item, record) for item in orjson.loads(text)) if text != "[]" else ()


# --- events ------------------------------------------------------------------------------------------------


def event_row(e: Event) -> Row:
    return (
        e.tenant, e.key, e.event_id, e.kind, e.action, e.occurred_at, e.received_at, e.body, e.content_id,
        e.client, e.correlation_id, e.run_id, e.approval_id, e.outcome.value, int(e.notify), e.version,
        e.round,
    )  # fmt: skip


def event_of(row: Row) -> Event:
    """From the columns of `EVENT` and, last, the plan's JSON or None."""
    fields = dict(zip((*EVENT, "plan"), row, strict=True))
    fields["outcome"] = Outcome(fields["outcome"])
    fields["notify"] = bool(fields["notify"])
    fields["plan"] = None if fields["plan"] is None else plan_of(fields["plan"])
    return Event(**fields)


def plan_text(plan: tuple[PlanEntry, ...]) -> str:
    return _many(plan)


def plan_of(text: str) -> tuple[PlanEntry, ...]:
    return _load(text, PlanEntry)


# --- approvals and incidents -------------------------------------------------------------------------------


def approval_row(a: Approval) -> Row:
    """The columns of `SAVED_APPROVAL`."""
    return (
        a.tenant, a.run_id, a.approval_id, a.version, a.round, a.status.value, a.plan_hash,
        orjson.dumps(a.required_grants).decode(), a.required_approvals, a.requested_by, a.client,
        a.requested_at, a.created_at, a.expires_at, a.callback_url, a.sealed_token, a.correlation_id, a.request,
        _many(a.decisions),
        a.ended_at, a.ended_by, a.resume.value, a.resume_delivery, _many(a.effects),
        a.owner, a.heard_again_at, a.effects_due_at, len(a.dead_effects),
    )  # fmt: skip


def approval_of(row: Row) -> Approval:
    fields = dict(zip(APPROVAL, row, strict=True))
    fields["status"] = Status(fields["status"])
    fields["resume"] = ResumeStatus(fields["resume"])
    fields["required_grants"] = tuple(orjson.loads(fields["required_grants"]))
    fields["decisions"] = decisions_of(fields["decisions"])
    fields["effects"] = _load(fields["effects"], Effect)
    return Approval(**fields)


def decision_row(d: Decision) -> Row:
    """The columns of `DECISION`."""
    return d.actor, d.plan_hash, dump(d)


def decision_of(text: str) -> Decision:
    return _converter.structure(orjson.loads(text), Decision)


def decisions_of(text: str) -> tuple[Decision, ...]:
    return _load(text, Decision)


def incident_row(i: Incident) -> Row:
    return (
        i.tenant, i.run_id, i.approval_id, i.policy_id, i.version, int(i.open), i.occurred_at, i.opened_at,
        i.closed_at, i.request,
    )  # fmt: skip


def incident_of(row: Row) -> Incident:
    fields = dict(zip(INCIDENT, row, strict=True))
    return Incident(**{**fields, "open": bool(fields["open"])})


# --- deliveries --------------------------------------------------------------------------------------------


def delivery_row(d: Delivery) -> Row:
    """The columns of `DELIVERY`; the message has a table of its own."""
    return (
        d.tenant, d.id, d.event_key, d.kind, d.action, d.rule, d.channel, d.channel_type, d.lane, d.recipient,
        int(d.sealed), d.correlation_id, d.created_at, d.next_attempt_at, d.deadline, d.run_id, d.approval_id,
        d.seq, d.state.value, d.tries, _many(d.attempts), d.ended_at, value_of(d.reason), d.lease_owner,
        d.lease_until, d.fencing_token, d.folded_into, d.window, d.window_start, d.budget,
    )  # fmt: skip


def delivery_of(row: Row) -> Delivery:
    """From the columns of `DELIVERY` and, last, the message."""
    fields = dict(zip((*DELIVERY, "message"), row, strict=True))
    fields["sealed"] = bool(fields["sealed"])
    fields["state"] = State(fields["state"])
    fields["reason"] = None if fields["reason"] is None else Reason(fields["reason"])
    fields["attempts"] = _load(fields["attempts"], Attempt)
    return Delivery(**fields)


def value_of(reason: Reason | None) -> str | None:
    return None if reason is None else reason.value


def attempt_item(attempt: Attempt) -> Mapping[str, Any]:
    """The attempt as it stands in the JSON of a row's `attempts`, so that the two can be compared."""
    item: Mapping[str, Any] = orjson.loads(dump(attempt))
    return item


# --- audit -------------------------------------------------------------------------------------------------


def audit_row(a: AuditRecord) -> Row:
    return (
        a.tenant, a.id, a.name.value, a.at, a.actor, a.correlation_id, a.run_id, a.approval_id,
        orjson.dumps(dict(a.data)).decode(),
    )  # fmt: skip


def audit_of(row: Row) -> AuditRecord:
    fields = dict(zip(AUDIT, row, strict=True))
    return AuditRecord(**{**fields, "name": AuditName(fields["name"]), "data": orjson.loads(fields["data"])})


# --- leases ------------------------------------------------------------------------------------------------

LEASE_CEILING: Final = 3600 * SECOND
"""No lease is given for longer (microseconds). One that ends further ahead is a wrong clock's."""


def lease_terms(life: int, now: Instant) -> dict[str, Any]:
    """The parameters of the condition that tells whether a lease is in force, for this life of the store."""
    return {"life": life, "now": now, "ceiling": now + LEASE_CEILING}
