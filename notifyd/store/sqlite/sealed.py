"""The steps about what is sealed: the keys that rows may need, which rows need which, and giving them another."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from sqlite3 import Connection
from typing import Any, Final

import orjson

from notifyd.model import Delivery
from notifyd.store import CollectionName, SealedRow, SealKeys
from notifyd.store.decode import json_of
from notifyd.store.sqlite.rows import has_key, sql

_HEADER: Final = "substr({0}, 1, instr({0}, '.') - 1)"
_ROWS: Final[Mapping[CollectionName, str]] = {
    CollectionName.APPROVALS: sql(
        "SELECT rowid, sealed_token IS NOT NULL, status = 'pending' OR effects <> '[]',",
        _HEADER.format("sealed_token"),
        ", tenant, run_id, approval_id FROM approvals WHERE rowid > ? ORDER BY rowid LIMIT ?",
    ),
    CollectionName.DELIVERIES: sql(
        "SELECT deliveries.rowid, sealed, state IN ('pending', 'sending', 'dead'),",
        _HEADER.format("message"),
        ", tenant, id FROM deliveries LEFT JOIN messages ON sealed AND messages.delivery = deliveries.rowid",
        "WHERE deliveries.rowid > ? ORDER BY deliveries.rowid LIMIT ?",
    ),
}
_REPLACE: Final = sql(
    "UPDATE messages SET message = :new WHERE message = :old AND delivery = (SELECT rowid FROM deliveries WHERE",
    has_key("deliveries", ":tenant", ":id"),
    ")",
)


def noted(db: Connection) -> SealKeys:
    """What cannot be read counts as never noted: then the rows are looked at."""
    ids, identity_keys = map(_noted, db.execute("SELECT seal_keys, identity_keys FROM store").fetchone())
    return SealKeys(
        frozenset(map(str, ids)) if isinstance(ids, list) else None,
        identity_keys if isinstance(identity_keys, dict) else {},
    )


def _noted(text: Any) -> Any:
    with suppress(ValueError):
        return json_of(text)
    return None


def note(db: Connection, keys: SealKeys) -> None:
    ids = None if keys.ids is None else orjson.dumps(sorted(keys.ids)).decode()
    identity_keys = orjson.dumps(dict(keys.identity_keys)).decode()
    db.execute("UPDATE store SET seal_keys = ?, identity_keys = ?", (ids, identity_keys))


def page(
    db: Connection, collection: CollectionName, after: str, limit: int
) -> tuple[list[SealedRow], str | None]:
    found = db.execute(_ROWS[collection], (int(after or 0), limit)).fetchall()
    sealed = [
        SealedRow(tenant, tuple(ids), header, bool(needed))
        for _, is_sealed, needed, header, tenant, *ids in found
        if is_sealed and type(header) is str
    ]
    return sealed, str(found[-1][0]) if len(found) == limit else None


def replace(db: Connection, delivery: Delivery, message: str) -> bool:
    terms = {"tenant": delivery.tenant, "id": delivery.id, "old": delivery.message, "new": message}
    return bool(db.execute(_REPLACE, terms).rowcount)
