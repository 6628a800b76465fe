"""What is sealed: the keys that documents may need, and how many documents need each."""

from __future__ import annotations

from collections.abc import Collection as Ids
from typing import Any, Final

from notifyd.model import State, Status
from notifyd.store import CollectionName, SealedRows
from notifyd.store.mongo.base import Base
from notifyd.store.mongo.driver import Collection

_NOTE: Final = {"_id": "seal_keys"}
_NEEDED_STATES: Final = [State.PENDING.value, State.SENDING.value, State.DEAD.value]


async def known(base: Base) -> frozenset[str] | None:
    noted = await _notes(base).find_one(_NOTE)
    return None if noted is None else frozenset(noted["ids"])


async def note(base: Base, ids: Ids[str]) -> None:
    await _notes(base).update_one(_NOTE, {"$set": {"ids": sorted(ids)}}, upsert=True)


def _notes(base: Base) -> Collection:
    return base.connection.collection("schema")


async def by_key(base: Base) -> list[SealedRows]:
    pending_or_owing = {"$or": [{"status": Status.PENDING.value}, {"effects.0": {"$exists": True}}]}
    held = {"sealed_token": {"$gt": ""}}
    sealed = {"sealed": True}
    approvals, deliveries = CollectionName.APPROVALS, CollectionName.DELIVERIES
    in_states = {"state": {"$in": _NEEDED_STATES}}
    found = []
    for collection, of, text, where, need in (
        (approvals, base.approvals, "sealed_token", held, pending_or_owing),
        (deliveries, base.deliveries, "message", sealed, in_states),
    ):
        for needed, condition in ((True, need), (False, {"$nor": [need]})):
            counts = await _by_header(of, text, {"$and": [where, condition]})
            found += [SealedRows(collection, header, needed, rows) for header, rows in counts.items()]
    return found


async def _by_header(collection: Collection, text: str, where: dict[str, Any]) -> dict[str, int]:
    header = {"$arrayElemAt": [{"$split": [f"${text}", "."]}, 0]}
    counts = await collection.aggregate({"$match": where}, {"$group": {"_id": header, "rows": {"$sum": 1}}})
    return {one["_id"]: one["rows"] for one in counts}
