"""The steps over `deliveries` and `messages`: the queue and the ledger in one table.

`due_at` is what the queue is searched by: an open row's `next_attempt_at`, or, where that is beyond the row's
deadline and so cannot be meant, its creation; NULL once the row has ended, which takes it out of the queue's
indexes. A lease is in force while its end is ahead, and only in the life of the store that gave it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from sqlite3 import Connection
from typing import Any, Final

import orjson
from attrs import evolve

from notifyd.errors import UndecodableRowError
from notifyd.model import SILENCED, ApprovalKey, Attempt, Delivery, Instant, State, wait_in
from notifyd.store import (
    MAX_ATTEMPTS_KEPT,
    MAX_COPIES,
    NO_MESSAGE,
    AttemptRecord,
    CollectionName,
    DeliveryFilter,
    LaneBacklog,
    Page,
    Waits,
    waits_for,
)
from notifyd.store.sqlite import rows
from notifyd.store.sqlite.files import Database
from notifyd.store.sqlite.paging import Source, newest_first
from notifyd.store.sqlite.rows import has_key, sql
from notifyd.store.turns import Flow, in_turn, to_ask

AT_ONCE: Final = 100
"""How many deliveries one step inserts: an event may be told to thousands of people."""

_BY_ID: Final = sql(rows.DELIVERIES.select, "WHERE", has_key("deliveries", "?1", "?2"))
_ANSWERED: Final = sql(rows.DELIVERIES.select, "WHERE answer_ref = ?")
COPIES: Final = sql(
    rows.DELIVERIES.select_by("deliveries_copies"),
    "WHERE tenant = ? AND run_id = ? AND approval_id = ? AND answer_ref IS NOT NULL",
    "ORDER BY deliveries.rowid DESC LIMIT ?",
)
_LISTED: Final = Source(rows.DELIVERIES, "deliveries_listed", rest=(NO_MESSAGE,))
NEXT_CHANNEL: Final = """
SELECT rowid, channel FROM deliveries WHERE tenant = ? AND channel > ?
AND rowid NOT IN (SELECT value FROM json_each(?)) ORDER BY channel LIMIT 1
"""
_INSERT: Final = rows.insert_if_new("deliveries", (*rows.DELIVERY, "due_at", "life"))
_INSERT_MESSAGE: Final = "INSERT OR REPLACE INTO messages (delivery, message) VALUES (?, ?)"

_FREE: Final = "NOT (life = :life AND lease_until > :now AND lease_until <= :ceiling)"
_AHEAD: Final = "due_at - (deadline - created_at) > :now"
NOT_ASIDE: Final = "rowid NOT IN (SELECT value FROM json_each(:aside))"
_OTHERS: Final = sql("AND", NOT_ASIDE, "ORDER BY due_at")
_IN_FLOW: Final = (
    "SELECT rowid, id FROM deliveries WHERE lane = :lane AND tenant = :tenant AND rule = :rule AND"
)
DUE: Final = sql(_IN_FLOW, "due_at <= :now AND", _FREE, _OTHERS)
OVERDUE: Final = sql(_IN_FLOW, "due_at <= :now AND deadline <= :now AND", _FREE, _OTHERS)
FAR_AHEAD: Final = sql(
    _IN_FLOW, "due_at > min(:ceiling, :horizon) AND (due_at > :horizon OR", _AHEAD, ") AND", _FREE, _OTHERS
)
"""Rows due at a time that nobody could have set by now."""

_FLOW: Final = "SELECT rowid, tenant, rule FROM deliveries WHERE lane = :lane AND due_at IS NOT NULL AND"
_FIRST_FLOW: Final = sql("AND", NOT_ASIDE, "ORDER BY tenant, rule LIMIT 1")
NEXT_FLOW: Final = (
    sql(_FLOW, "tenant = :tenant AND rule > :rule", _FIRST_FLOW),
    sql(_FLOW, "tenant > :tenant", _FIRST_FLOW),
)
"""Of the same tenant, then of the next. Where pairs are compared, SQLite walks through all rows of one of them."""

_SIZE: Final = "SELECT coalesce(max(length(CAST(message AS BLOB))), 0) FROM messages WHERE delivery = ?"
_NEVER: Final = 2**62

_NO_LEASE: Final = "lease_owner = NULL, lease_until = 0, life = 0"
_HAS_KEY: Final = sql("WHERE", has_key("deliveries", ":tenant", ":id"))
_OURS: Final = sql(
    _HAS_KEY,
    "AND due_at IS NOT NULL AND lease_owner = :owner AND fencing_token = :number AND life = :life",
)
_CLAIM: Final = sql(
    "UPDATE deliveries SET state = 'pending', lease_owner = :owner, lease_until = :until, life = :life,",
    "fencing_token = fencing_token + 1",
    "WHERE rowid = :rowid AND (due_at <= :now OR due_at > :horizon OR",
    _AHEAD,
    ") AND",
    _FREE,
)
_HOLD: Final = sql("UPDATE deliveries SET lease_until = :until", _OURS)
_HOLD_SENDING: Final = sql("UPDATE deliveries SET state = 'sending', lease_until = :until", _OURS)
_RELEASE: Final = sql(
    "UPDATE deliveries SET state = 'pending', next_attempt_at = :next, due_at = :due, reason = :reason,",
    _NO_LEASE,
    _OURS,
)
_STANDING: Final = sql(
    "SELECT rowid, state, tries, attempts, lease_owner, fencing_token, life FROM deliveries WHERE",
    has_key("deliveries", "?1", "?2"),
)
_RECORD: Final = sql(
    "UPDATE deliveries SET state = ?, tries = ?, attempts = ?, next_attempt_at = ?, due_at = ?,",
    "ended_at = ?, reason = ?, folded_into = ?,",
    _NO_LEASE,
    "WHERE rowid = ?",
)
_RECORD_FIRST: Final = sql(
    "UPDATE deliveries SET state = ?, tries = tries + 1, attempts = ?, next_attempt_at = ?, due_at = ?,",
    "ended_at = ?, reason = ?, folded_into = ?,",
    _NO_LEASE,
    "WHERE",
    has_key("deliveries", "?8", "?9"),
    "AND attempts = '[]' AND lease_owner = ? AND fencing_token = ? AND life = ?",
)
_KEEP_ATTEMPT: Final = "UPDATE deliveries SET attempts = ? WHERE rowid = ?"
_REVIVE: Final = sql(
    "UPDATE deliveries SET state = 'pending', tries = 0, seq = 0, next_attempt_at = :now, due_at = :now,",
    "deadline = :deadline, ended_at = NULL, reason = NULL,",
    "sealed = CASE WHEN :message IS NULL THEN sealed ELSE :sealed END,",
    _NO_LEASE,
    _HAS_KEY,
    "AND state = 'dead' AND (reason IS 'render_failed') = (:message IS NOT NULL)",
)
_GIVE_MESSAGE: Final = sql(
    "UPDATE messages SET message = :message WHERE delivery = (SELECT rowid FROM deliveries", _HAS_KEY, ")"
)
EARLIER: Final = sql(
    "SELECT EXISTS (SELECT 1 FROM deliveries",
    "WHERE tenant = :tenant AND run_id = :run AND approval_id = :approval AND due_at IS NOT NULL",
    "AND seq > 0 AND seq < :seq AND channel = :channel AND recipient IS :recipient AND",
    NOT_ASIDE,
    ")",
)
BACKLOG: Final = sql(
    "SELECT every.lane, channel, every.tenant, waiting, created_at, oldest FROM (",
    "SELECT lane, tenant, count(*) AS waiting, min(rowid) AS oldest",
    "FROM deliveries WHERE due_at IS NOT NULL AND",
    NOT_ASIDE,
    "GROUP BY lane, tenant) AS every JOIN deliveries ON deliveries.rowid = oldest",
)
WAITS: Final = sql(
    "SELECT lane, channel, NULL AS window, reason, tries, count(*) FROM deliveries INDEXED BY deliveries_due",
    "WHERE due_at > :now AND",
    NOT_ASIDE,
    "GROUP BY lane, channel, reason, tries",
    "UNION ALL SELECT lane, channel, min(window), NULL, 0, count(*) FROM deliveries INDEXED BY deliveries_window",
    "WHERE window IS NOT NULL AND",
    NOT_ASIDE,
    f"GROUP BY lane, channel, window GLOB '{SILENCED}*'",
)
_OF_LANE: Final = sql(
    rows.DELIVERIES.select,
    "WHERE lane IN (?1, CAST(?1 AS TEXT)) AND tenant IN (?2, CAST(?2 AS TEXT)) AND due_at IS NOT NULL",
)
_COUNTED: Final = (str, str, str, int, int, int)
"""The types in a row of that."""

OPEN_WINDOW: Final = """
SELECT window_start, next_attempt_at FROM deliveries
WHERE tenant = ? AND window = ? AND next_attempt_at > ?
AND typeof(next_attempt_at) = 'integer' AND typeof(window_start) = 'integer' LIMIT 1
"""
DEAD_LETTERS: Final = "SELECT channel, count(*) FROM deliveries WHERE state = 'dead' GROUP BY channel"


def _due_at(state: State, next_attempt_at: Instant, delivery: Delivery) -> Instant | None:
    if not state.open or delivery.window is not None:
        return None
    return next_attempt_at if next_attempt_at <= delivery.deadline else delivery.created_at


# --- queue -------------------------------------------------------------------------------------------------


def insert(db: Connection, life: int, deliveries: Sequence[Delivery]) -> frozenset[str]:
    """Insert the rows that are not there yet, leased in this life if they name an owner; answer their ids."""
    inserted = []
    for delivery in deliveries:
        leased = 0 if delivery.lease_owner is None else life
        if delivery.window is not None:
            delivery = _joined(db, delivery)
        if insert_row(db, leased, delivery):
            inserted.append(delivery.id)
    return frozenset(inserted)


def insert_row(db: Connection, leased: int, delivery: Delivery) -> bool:
    """Insert one row as it is, unless its id is there; `leased` is the life of its lease, 0 for none."""
    due = _due_at(delivery.state, delivery.next_attempt_at, delivery)
    row = rows.inserted(db.execute(_INSERT, (*rows.delivery_row(delivery), due, leased)))
    if row is not None:
        db.execute(_INSERT_MESSAGE, (row, delivery.message))
    return row is not None


def _joined(db: Connection, delivery: Delivery) -> Delivery:
    """`delivery` in the window that is open under its key, or opening it."""
    found = db.execute(OPEN_WINDOW, (delivery.tenant, delivery.window, delivery.created_at)).fetchone()
    if found is None:
        return delivery
    start, closes_at = found
    return evolve(delivery, window_start=start, next_attempt_at=closes_at)


def due(
    db: Database,
    life: int,
    lane: str,
    now: Instant,
    limit: int,
    held: Collection[str],
    overdue_only: bool,
    horizon: Instant | None = None,
    size: int | None = None,
) -> list[int]:
    """The rowids of a lane's open rows that can be claimed: of each tenant and rule in turn the longest due."""
    terms = {
        **rows.lease_terms(life, now),
        "lane": lane,
        "aside": rows.passed_over(db, CollectionName.DELIVERIES),
        "horizon": _NEVER if horizon is None else horizon,
    }
    queries, ours = (OVERDUE,) if overdue_only else (FAR_AHEAD, DUE), frozenset(held)
    found: dict[Flow, list[int]] = {}
    for flow in to_ask(list(_flows(db, lane)), limit):
        whose = {**terms, "tenant": flow[0], "rule": flow[1]}
        # What is held may be thousands: it is passed over here, and not looked up by each of the queries.
        free = (row for query in queries for row, id_ in db.execute(query, whose) if id_ not in ours)
        if due := list(islice(free, limit)):
            found[flow] = due
        if len(found) == limit:
            break
    return rows.within(db, _SIZE, list(islice(in_turn(found), limit)), size)


