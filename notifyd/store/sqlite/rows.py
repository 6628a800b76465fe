"""Records to rows and back, by hand where it is hot: a row holds a record's fields in the record's order.

What is searched is a column; tuples of records inside a record are one column of JSON each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from operator import attrgetter
from sqlite3 import Connection, Cursor
from typing import Any, Final, Generic, TypeAlias, TypeVar, get_args, get_origin, get_type_hints

import orjson
from attrs import fields, frozen
from cattrs.preconf.orjson import make_converter

from notifyd.errors import Reason, UndecodableRowError
from notifyd.model import (
    SECOND,
    Approval,
    Attempt,
    AuditRecord,
    Decision,
    Delivery,
    Event,
    Incident,
    Instant,
    OwnDeputy,
    PlanEntry,
    Silence,
)
from notifyd.store import CollectionName, aside
from notifyd.store.decode import DecodeError, Decoder, json_of
from notifyd.store.sqlite.files import Database
from notifyd.store.sqlite.schema import short_key

T = TypeVar("T")
Row: TypeAlias = tuple[Any, ...]

_converter = make_converter()
_decoder: Final = Decoder()

EVENT: Final = (
    "tenant", "key", "event_id", "kind", "action", "occurred_at", "received_at", "body", "content_id",
    "client", "correlation_id", "run_id", "approval_id", "outcome", "notify", "version", "round",
)  # fmt: skip
APPROVAL: Final = (
    "tenant", "run_id", "approval_id", "version", "round", "status", "plan_hash", "required_grants",
    "required_approvals", "requested_by", "client", "requested_at", "created_at", "expires_at",
    "callback_url", "sealed_token", "correlation_id", "request", "decisions", "ended_at", "ended_by",
    "resume", "resume_delivery", "effects", "owner", "heard_again_at", "groups", "inputs", "timer_at",
    "timed_until", "receipt",
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
    "folded_into", "window", "window_start", "budget", "answer_ref",
    "edits",
)  # fmt: skip
AUDIT: Final = (
    "tenant", "id", "name", "at", "actor", "correlation_id", "run_id", "approval_id", "data",
)  # fmt: skip
SILENCE: Final = (
    "tenant", "id", "predicate", "reason", "author", "created_at", "starts_at", "ends_at", "approvals",
    "ended_at", "ended_by",
)  # fmt: skip
DEPUTY: Final = (
    "tenant", "id", "person", "deputy", "first", "last", "proved", "created_at", "over_at", "ended_at",
)  # fmt: skip

_KEYS: Final = {"events": "key", "deliveries": "id", "audit": "id"}
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
    return sql(insert(table, columns), f"ON CONFLICT ({', '.join(key)})", "DO UPDATE SET", rest)


def dump(value: Any) -> str:
    """JSON text of plain values or records."""
    return orjson.dumps(_converter.unstructure(value)).decode()


def _many(records: tuple[Any, ...]) -> str:
    return dump(records) if records else "[]"


class _Flat:
    """Records of plain values alone as objects, by hand: two are written for each delivery."""

    def __init__(self, kind: type[Any]) -> None:
        self._names = tuple(one.name for one in fields(kind))
        self._values = attrgetter(*self._names)

    def of(self, record: Any) -> dict[str, Any]:
        return dict(zip(self._names, self._values(record), strict=True))


_ENTRY: Final = _Flat(PlanEntry)
_ATTEMPT: Final = _Flat(Attempt)


# --- events ------------------------------------------------------------------------------------------------


def event_row(e: Event) -> Row:
    return (
        e.tenant, e.key, e.event_id, e.kind, e.action, e.occurred_at, e.received_at, e.body, e.content_id,
        e.client, e.correlation_id, e.run_id, e.approval_id, str(e.outcome), int(e.notify), e.version,
        e.round,
    )  # fmt: skip


def plan_text(plan: tuple[PlanEntry, ...]) -> str:
    return orjson.dumps([_ENTRY.of(entry) for entry in plan]).decode()


# --- approvals and incidents -------------------------------------------------------------------------------


def approval_row(a: Approval) -> Row:
    """The columns of `SAVED_APPROVAL`."""
    return (
        a.tenant, a.run_id, a.approval_id, a.version, a.round, str(a.status), a.plan_hash,
        orjson.dumps(a.required_grants).decode(), a.required_approvals, a.requested_by, a.client,
        a.requested_at, a.created_at, a.expires_at, a.callback_url, a.sealed_token, a.correlation_id, a.request,
        _many(a.decisions),
        a.ended_at, a.ended_by, str(a.resume), a.resume_delivery, _many(a.effects),
        a.owner, a.heard_again_at, _many(a.groups), _many(a.inputs), a.timer_at, a.timed_until,
        a.receipt, a.effects_due_at, len(a.dead_effects),
    )  # fmt: skip


def decision_row(d: Decision) -> Row:
    """The columns of `DECISION`."""
    return d.actor, d.plan_hash, dump(d)


def incident_row(i: Incident) -> Row:
    return (
        i.tenant, i.run_id, i.approval_id, i.policy_id, i.version, int(i.open), i.occurred_at, i.opened_at,
        i.closed_at, i.request,
    )  # fmt: skip


# --- deliveries --------------------------------------------------------------------------------------------


def delivery_row(d: Delivery) -> Row:
    """The columns of `DELIVERY`; the message has a table of its own."""
    return (
        d.tenant, d.id, d.event_key, d.kind, d.action, d.rule, d.channel, d.channel_type, d.lane, d.recipient,
        int(d.sealed), d.correlation_id, d.created_at, d.next_attempt_at, d.deadline, d.run_id, d.approval_id,
        d.seq, d.state.value, d.tries, _many(d.attempts), d.ended_at, value_of(d.reason), d.lease_owner,
        d.lease_until, d.fencing_token, d.folded_into, d.window, d.window_start, d.budget,
        d.answer_ref, d.edits,
    )  # fmt: skip


def value_of(reason: Reason | None) -> str | None:
    return None if reason is None else reason.value


def attempt_item(attempt: Attempt) -> Mapping[str, Any]:
    """The attempt as it stands in the JSON of a row's `attempts`, so that the two can be compared."""
    return _ATTEMPT.of(attempt)


