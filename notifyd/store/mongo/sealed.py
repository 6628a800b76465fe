"""What is sealed: the keys that documents may need, which documents need which, and giving them another."""

from __future__ import annotations

from typing import Any, Final

from notifyd.model import Delivery, State, Status
from notifyd.store import CollectionName, SealedRow, SealKeys
from notifyd.store.mongo.base import Base
from notifyd.store.mongo.driver import Collection, Document
from notifyd.store.mongo.reading import collection_of
from notifyd.store.mongo.retention import FIRST, object_id

_NOTE: Final = {"_id": "seal_keys"}
_NEEDED_STATES: Final = frozenset({State.PENDING.value, State.SENDING.value, State.DEAD.value})


def _header(text: str) -> Document:
    """The expression for what comes before the first dot: "" where there is no text, which fails no query."""
    first = {"$arrayElemAt": [{"$split": [f"${text}", "."]}, 0]}
    return {"$cond": [{"$eq": [{"$type": f"${text}"}, "string"]}, first, ""]}


_APPROVAL: Final = {"tenant": 1, "run_id": 1, "approval_id": 1, "status": 1, "effects_due_at": 1}
_FIELDS: Final[dict[CollectionName, Document]] = {
    CollectionName.APPROVALS: {**_APPROVAL, "dead_effects": 1, "header": _header("sealed_token")},
    CollectionName.DELIVERIES: {"tenant": 1, "id": 1, "state": 1, "sealed": 1, "header": _header("message")},
}


async def noted(base: Base) -> SealKeys:
    found = await _notes(base).find_one(_NOTE) or {}
    ids, identity_keys = found.get("ids"), found.get("identity_keys")
    # What cannot be read counts as never noted: then the rows are looked at.
    return SealKeys(
        frozenset(map(str, ids)) if isinstance(ids, list) else None,
        identity_keys if isinstance(identity_keys, dict) else {},
    )


async def note(base: Base, keys: SealKeys) -> None:
    ids = None if keys.ids is None else sorted(keys.ids)
    fields = {"ids": ids, "identity_keys": dict(keys.identity_keys)}
    await _notes(base).update_one(_NOTE, {"$set": fields}, upsert=True)


def _notes(base: Base) -> Collection:
    return base.connection.collection("schema")


async def page(
    base: Base, collection: CollectionName, after: str, limit: int
) -> tuple[list[SealedRow], str | None]:
    where = {"_id": {"$gt": object_id(after or FIRST)}}
    of = collection_of(base, collection)
    found = await of.find(where, fields=_FIELDS[collection], sort=[("_id", 1)], limit=limit)
    sealed = [_row(one) for one in found if one["header"] and one.get("sealed", True)]
    return sealed, str(found[-1]["_id"]) if len(found) == limit else None


def _row(found: Document) -> SealedRow:
    # As far as it can be read: what does not decode is found out by whoever reads the row itself.
    tenant, header = found.get("tenant", ""), found["header"]
    if "id" in found:
        return SealedRow(tenant, (found["id"],), header, str(found.get("state")) in _NEEDED_STATES)
    owes = found.get("effects_due_at") is not None or bool(found.get("dead_effects"))
    needed = found.get("status") == Status.PENDING.value or owes
    return SealedRow(tenant, (found.get("run_id", ""), found.get("approval_id", "")), header, needed)


async def replace(base: Base, delivery: Delivery, message: str) -> bool:
    where: dict[str, Any] = {"tenant": delivery.tenant, "id": delivery.id, "message": delivery.message}
    return await base.deliveries.update_one(where, {"$set": {"message": message}})