def _flows(db: Database, lane: str) -> Iterator[Flow]:
    """Each tenant and rule with open rows in a lane: a step over the index for each, not for each row."""
    flow, others = ("", ""), rows.passed_over(db, CollectionName.DELIVERIES)
    while (found := _next_flow(db, lane, flow, others)) is not None:
        rowid, tenant, rule = found
        if type(tenant) is str and type(rule) is str:
            flow = tenant, rule
            yield flow
        else:
            by_rowid(db, rowid)  # sets it aside
            others = rows.passed_over(db, CollectionName.DELIVERIES)


def _next_flow(db: Database, lane: str, flow: Flow, others: str) -> tuple[int, Any, Any] | None:
    terms = {"lane": lane, "tenant": flow[0], "rule": flow[1], "aside": others}
    found = (db.execute(query, terms).fetchone() for query in NEXT_FLOW)
    return next(filter(None, found), None)


def claim(
    db: Database,
    life: int,
    owner: str,
    now: Instant,
    until: Instant,
    candidates: Sequence[int],
    horizon: Instant | None = None,
) -> list[Delivery]:
    """Lease those of `candidates` that decode, and are due and free still."""
    terms = {
        **rows.lease_terms(life, now),
        "owner": owner,
        "until": until,
        "horizon": _NEVER if horizon is None else horizon,
    }
    found = [(rowid, by_rowid(db, rowid)) for rowid in candidates]
    return [
        evolve(
            row,
            state=State.PENDING,
            lease_owner=owner,
            lease_until=until,
            fencing_token=row.fencing_token + 1,
        )
        for rowid, row in found
        if row is not None and db.execute(_CLAIM, {**terms, "rowid": rowid}).rowcount
    ]


