"""Deliveries that wait in a window, and the windows: one document of `timers` for each that is open.

A row joins in a transaction, which finds or makes the open window, changes its document, and inserts the row.
Whoever closes a window, or puts it off, changes that document first and sees to its rows afterwards. As both
change it, the rows that came before are all seen to, and one that comes after goes by what the window is then.
"""

from __future__ import annotations

from collections.abc import Collection as Ids
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, TypeAlias

from attrs import evolve

from notifyd.model import Delivery, Instant, State
from notifyd.store import WINDOW_AHEAD, CollectionName, Window
from notifyd.store.mongo import reading
from notifyd.store.mongo.base import LEASE_CEILING, Base, date_of
from notifyd.store.mongo.driver import Document, Filter
from notifyd.store.mongo.schema import HELD

_Span: TypeAlias = tuple[Instant, Instant]
"""When a window began, and when it closes."""

_KEPT: Final = timedelta(days=1)
"""How long after its end the document of a window that nobody closed is removed."""


# --- joining -----------------------------------------------------------------------------------------------


async def join(base: Base, deliveries: Sequence[Delivery]) -> list[Delivery]:
    """The rows, in a transaction, each in the window that is open under its key, or opening it."""
    spans: dict[tuple[str, str | None], _Span] = {}
    return [await _joined(base, row, spans) for row in deliveries]


async def _joined(base: Base, row: Delivery, spans: dict[tuple[str, str | None], _Span]) -> Delivery:
    span = spans.get((row.tenant, row.window))
    if span is None or span[1] <= row.created_at:
        span = spans[row.tenant, row.window] = await _open(base, row)
    start, closes_at = span
    return evolve(row, window_start=start, next_attempt_at=closes_at)


async def _open(base: Base, row: Delivery) -> _Span:
    """The window that is open under a row's key, at the time the row was made; else the row's own, now open."""
    one = {"tenant": row.tenant, "window": row.window}
    found = _span_of(await base.timers.find_one(one))
    is_open = found is not None and found[1] > row.created_at
    start, closes_at = found if found and is_open else (row.window_start, row.next_attempt_at)
    span = {"start": start, "closes_at": closes_at, "ends": _ends(closes_at)}
    # Counted, so that the document changes each time: MongoDB takes a write of what is there already for none.
    await base.timers.update_one(one, {"$set": span, "$inc": {"joined": 1}}, upsert=True)
    return start, closes_at


def _span_of(timer: Document | None) -> _Span | None:
    """None where there is none, or none that can be read: that is as good as closed."""
    start, closes_at = (timer or {}).get("start"), (timer or {}).get("closes_at")
    return (start, closes_at) if isinstance(start, int) and isinstance(closes_at, int) else None


def _ends(closes_at: Instant) -> datetime:
    return date_of(closes_at) + _KEPT


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
    """Those of which the first row decodes."""
    closed, begun_ahead = {"next_attempt_at": {"$lte": now}}, {"window_start": {"$gt": now + WINDOW_AHEAD}}
    grouped = {
        "_id": {"tenant": "$tenant", "key": "$window", "start": "$window_start"},
        "first": {"$first": "$_id"},
        "closes_at": {"$min": "$next_attempt_at"},
        "lane": {"$first": "$lane"},
        "channel": {"$first": "$channel"},
        "count": {"$sum": 1},
    }
    while True:
        where = reading.without(
            {**HELD, "$or": [closed, begun_ahead]}, base.aside.places(CollectionName.DELIVERIES)
        )
        found = await base.deliveries.aggregate(
            {"$match": where}, {"$group": grouped}, {"$sort": {"closes_at": 1}}, {"$limit": limit}
        )
        good = await reading.decode(base, Delivery, [one["first"] for one in found])
        windows = [_window(one) for one in found if str(one["first"]) in good]
        if windows or not found:
            return windows


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


def _held(base: Base, window: Window) -> Filter:
    held = {"tenant": window.tenant, "window": window.key, "window_start": window.start}
    return reading.without(held, base.aside.places(CollectionName.DELIVERIES))


async def rows(base: Base, window: Window, limit: int) -> list[Delivery]:
    return await reading.first(base, Delivery, _held(base, window), [("position", 1)], limit)


async def close(base: Base, window: Window) -> None:
    """Nobody joins the window any more."""
    one = {"tenant": window.tenant, "window": window.key, "start": window.start}
    await base.timers.delete_one(one)


async def fold(base: Base, window: Window, digest: Delivery, ids: Ids[str] | None, now: Instant) -> int:
    """Mark the rows as folded into the digest: some of the window's, or, `ids` None, all."""
    where = {**_held(base, window), **({} if ids is None else {"id": {"$in": list(ids)}})}
    folded = {"state": State.FOLDED.value, "folded_into": digest.id, "ended_at": now, "window": None}
    return await base.deliveries.update_many(where, {"$set": folded})


async def let_go(base: Base, window: Window, now: Instant) -> int:
    await close(base, window)
    queued = {"claim_at": now, "set_from": now - LEASE_CEILING}
    freed = {"created_at": now, "next_attempt_at": now, "window": None}
    return await base.deliveries.update_many(_held(base, window), {"$set": freed | queued})


async def bring_forward(base: Base, where: Filter, at: Instant) -> None:
    """The windows that meet `where` close at `at`, if they were to close later."""
    earlier = {"closes_at": at, "ends": _ends(at)}
    await base.timers.update_many({**where, "closes_at": {"$gt": at}}, {"$set": earlier})
    later = {**where, "next_attempt_at": {"$gt": at}}
    await base.deliveries.update_many(later, {"$set": {"next_attempt_at": at}})


async def postpone(base: Base, window: Window, closes_at: Instant) -> None:
    """Hold until `closes_at`. The rows' deadlines move along, so that holding back takes none of their time."""
    later = {"closes_at": closes_at, "ends": _ends(closes_at)}
    await base.timers.update_one(
        {"tenant": window.tenant, "window": window.key, "start": window.start}, {"$set": later}
    )
    earlier = {**_held(base, window), "next_attempt_at": {"$lt": closes_at}}
    change: Document = {"$set": {"next_attempt_at": closes_at}}
    if closes_at > window.closes_at:
        change["$inc"] = {"deadline": closes_at - window.closes_at}
    await base.deliveries.update_many(earlier, change)
