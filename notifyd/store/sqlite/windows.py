"""The steps over held deliveries: rows that wait in a window, which no claim takes.

A held row's `due_at` is NULL, so that it is in none of the queue's indexes; `closes_at` is its window's end.
"""

from __future__ import annotations

from collections.abc import Collection
from sqlite3 import Connection
from typing import Any, Final

import orjson

from notifyd.model import Delivery, Instant
from notifyd.store import WINDOW_AHEAD, CollectionName, Window
from notifyd.store.sqlite import deliveries, rows
from notifyd.store.sqlite.files import Database
from notifyd.store.sqlite.rows import sql

AT_ONCE: Final = 256
"""How many rows of a window one step changes: a night's quiet may hold very many."""

SPENT: Final = """
SELECT created_at FROM deliveries WHERE tenant = ? AND budget = ? AND window IS NULL AND state <> 'folded'
AND created_at > ? AND typeof(created_at) = 'integer' ORDER BY created_at DESC LIMIT ?
"""
_NOT_ASIDE: Final = "deliveries.rowid NOT IN (SELECT value FROM json_each(:aside))"
_CLOSING: Final = sql(
    "SELECT DISTINCT next_attempt_at AS closes_at, window_start AS began",
    "FROM deliveries INDEXED BY deliveries_closing WHERE window IS NOT NULL AND",
    _NOT_ASIDE,
    "AND",
)
DUE_WINDOWS: Final = sql(
    "SELECT min(deliveries.rowid), tenant, window, window_start, next_attempt_at, lane, channel, count(*) FROM (",
    *(_CLOSING, "next_attempt_at <= :now UNION ALL"),
    *(_CLOSING, "next_attempt_at > :ahead AND window_start > :ahead"),
    "ORDER BY closes_at, began LIMIT :limit) CROSS JOIN deliveries INDEXED BY deliveries_closing",
    "ON next_attempt_at = closes_at AND window_start = began WHERE window IS NOT NULL AND",
    _NOT_ASIDE,
    "GROUP BY tenant, window, window_start ORDER BY next_attempt_at LIMIT :limit",
)
"""Of the windows that close, those with the earliest ends: of no others are the rows read."""

_HELD: Final = f"WHERE tenant = :tenant AND window = :window AND window_start = :start AND {_NOT_ASIDE}"
_AMONG: Final = "AND (:ids IS NULL OR id IN (SELECT value FROM json_each(:ids)))"
_SOME: Final = "WHERE rowid IN (SELECT rowid FROM deliveries INDEXED BY deliveries_window"
_FOLD: Final = sql(
    "UPDATE deliveries SET state = 'folded', folded_into = :digest, ended_at = :now, window = NULL",
    _SOME,
    _HELD,
    _AMONG,
    "LIMIT :limit)",
)
_LET_GO: Final = sql(
    "UPDATE deliveries SET created_at = :now, next_attempt_at = :now, due_at = :now, window = NULL",
    _SOME,
    _HELD,
    "LIMIT :limit)",
)
_POSTPONE: Final = sql(
    "UPDATE deliveries SET next_attempt_at = :closes_at,",
    "deadline = deadline + max(0, :closes_at - next_attempt_at)",
    _SOME,
    _HELD,
    "AND next_attempt_at <> :closes_at LIMIT :limit)",
)
HELD: Final = sql(
    rows.DELIVERIES.select_by("deliveries_window"),
    _HELD,
    "ORDER BY deliveries.next_attempt_at, deliveries.rowid LIMIT :limit",
)


def spent(db: Connection, tenant: str, budget: str, since: Instant, limit: int) -> list[Instant]:
    return [at for (at,) in db.execute(SPENT, (tenant, budget, since, limit))]


def due(db: Database, now: Instant, limit: int) -> list[Window]:
    """Each as its first row tells of it, which decodes."""
    terms = {"now": now, "ahead": now + WINDOW_AHEAD, "limit": limit}
    while True:
        aside = rows.set_aside(db, CollectionName.DELIVERIES)
        found = db.execute(DUE_WINDOWS, {**terms, "aside": aside}).fetchall()
        windows = [Window(*window) for first, *window in found if deliveries.by_rowid(db, first)]
        if windows or not found:
            return windows


def held(db: Database, window: Window, limit: int) -> list[Delivery]:
    return rows.due(db, rows.DELIVERIES, HELD, {**_key(window), "limit": limit})


def fold(
    db: Database, life: int, window: Window, digest: Delivery, ids: Collection[str] | None, now: Instant
) -> int:
    """Insert the digest, if it is not there, and mark the first `AT_ONCE` of the rows it stands for."""
    deliveries.insert(db, life, [digest])
    among = None if ids is None else orjson.dumps(list(ids)).decode()
    terms = {**_terms(db, window), "digest": digest.id, "now": now, "ids": among}
    return db.execute(_FOLD, terms).rowcount


def let_go(db: Database, window: Window, now: Instant) -> int:
    return db.execute(_LET_GO, {**_terms(db, window), "now": now}).rowcount


def postpone(db: Database, window: Window, closes_at: Instant) -> int:
    return db.execute(_POSTPONE, {**_terms(db, window), "closes_at": closes_at}).rowcount


def _terms(db: Database, window: Window) -> dict[str, Any]:
    return {**_key(window), "limit": AT_ONCE, "aside": rows.set_aside(db, CollectionName.DELIVERIES)}


def _key(window: Window) -> dict[str, Any]:
    return {"tenant": window.tenant, "window": window.key, "start": window.start}
