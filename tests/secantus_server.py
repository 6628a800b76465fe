"""SecantusDB as tests start it, with two faults of 0.7.0b3 mended: `python -m tests.secantus_server --port …`.

An update of many documents waits for one that an open transaction has written, as MongoDB's does, but with the
collection locked. So that transaction never gets to its end, and the server stands still. Here such an update
waits as that of one document does: without the lock.

A write that names a unique key and something more, as each conditional write does, looks at all documents that
have the key's first field, a tenant's; one with `$or` looks at the whole collection. Here it looks at the key's.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from secantus.cli import main
from secantus.storage import Storage

_candidates = Storage._candidates_iter


def _update_many(self: Any, *args: Any, **options: Any) -> Any:
    return self._update_matching_single_txn(*args, multi=True, **options)


def _candidates_by_key(self: Any, db: str, collection: str, where: Mapping[str, Any] | None) -> Any:
    """Every caller looks at what is found by its whole filter again."""
    return _candidates(self, db, collection, _key_of(self, db, collection, where) if where else where)


def _key_of(self: Any, db: str, collection: str, where: Mapping[str, Any]) -> Mapping[str, Any]:
    if "_id" in where:
        return {"_id": where["_id"]}
    plain = {
        name for name, value in where.items() if not (name.startswith("$") or isinstance(value, Mapping))
    }
    for _, keys, _, unique in self._all_indexes(db, collection):
        if unique and keys.keys() <= plain:
            return {name: where[name] for name in keys}
    return where


for _name, _mended in {
    "_update_matching_chunked": _update_many,
    "_candidates_iter": _candidates_by_key,
}.items():
    setattr(Storage, _name, _mended)

if __name__ == "__main__":
    sys.exit(main())
