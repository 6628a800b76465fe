"""The steps over `deliveries` and `messages`: the queue and the ledger in one table.

`due_at` is what the queue is searched by: an open row's `next_attempt_at`, or, where that is beyond the row's
deadline and so cannot be meant, its creation; NULL once the row has ended, which takes it out of the queue's
indexes. A lease is in force while its end is ahead, and only in the life of the store that gave it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from sqlite3 import Connection
from typing import Any, Final

import orjson
from attrs import evolve

from notifyd.model import Attempt, Delivery, Instant, State
from notifyd.store import MAX_ATTEMPTS_KEPT, NO_MESSAGE, AttemptRecord, DeliveryFilter, LaneBacklog, Page
from notifyd.store.sqlite import rows
from notifyd.store.sqlite.paging import Source, newest_first
from notifyd.store.sqlite.rows import has_key, sql
from notifyd.store.turns import Flow, in_turn, to_ask

_COLUMNS: Final = (*rows.DELIVERY, "message")
_MESSAGE: Final = "JOIN messages ON messages.delivery = deliveries.rowid"
_SELECT: Final = sql("SELECT", ", ".join(_COLUMNS), "FROM deliveries", _MESSAGE)
_BY_ROWID: Final = sql(_SELECT, "WHERE deliveries.rowid = ?")
_LISTED: Final = Source("deliveries", "deliveries_listed", rows.DELIVERY)
NEXT_CHANNEL: Final = (
    "SELECT channel FROM deliveries WHERE tenant = ? AND channel > ? ORDER BY channel LIMIT 1"
)
_BY_ID: Final = sql(_SELECT, "WHERE", has_key("deliveries", "?1", "?2"))
_INSERT: Final = rows.insert_if_new("deliveries", (*rows.DELIVERY, "due_at", "life"))
_INSERT_MESSAGE: Final = "INSERT INTO messages (delivery, message) VALUES (?, ?)"

_FREE: Final = "NOT (life = :life AND lease_until > :now AND lease_until <= :ceiling)"
_AHEAD: Final = "due_at - (deadline - created_at) > :now"
_OTHERS: Final = "AND id NOT IN (SELECT value FROM json_each(:held)) ORDER BY due_at LIMIT :limit"
_IN_FLOW: Final = "SELECT rowid FROM deliveries WHERE lane = :lane AND tenant = :tenant AND rule = :rule AND"
DUE: Final = sql(_IN_FLOW, "due_at <= :now AND", _FREE, _OTHERS)
OVERDUE: Final = sql(_IN_FLOW, "due_at <= :now AND deadline <= :now AND", _FREE, _OTHERS)
FAR_AHEAD: Final = sql(
    _IN_FLOW, "due_at > min(:ceiling, :horizon) AND (due_at > :horizon OR", _AHEAD, ") AND", _FREE, _OTHERS
)
"""Rows due at a time that nobody could have set by now."""

NEXT_FLOW: Final = """
SELECT tenant, rule FROM deliveries WHERE lane = ? AND due_at IS NOT NULL AND (tenant, rule) > (?, ?)
ORDER BY tenant, rule LIMIT 1
"""
_SIZE: Final = "SELECT length(CAST(message AS BLOB)) FROM messages WHERE delivery = ?"
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
EARLIER: Final = """
SELECT EXISTS (
    SELECT 1 FROM deliveries WHERE tenant = ? AND run_id = ? AND approval_id = ? AND due_at IS NOT NULL
    AND seq > 0 AND seq < ? AND channel = ? AND recipient IS ?
)
"""
BACKLOG: Final = """
SELECT every.lane, channel, every.tenant, waiting, created_at
FROM (
    SELECT lane, tenant, count(*) AS waiting, min(rowid) AS oldest
    FROM deliveries WHERE due_at IS NOT NULL GROUP BY lane, tenant
) AS every JOIN deliveries ON deliveries.rowid = oldest
"""
OPEN_WINDOW: Final = """
SELECT window_start, next_attempt_at FROM deliveries
WHERE tenant = ? AND window = ? AND next_attempt_at > ? LIMIT 1
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
    db: Connection,
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
        "held": orjson.dumps(list(held)).decode(),
        "limit": limit,
        "horizon": _NEVER if horizon is None else horizon,
    }
    queries = (OVERDUE,) if overdue_only else (FAR_AHEAD, DUE)
    found: dict[Flow, list[int]] = {}
    for flow in to_ask(list(_flows(db, lane)), limit):
        whose = {**terms, "tenant": flow[0], "rule": flow[1]}
        if due := [rowid for query in queries for (rowid,) in db.execute(query, whose)]:
            found[flow] = due
        if len(found) == limit:
            break
    return rows.within(db, _SIZE, list(islice(in_turn(found), limit)), size)