def by_rowid(db: Database, rowid: int) -> Delivery | None:
    """None, and set aside, where the row does not decode."""
    with suppress(UndecodableRowError):
        return rows.one(db, rows.DELIVERIES, db.execute(rows.DELIVERIES.by_number, (rowid,)).fetchone())
    return None


def _lease_of(delivery: Delivery, life: int) -> dict[str, Any]:
    return {
        "tenant": delivery.tenant,
        "id": delivery.id,
        "owner": delivery.lease_owner,
        "number": delivery.fencing_token,
        "life": life,
    }


def renew_leases(
    db: Connection, life: int, deliveries: Sequence[Delivery], until: Instant, sending: bool
) -> frozenset[str]:
    statement = _HOLD_SENDING if sending else _HOLD
    return frozenset(
        d.id for d in deliveries if db.execute(statement, {**_lease_of(d, life), "until": until}).rowcount
    )


def release(db: Connection, life: int, deliveries: Sequence[Delivery]) -> None:
    for delivery in deliveries:
        terms = {
            **_lease_of(delivery, life),
            "next": delivery.next_attempt_at,
            "due": _due_at(State.PENDING, delivery.next_attempt_at, delivery),
            "reason": rows.value_of(delivery.reason),
        }
        db.execute(_RELEASE, terms)


