"""Rows as another version of notifyd, or another program, may have left them in a database that is not open."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from notifyd.store.sqlite.rows import sql

STRANGERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "events": {"key": "stranger-{}", "body": '{"kind": "task.d'},
    "approvals": {"approval_id": "stranger-{}", "status": "pending", "expires_at": 0, "request": "[]"},
    "incidents": {"approval_id": "stranger-{}", "opened_at": "soon"},
    "deliveries": {
        "id": "stranger-{}",
        "reason": "of_the_future",
        "state": "pending",
        "due_at": 0,
        "life": 0,
    },
    "audit": {"id": "stranger-{}", "name": "of_the_future"},
}
"""By table: what is odd about a copy of a row. `{}` is the copy's number."""

DUE: Final = ("events", "approvals", "deliveries")
"""Where a daemon comes upon it by itself: it is to be planned, expired, sent."""


def add_strangers(path: Path, number: int) -> None:
    """One in every table, the first event's without a plan."""
    with closing(sqlite3.connect(path)) as db, db:
        for table, odd in STRANGERS.items():
            rowid = _copy(db, table, {name: _numbered(value, number) for name, value in odd.items()})
            if table == "events":
                db.execute("INSERT INTO planning (event, life, until) VALUES (?, 0, 0)", (rowid,))


def _numbered(value: Any, number: int) -> Any:
    return value.replace("{}", str(number)) if isinstance(value, str) else value


def _copy(db: sqlite3.Connection, table: str, odd: Mapping[str, Any]) -> int | None:
    """A copy of the table's first row; where it has none, every other member is a text."""
    columns = [name for _, name, *_ in db.execute(sql("PRAGMA table_info(", table, ")")) if name != "rowid"]
    first = db.execute(sql("SELECT", ", ".join(columns), "FROM", table, "LIMIT 1")).fetchone()
    row = dict.fromkeys(columns, "strange") if first is None else dict(zip(columns, first, strict=True))
    values = ", ".join(f":{name}" for name in columns)
    statement = sql("INSERT INTO", table, "(", ", ".join(columns), ") VALUES (", values, ")")
    return db.execute(statement, {**row, **odd}).lastrowid
