"""Deliveries that wait in a window, and the windows: one document of `timers` for each that is open.

A row joins in three steps, without a transaction: the open window is found or made (a unique index lets one
node make it), the row is inserted into it, and then the window is looked at again. Whoever closes a window
removes its document first and gathers its rows afterwards. So a row that came before is gathered, and one that
came after sees that its window has gone, and moves to the next. A node that dies between leaves a row in a
window that has closed; it is due as all rows there were, and `due_windows` finds it.
"""

from __future__ import annotations

from collections.abc import Collection as Ids
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, TypeAlias

from attrs import evolve
from pymongo.errors import DuplicateKeyError

from notifyd.errors import StoreError
from notifyd.model import Delivery, Instant, State
from notifyd.store import WINDOW_AHEAD, Window
from notifyd.store.mongo.approvals import RACES
from notifyd.store.mongo.base import LEASE_CEILING, Base, date_of
from notifyd.store.mongo.documents import record_of
from notifyd.store.mongo.driver import Document
from notifyd.store.mongo.schema import HELD

_Span: TypeAlias = tuple[Instant, Instant]
"""When a window began, and when it closes."""

_KEPT: Final = timedelta(days=1)
"""How long after its end the document of a window that nobody closed is removed."""

_OUT: Final[Mapping[str, Any]] = {"$unset": {"closing": ""}}


# --- joining -----------------------------------------------------------------------------------------------


async def join(base: Base, deliveries: Sequence[Delivery]) -> list[Delivery]:
    """The rows, each that names a window in the one that is open under its key, or opening it."""
    spans: dict[tuple[str, str], _Span] = {}
    return [row if row.window is None else await _joined(base, row, row.window, spans) for row in deliveries]


async def _joined(base: Base, row: Delivery, key: str, spans: dict[tuple[str, str], _Span]) -> Delivery:
    span = spans.get((row.tenant, key))
    if span is None or span[1] <= row.created_at:
        span = spans[row.tenant, key] = await _open(base, row, key)
    start, closes_at = span
    return evolve(row, window_start=start, next_attempt_at=closes_at)


async def _open(base: Base, row: Delivery, key: str) -> _Span:
    """The window that is open under a key, at the time the row was made; else the row's own, now open."""
    one = {"tenant": row.tenant, "window": key}
    own = {"start": row.window_start, "closes_at": row.next_attempt_at, "ends": _ends(row.next_attempt_at)}
    for _ in range(RACES):
        found = await base.timers.find_one(one)
        if found is not None and found["closes_at"] > row.created_at:
            return found["start"], found["closes_at"]
        try:
            over = {**one, "closes_at": {"$lte": row.created_at}}
            await base.timers.update_one(over, {"$set": own}, upsert=True)
        except DuplicateKeyError:
            continue  # another has opened one meanwhile
        return row.window_start, row.next_attempt_at
    raise StoreError("too many nodes open this window at once")


def _ends(closes_at: Instant) -> datetime:
    return date_of(closes_at) + _KEPT


async def settle(
    base: Base, given: Sequence[Delivery], joined: Sequence[Delivery], inserted: frozenset[str]
) -> None:
    """Move the rows whose window closed, or was put off, while they were being inserted."""
    pairs = [(a, b) for a, b in zip(given, joined, strict=True) if b.window is not None and b.id in inserted]
    for _ in range(RACES):
        if not pairs:
            return
        spans = await _spans(base, [row for _, row in pairs])
        pairs = [
            (row, await _moved(base, row, held))
            for row, held in pairs
            if spans.get((held.tenant, held.window)) != (held.window_start, held.next_attempt_at)
        ]
    raise StoreError("a window closes as often as a delivery joins it")


async def _spans(base: Base, rows: Sequence[Delivery]) -> dict[tuple[str, str | None], _Span]:
    keys: dict[str, set[str | None]] = {}
    for row in rows:
        keys.setdefault(row.tenant, set()).add(row.window)
    spans: dict[tuple[str, str | None], _Span] = {}
    for tenant, wanted in keys.items():
        for one in await base.timers.find({"tenant": tenant, "window": {"$in": list(wanted)}}):
            spans[tenant, one["window"]] = one["start"], one["closes_at"]
    return spans


async def _moved(base: Base, row: Delivery, held: Delivery) -> Delivery:
    """Put an inserted row into the window that is open now, unless it has been gathered."""
    start, closes_at = await _open(base, row, held.window or "")
    where = {"tenant": held.tenant, "id": held.id, "window": held.window, "window_start": held.window_start}
    later = {"window_start": start, "next_attempt_at": closes_at}
    await base.deliveries.update_one(where, {"$set": later, **_OUT})
    return evolve(held, window_start=start, next_attempt_at=closes_at)


