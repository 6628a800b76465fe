"""The steps about what is sealed: the keys that rows may need, and how many rows need each."""

from __future__ import annotations

from collections.abc import Collection
from sqlite3 import Connection
from typing import Final

import orjson

from notifyd.store import CollectionName, SealedRows

_BY_KEY: Final = """
SELECT 'approvals', substr(sealed_token, 1, instr(sealed_token, '.') - 1) AS header,
    status = 'pending' OR effects <> '[]' AS needed, count(*)
FROM approvals WHERE sealed_token IS NOT NULL GROUP BY header, needed
UNION ALL
SELECT 'deliveries', substr(message, 1, instr(message, '.') - 1) AS header,
    state IN ('pending', 'sending', 'dead') AS needed, count(*)
FROM deliveries JOIN messages ON messages.delivery = deliveries.rowid WHERE sealed GROUP BY header, needed
"""


def known(db: Connection) -> frozenset[str] | None:
    (noted,) = db.execute("SELECT seal_keys FROM store").fetchone()
    return None if noted is None else frozenset(orjson.loads(noted))


def note(db: Connection, ids: Collection[str]) -> None:
    db.execute("UPDATE store SET seal_keys = ?", (orjson.dumps(sorted(ids)).decode(),))


def by_key(db: Connection) -> list[SealedRows]:
    return [
        SealedRows(CollectionName(collection), header, bool(needed), rows)
        for collection, header, needed, rows in db.execute(_BY_KEY)
    ]