# --- audit -------------------------------------------------------------------------------------------------


def audit_row(a: AuditRecord) -> Row:
    return (
        a.tenant, a.id, str(a.name), a.at, a.actor, a.correlation_id, a.run_id, a.approval_id,
        orjson.dumps(dict(a.data)).decode(),
    )  # fmt: skip


# --- silences ----------------------------------------------------------------------------------------------


def silence_row(s: Silence) -> Row:
    return (
        s.tenant, s.id, s.predicate, s.reason, s.author, s.created_at, s.starts_at, s.ends_at, int(s.approvals),
        s.ended_at, s.ended_by,
    )  # fmt: skip


# --- deputies ----------------------------------------------------------------------------------------------


def deputy_row(d: OwnDeputy) -> Row:
    return (
        d.tenant, d.id, d.person, d.deputy, d.first, d.last, int(d.proved), d.created_at, d.over_at, d.ended_at,
    )  # fmt: skip


# --- reading -----------------------------------------------------------------------------------------------


@frozen
class Kind(Generic[T]):
    """How a table's rows are read: `columns`, in the order of their values in a row.

    `join` is the table beside it that has some of them. `flags` are 0 or 1 for a boolean, `json`
    is JSON text of a record's parts, and `objects` stay JSON text.
    """

    table: str
    record: type[T]
    columns: tuple[str, ...]
    join: str
    flags: tuple[str, ...]
    json: tuple[str, ...]
    objects: tuple[str, ...]

    @property
    def select(self) -> str:
        """The query of all rows, each row's number first."""
        return sql(self._select, self.join)

    @property
    def by_number(self) -> str:
        """The query of the row with a number."""
        return sql(self.select, f"WHERE {self.table}.rowid = ?")

    def select_by(self, index: str) -> str:
        """`select`, with the index named that is to be used."""
        return sql(self._select, "INDEXED BY", index, self.join)

    @property
    def _select(self) -> str:
        return sql(f"SELECT {self.table}.rowid,", ", ".join(self.columns), f"FROM {self.table}")

    def decode(self, row: Row) -> T:
        """From the values of `columns`. Raises `DecodeError`."""
        members = dict(zip(self.columns, row, strict=True))
        for name in self.flags:
            if members[name] in (0, 1):
                members[name] = bool(members[name])
        for name in self.json:
            members[name] = _parts(name, members[name])
        return _decoder.record(members, self.record, self.objects)

    def named(self, row: Row) -> Mapping[str, Any]:
        """The values by their columns, to tell by which key a row is known."""
        return dict(zip(self.columns, row, strict=True))


def _parts(name: str, text: Any) -> Any:
    if text == "[]" or text is None:
        return [] if text else None
    try:
        return json_of(text)
    except ValueError as error:
        raise DecodeError(f"{name} {error}") from None


def _kind(
    table: str,
    record: type[T],
    columns: tuple[str, ...],
    join: str = "",
    objects: tuple[str, ...] = (),
) -> Kind[T]:
    types = get_type_hints(record)
    flags = tuple(name for name in columns if types[name] is bool)
    json = tuple(name for name in columns if _holds_parts(types[name]))
    return Kind(table, record, columns, join, flags, json, objects)