def record(db: Connection, life: int, given: AttemptRecord) -> bool:
    """Write the end of an attempt, or, where the lease was lost, the attempt alone.

    A repetition of a record that was written is True again, and changes nothing.
    """
    delivery = given.delivery
    if _record_first(db, life, given):
        return True
    row = db.execute(_STANDING, (delivery.tenant, delivery.id)).fetchone()
    if row is None:
        return False
    rowid, state, tries, text, owner, number, lease_life = row
    attempts, fresh = _with_attempt(text, given.attempt)
    same_number = number == delivery.fencing_token
    if same_number and owner is not None and owner == delivery.lease_owner and lease_life == life:
        _write_end(db, rowid, given, tries + (given.attempt is not None), attempts)
        return True
    if fresh:
        db.execute(_KEEP_ATTEMPT, (attempts, rowid))
        return False
    return same_number and owner is None and state == given.state


def _record_first(db: Connection, life: int, given: AttemptRecord) -> bool:
    """Write the end of an attempt before which there was none, as of most: without a look at the row."""
    if given.attempt is None or given.delivery.attempts:
        return False
    attempts, _ = _with_attempt("[]", given.attempt)
    lease = given.delivery.lease_owner, given.delivery.fencing_token, life
    end = given.state.value, attempts, *_ended(given), given.delivery.tenant, given.delivery.id
    return db.execute(_RECORD_FIRST, (*end, *lease)).rowcount == 1


def _write_end(db: Connection, rowid: int, given: AttemptRecord, tries: int, attempts: str) -> None:
    db.execute(_RECORD, (given.state.value, tries, attempts, *_ended(given), rowid))


def _ended(given: AttemptRecord) -> tuple[Any, ...]:
    due = _due_at(given.state, given.next_attempt_at, given.delivery)
    reason, folded_into = rows.value_of(given.reason), given.delivery.folded_into
    return given.next_attempt_at, due, given.ended_at, reason, folded_into