def _flows(db: Connection, lane: str) -> Iterator[Flow]:
    """Each tenant and rule with open rows in a lane: a step over the index for each, not for each row."""
    flow = ("", "")
    while (found := db.execute(NEXT_FLOW, (lane, *flow)).fetchone()) is not None:
        flow = found
        yield flow


def claim(
    db: Connection,
    life: int,
    owner: str,
    now: Instant,
    until: Instant,
    candidates: Sequence[int],
    horizon: Instant | None = None,
) -> list[Delivery]:
    """Lease those of `candidates` that are due and free still."""
    terms = {
        **rows.lease_terms(life, now),
        "owner": owner,
        "until": until,
        "horizon": _NEVER if horizon is None else horizon,
    }
    claimed = [rowid for rowid in candidates if db.execute(_CLAIM, {**terms, "rowid": rowid}).rowcount]
    return [rows.delivery_of(db.execute(_BY_ROWID, (rowid,)).fetchone()) for rowid in claimed]


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


def _write_end(db: Connection, rowid: int, given: AttemptRecord, tries: int, attempts: str) -> None:
    due = _due_at(given.state, given.next_attempt_at, given.delivery)
    reason, folded_into = rows.value_of(given.reason), given.delivery.folded_into
    end = (
        given.state.value,
        tries,
        attempts,
        given.next_attempt_at,
        due,
        given.ended_at,
        reason,
        folded_into,
    )
    db.execute(_RECORD, (*end, rowid))


def _with_attempt(text: str, attempt: Attempt | None) -> tuple[str, bool]:
    """The JSON of a row's attempts with one more, and whether it was not among them."""
    if attempt is None:
        return text, False
    attempts, item = orjson.loads(text), rows.attempt_item(attempt)
    if item in attempts:
        return text, False
    return rows.dump([*attempts, item][-MAX_ATTEMPTS_KEPT:]), True


def has_earlier(db: Connection, d: Delivery) -> bool:
    found = db.execute(EARLIER, (d.tenant, d.run_id, d.approval_id, d.seq, d.channel, d.recipient)).fetchone()
    return bool(found[0])


def backlog(db: Connection) -> list[LaneBacklog]:
    return [LaneBacklog(*row) for row in db.execute(BACKLOG).fetchall()]


# --- ledger ------------------------------------------------------------------------------------------------


def find(db: Connection, tenant: str, delivery_id: str) -> Delivery | None:
    row = db.execute(_BY_ID, (tenant, delivery_id)).fetchone()
    return None if row is None else rows.delivery_of(row)


def search(
    db: Connection, tenant: str, where: DeliveryFilter, page: Page
) -> tuple[list[Delivery], int | None]:
    channels = _channels(db, tenant) if where.channel is None else (where.channel,)
    states = tuple(State) if where.state is None else (where.state,)
    streams = (
        {"tenant": tenant, "channel": channel, "state": state.value}
        for channel in channels
        for state in states
    )
    found, after = newest_first(db, _LISTED, streams, page)
    return [rows.delivery_of((*row, NO_MESSAGE)) for row in found], after


def _channels(db: Connection, tenant: str) -> Iterator[str]:
    """Each channel that a tenant has deliveries of: a step over the index for each, not for each row."""
    channel = ""
    while (found := db.execute(NEXT_CHANNEL, (tenant, channel)).fetchone()) is not None:
        (channel,) = found
        yield channel


def revive(
    db: Connection,
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