# --- closing -----------------------------------------------------------------------------------------------


async def spent(base: Base, tenant: str, budget: str, since: Instant, limit: int) -> list[Instant]:
    where = {
        "tenant": tenant,
        "budget": budget,
        "created_at": {"$gt": since},
        "window": None,
        "state": {"$ne": State.FOLDED.value},
    }
    newest = [("created_at", -1)]
    found = await base.deliveries.find(where, fields=["created_at"], sort=newest, limit=limit)
    return [int(one["created_at"]) for one in found]


async def due(base: Base, now: Instant, limit: int) -> list[Window]:
    closed, begun_ahead = {"next_attempt_at": {"$lte": now}}, {"window_start": {"$gt": now + WINDOW_AHEAD}}
    grouped = {
        "_id": {"tenant": "$tenant", "key": "$window", "start": "$window_start"},
        "closes_at": {"$min": "$next_attempt_at"},
        "lane": {"$first": "$lane"},
        "channel": {"$first": "$channel"},
        "count": {"$sum": 1},
    }
    found = await base.deliveries.aggregate(
        {"$match": {**HELD, "$or": [closed, begun_ahead]}},
        {"$group": grouped},
        {"$sort": {"closes_at": 1}},
        {"$limit": limit},
    )
    return [_window(one) for one in found]


def _window(one: Document) -> Window:
    key = one["_id"]
    return Window(
        tenant=key["tenant"],
        key=key["key"],
        start=int(key["start"]),
        closes_at=int(one["closes_at"]),
        lane=one["lane"],
        channel=one["channel"],
        count=one["count"],
    )


def _held(window: Window) -> Document:
    return {"tenant": window.tenant, "window": window.key, "window_start": window.start}


async def rows(base: Base, window: Window, limit: int) -> list[Delivery]:
    found = await base.deliveries.find(_held(window), sort=[("position", 1)], limit=limit)
    return [record_of(document, Delivery) for document in found]


async def close(base: Base, window: Window) -> None:
    """Nobody joins the window any more."""
    one = {"tenant": window.tenant, "window": window.key, "start": window.start}
    await base.timers.delete_one(one)


async def mark(base: Base, window: Window, digest: Delivery, ids: Ids[str] | None) -> None:
    """Note on the rows which digest is about to stand for them."""
    await base.deliveries.update_many(_among(window, ids), {"$set": {"closing": digest.id}})


def _among(window: Window, ids: Ids[str] | None) -> Document:
    return _held(window) | ({} if ids is None else {"id": {"$in": list(ids)}})


async def fold_marked(base: Base, window: Window, digest: Delivery, now: Instant) -> int:
    where = {**_held(window), "closing": digest.id}
    folded = {"state": State.FOLDED.value, "folded_into": digest.id, "ended_at": now, "window": None}
    return await base.deliveries.update_many(where, {"$set": folded, **_OUT})


async def let_go(base: Base, window: Window, now: Instant) -> int:
    await close(base, window)
    return await _free(base, _held(window), now)


async def let_go_rest(
    base: Base, window: Window, digest: Delivery, ids: Ids[str] | None, now: Instant
) -> None:
    """Let go what came too late to be told of in the digest of its window: it is sent as itself."""
    await _free(base, {**_among(window, ids), "closing": {"$ne": digest.id}}, now)


async def _free(base: Base, where: Document, now: Instant) -> int:
    queued = {"claim_at": now, "set_from": now - LEASE_CEILING}
    freed = {"created_at": now, "next_attempt_at": now, "window": None}
    return await base.deliveries.update_many(where, {"$set": freed | queued, **_OUT})


async def postpone(base: Base, window: Window, closes_at: Instant) -> None:
    """Hold until `closes_at`. The rows' deadlines move along, so that holding back takes none of their time."""
    later = {"closes_at": closes_at, "ends": _ends(closes_at)}
    await base.timers.update_one(
        {"tenant": window.tenant, "window": window.key, "start": window.start}, {"$set": later}
    )
    earlier = {**_held(window), "next_attempt_at": {"$lt": closes_at}}
    change: Document = {"$set": {"next_attempt_at": closes_at}}
    if closes_at > window.closes_at:
        change["$inc"] = {"deadline": closes_at - window.closes_at}
    await base.deliveries.update_many(earlier, change)