def _holds_parts(kind: Any) -> bool:
    return any(get_origin(one) in (tuple, Mapping) for one in (kind, *get_args(kind)))


EVENTS: Final = _kind(
    CollectionName.EVENTS,
    Event,
    (*EVENT, "plan"),
    "LEFT JOIN plans ON plans.event = events.rowid",
    ("body",),
)
APPROVALS: Final = _kind(CollectionName.APPROVALS, Approval, APPROVAL, objects=("request",))
INCIDENTS: Final = _kind(CollectionName.INCIDENTS, Incident, INCIDENT, objects=("request",))
DELIVERIES: Final = _kind(
    CollectionName.DELIVERIES,
    Delivery,
    (*DELIVERY, "message"),
    "LEFT JOIN messages ON messages.delivery = deliveries.rowid",
)


@frozen
class _Decisions(Kind[Decision]):
    """Those of earlier rounds, each of which is one column of JSON; the others tell whose it is."""

    def decode(self, row: Row) -> Decision:
        return _decoder.record({"decision": _parts("decision", row[-1])}, _Superseded).decision


@frozen
class _Superseded:
    decision: Decision


DECISIONS: Final = _Decisions(
    aside.DECISIONS,
    Decision,
    ("tenant", "run_id", "approval_id", "actor", "decision"),
    "LEFT JOIN approvals ON approvals.rowid = decisions.approval",
    flags=(),
    json=(),
    objects=(),
)
AUDITS: Final = _kind(CollectionName.AUDIT, AuditRecord, AUDIT)
SILENCES: Final = _kind(aside.SILENCES, Silence, SILENCE)
DEPUTIES: Final = _kind(aside.DEPUTIES, OwnDeputy, DEPUTY)
KINDS: Final[Mapping[str, Kind[Any]]] = {
    one.table: one
    for one in (EVENTS, APPROVALS, DECISIONS, INCIDENTS, DELIVERIES, AUDITS, SILENCES, DEPUTIES)
}


def one(db: Database, kind: Kind[T], row: Row | None, *, whole: bool = True) -> T | None:
    """The record of a row of `kind.select`; None where there is none. Raises `UndecodableRowError`.

    Not `whole` is a row that was not read in all its columns: it may not decode though it does here.
    """
    if row is None:
        return None
    try:
        record = kind.decode(row[1:])
    except DecodeError as error:
        raise db.aside.refuse(kind.table, row[0], kind.named(row[1:]), str(error)) from None
    if whole:
        db.aside.decoded(kind.table, row[0])
    return record


def some(db: Database, kind: Kind[T], found: Iterable[Row], *, whole: bool = True) -> list[T]:
    """The records of rows, without those that do not decode."""
    records = []
    for row in found:
        with suppress(UndecodableRowError):
            records.append(one(db, kind, row, whole=whole))
    return [record for record in records if record is not None]


def due(db: Database, kind: Kind[T], query: str, terms: Mapping[str, Any]) -> list[T]:
    """What `query` gives first, past rows that are set aside, which it leaves out by `:aside`."""
    while True:
        found = db.execute(query, {**terms, "aside": passed_over(db, kind.table)}).fetchall()
        records = some(db, kind, found)
        if records or not found:
            return records


def names(db: Database, kind: Kind[Any], query: str, *terms: str) -> Iterator[str]:
    """Each of the names that `query` gives one at a time, with the number of a row that has it.

    It takes `terms`, the name that it is to go on after, and a JSON array of the rows to pass over. A row whose
    name is no text is set aside.
    """
    name, nameless = "", list[int]()
    while (found := db.execute(query, (*terms, name, dump(nameless))).fetchone()) is not None:
        if type(found[1]) is str:
            name = found[1]
            yield name
        else:
            some(db, kind, db.execute(kind.by_number, (found[0],)))
            nameless.append(found[0])


def passed_over(db: Database, table: str) -> str:
    """The numbers of the rows that are set aside and not to be tried again yet, as a JSON array."""
    return dump(db.aside.passed_over(table))


def set_aside(db: Database, table: str) -> str:
    """The numbers of all the rows that are set aside, as a JSON array."""
    return dump(db.aside.places(table))


def undecodable(db: Database, table: str) -> str:
    """The numbers of the rows that are known not to decode, as a JSON array."""
    return dump(db.aside.undecodable(table))


# --- leases ------------------------------------------------------------------------------------------------

LEASE_CEILING: Final = 3600 * SECOND
"""No lease is given for longer (microseconds). One that ends further ahead is a wrong clock's."""


def lease_terms(life: int, now: Instant) -> dict[str, Any]:
    """The parameters of the condition that tells whether a lease is in force, for this life of the store."""
    return {"life": life, "now": now, "ceiling": now + LEASE_CEILING}
