"""Moving: documents out, in the order of their `_id` and so of their age, and in, where they are not there yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

from attrs import evolve
from bson import ObjectId

from notifyd.errors import StoreError, UndecodableRowError
from notifyd.model import Approval, AuditRecord, AuditSeal, Delivery, Event, Incident, State
from notifyd.store import SEALS, CollectionName, Stored, StoredEvent, parted
from notifyd.store.mongo import approvals, audit_seals, deliveries, reading, windows
from notifyd.store.mongo.base import Base
from notifyd.store.mongo.documents import document_of
from notifyd.store.mongo.driver import DUPLICATE, Document
from notifyd.store.mongo.retention import FIRST, object_id

_KINDS: Final[Mapping[CollectionName, type[Any]]] = {
    CollectionName.EVENTS: Event,
    CollectionName.APPROVALS: Approval,
    CollectionName.INCIDENTS: Incident,
    CollectionName.DELIVERIES: Delivery,
    CollectionName.AUDIT: AuditRecord,
}


async def dump(
    base: Base, collection: CollectionName, after: str, limit: int
) -> tuple[list[Stored], str | None]:
    """Documents that do not decode are left out."""
    if after.startswith(SEALS):
        return await _seals(base, after.removeprefix(SEALS), limit)
    where = {"_id": {"$gt": object_id(after or FIRST)}}
    found = await reading.collection_of(base, collection).find(where, sort=[("_id", 1)], limit=limit)
    rows = []
    for document in found:
        with suppress(UndecodableRowError):
            rows.append(await _whole(base, _record(base, collection, document)))
    end = SEALS if collection is CollectionName.AUDIT else None
    return rows, str(found[-1]["_id"]) if len(found) == limit else end


async def _seals(base: Base, after: str, limit: int) -> tuple[list[Stored], str | None]:
    where = {"_id": {"$gt": object_id(after or FIRST)}}
    found = await base.audit_seals.find(where, sort=[("_id", 1)], limit=limit)
    seals: list[Stored] = [AuditSeal(one["tenant"], one["number"], one["envelope"]) for one in found]
    return seals, f"{SEALS}{found[-1]['_id']}" if len(found) == limit else None


async def _whole(base: Base, row: Stored) -> Stored:
    """An approval with what was decided in earlier rounds before the rest."""
    if not isinstance(row, Approval) or row.round == 1:
        return row
    return evolve(row, decisions=(*await approvals.superseded(base, row.key), *row.decisions))


def _record(base: Base, collection: CollectionName, document: Document) -> Stored:
    """Raises `UndecodableRowError`."""
    record: Any = reading.one(base, _KINDS[collection], document)
    match record:
        case Event():
            return StoredEvent(record, planned="claim_at" not in document)
        case Delivery():
            return _unleased(record)
    found: Stored = record
    return found


def _unleased(delivery: Delivery) -> Delivery:
    state = State.PENDING if delivery.state is State.SENDING else delivery.state
    return evolve(delivery, state=state, lease_owner=None, lease_until=0)


async def restore(base: Base, given: Sequence[Stored]) -> int:
    """One unordered insert for each collection; what is there already fails alone."""
    # Only so that the windows are open: each row stays in its own.
    held = [row for row in given if isinstance(row, Delivery) and row.window is not None]
    if held:
        await base.transact(partial(windows.join, deliveries=held))
    inserted = 0
    documents: dict[CollectionName, list[Document]] = {}
    for row in given:
        if isinstance(row, AuditSeal):
            continue  # behind its records
        if isinstance(row, Approval) and row.round > 1:
            inserted += await base.transact(partial(_restore_approval, approval=row))
            continue
        name, document = _document(base, row)
        documents.setdefault(name, []).append({"_id": base.ids.next(), **document})
    for name, batch in documents.items():
        faults = await reading.collection_of(base, name).insert_many(batch)
        if unforeseen := set(faults.values()) - {DUPLICATE}:
            raise StoreError(f"MongoDB database {base.connection.name}: insert refused (codes {unforeseen})")
        inserted += len(batch) - len(faults)
    seals = [row for row in given if isinstance(row, AuditSeal)]
    return inserted + sum([await audit_seals.restore(base, seal) for seal in seals])


async def _restore_approval(base: Base, approval: Approval) -> bool:
    """Insert an approval with what was decided in earlier rounds; False where there is one under its key."""
    present, earlier = parted(approval)
    document = {**document_of(present), "position": base.positions.next()}
    (new,) = await base.approvals.insert_missing([document], *approvals.by_key(approval.key))
    if new:
        await approvals.supersede(base, approval.key, earlier)
    return new


def _document(
    base: Base, row: StoredEvent | Approval | Incident | Delivery | AuditRecord
) -> tuple[CollectionName, Document]:
    match row:
        case StoredEvent():
            return CollectionName.EVENTS, _event(base, row)
        case Delivery():
            return CollectionName.DELIVERIES, deliveries.document(base, row)
        case Approval():
            name = CollectionName.APPROVALS
        case Incident():
            name = CollectionName.INCIDENTS
        case AuditRecord():
            name = CollectionName.AUDIT
    return name, {**document_of(row), "position": base.positions.next()}


def _event(base: Base, row: StoredEvent) -> Document:
    document = {**document_of(row.event), "position": base.positions.next()}
    if row.event.plan is not None:
        document["planned"] = ObjectId()  # the mark of whoever fixed the plan: nobody who is here
    return document if row.planned else document | {"claim_at": 0, "set_from": 0}
