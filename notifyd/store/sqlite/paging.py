"""Lists, newest first, by keyset: a page goes on below the rowid that the last one ended at."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from sqlite3 import Connection
from typing import Any

from notifyd.store import Page
from notifyd.store.sqlite.rows import Row


def newest_first(
    db: Connection,
    table: str,
    columns: tuple[str, ...],
    terms: Mapping[str, Any],
    page: Page,
    extra: str = "",
) -> tuple[list[Row], int | None]:
    """A page of the rows that equal all `terms` that are not None, and the position it ended at.

    `extra` is one more condition, or empty.
    """
    wanted = {name: value for name, value in terms.items() if value is not None}
    query = page_query(table, columns, tuple(wanted), extra, further=page.after is not None)
    found = db.execute(query, {**wanted, "after": page.after, "limit": page.limit + 1}).fetchall()
    shown = found[: page.limit]
    return [row[1:] for row in shown], shown[-1][0] if len(found) > page.limit else None


@cache
def page_query(
    table: str, columns: tuple[str, ...], names: tuple[str, ...], extra: str, *, further: bool
) -> str:
    conditions = [f"{name} = :{name}" for name in names]
    conditions += [extra] if extra else []
    conditions += [f"{table}.rowid < :after"] if further else []
    listed, tests = ", ".join((f"{table}.rowid", *columns)), " AND ".join(conditions)
    source = (
        f"{table} JOIN messages ON messages.delivery = deliveries.rowid" if "message" in columns else table
    )
    return " ".join(
        ("SELECT", listed, "FROM", source, "WHERE", tests, f"ORDER BY {table}.rowid DESC LIMIT :limit")
    )
