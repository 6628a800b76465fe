"""Lists, newest first, by keyset: a page goes on below the rowid that the last one ended at."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from sqlite3 import Connection
from typing import Any

from attrs import frozen

from notifyd.store import Page
from notifyd.store.sqlite.rows import Row, sql


@frozen
class Source:
    """Where a list comes from. The index is named, because the planner, without statistics, guesses.

    `state` is a condition on a state as a literal, which an index over only the rows in that state needs.
    """

    table: str
    index: str
    columns: tuple[str, ...]
    state: str = ""
    join: str = ""


def newest_first(
    db: Connection, source: Source, terms: Mapping[str, Any], page: Page
) -> tuple[list[Row], int | None]:
    """A page of the rows that equal all `terms` that are not None, and the position it ended at."""
    wanted = {name: value for name, value in terms.items() if value is not None}
    query = _page_query(source, tuple(wanted), further=page.after is not None)
    found = db.execute(query, {**wanted, "after": page.after, "limit": page.limit + 1}).fetchall()
    shown = found[: page.limit]
    return [row[1:] for row in shown], shown[-1][0] if len(found) > page.limit else None


@cache
def _page_query(source: Source, names: tuple[str, ...], *, further: bool) -> str:
    position = f"{source.table}.rowid"
    tests = [f"{name} = :{name}" for name in names]
    tests += [source.state] if source.state else []
    tests += [f"{position} < :after"] if further else []
    return sql(
        "SELECT",
        ", ".join((position, *source.columns)),
        f"FROM {source.table} INDEXED BY {source.index}",
        source.join,
        "WHERE",
        " AND ".join(tests),
        f"ORDER BY {position} DESC LIMIT :limit",
    )