def _with_attempt(text: str, attempt: Attempt | None) -> tuple[str, bool]:
    """The JSON of a row's attempts with one more, and whether it was not among them."""
    if attempt is None:
        return text, False
    attempts, item = orjson.loads(text), rows.attempt_item(attempt)
    if item in attempts:
        return text, False
    return orjson.dumps([*attempts, item][-MAX_ATTEMPTS_KEPT:]).decode(), True


def has_earlier(db: Database, d: Delivery) -> bool:
    terms = {"tenant": d.tenant, "run": d.run_id, "approval": d.approval_id, "seq": d.seq}
    place = {"channel": d.channel, "recipient": d.recipient}
    aside = {"aside": rows.set_aside(db, CollectionName.DELIVERIES)}
    return bool(db.execute(EARLIER, {**terms, **place, **aside}).fetchone()[0])


def backlog(db: Database) -> list[LaneBacklog]:
    while True:
        aside = rows.undecodable(db, CollectionName.DELIVERIES)
        found = db.execute(BACKLOG, {"aside": aside}).fetchall()
        odd = [row for row in found if tuple(map(type, row)) != _COUNTED]
        if not odd:
            return [LaneBacklog(*row[:-1]) for row in found]
        for lane, _, tenant, *_, oldest in odd:
            by_rowid(db, oldest)
            if not (type(lane) is str and type(tenant) is str):  # where nobody would ever look for a row
                rows.some(db, rows.DELIVERIES, db.execute(_OF_LANE, (lane, tenant)))


def waits(db: Database, now: Instant) -> list[Waits]:
    found = db.execute(WAITS, {"now": now, "aside": rows.undecodable(db, CollectionName.DELIVERIES)})
    return [
        Waits(lane, channel, waits_for(reason, tries) if window is None else wait_in(str(window)), count)
        for lane, channel, window, reason, tries, count in found
        if type(lane) is str and type(channel) is str
    ]


# --- ledger ------------------------------------------------------------------------------------------------


def find(db: Database, tenant: str, delivery_id: str) -> Delivery | None:
    return rows.one(db, rows.DELIVERIES, db.execute(_BY_ID, (tenant, delivery_id)).fetchone())


def answered(db: Database, ref: str) -> Delivery | None:
    return rows.one(db, rows.DELIVERIES, db.execute(_ANSWERED, (ref,)).fetchone())


def copies(db: Database, key: ApprovalKey) -> list[Delivery]:
    terms = (key.tenant, key.run_id, key.approval_id, MAX_COPIES)
    return rows.some(db, rows.DELIVERIES, db.execute(COPIES, terms))


def search(db: Database, tenant: str, where: DeliveryFilter, page: Page) -> tuple[list[Delivery], int | None]:
    channels = _channels(db, tenant) if where.channel is None else (where.channel,)
    states = tuple(State) if where.state is None else (where.state,)
    streams = (
        {"tenant": tenant, "channel": channel, "state": state.value}
        for channel in channels
        for state in states
    )
    return newest_first(db, _LISTED, streams, page)


def _channels(db: Database, tenant: str) -> Iterator[str]:
    """Each channel that a tenant has deliveries of: a step over the index for each, not for each row."""
    return rows.names(db, rows.DELIVERIES, NEXT_CHANNEL, tenant)


def revive(
    db: Database,
    tenant: str,
    delivery_id: str,
    now: Instant,
    deadline: Instant,
    message: str | None = None,
    sealed: bool = False,
) -> Delivery | None:
    """Put a dead row back into the queue, outside the order of its approval's messages (`seq` 0).

    `message` is that of a row that has none.
    """
    terms = {"tenant": tenant, "id": delivery_id, "now": now, "deadline": deadline}
    if not db.execute(_REVIVE, {**terms, "message": message, "sealed": int(sealed)}).rowcount:
        return None
    if message is not None:
        db.execute(_GIVE_MESSAGE, {"tenant": tenant, "id": delivery_id, "message": message})
    return find(db, tenant, delivery_id)


def dead_letters(db: Connection) -> dict[str, int]:
    return dict(db.execute(DEAD_LETTERS).fetchall())
