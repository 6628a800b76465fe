"""Documents read as records: one that does not decode is set aside, and a list goes on without it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, Final, TypeAlias, TypeVar

from notifyd.errors import UndecodableRowError
from notifyd.model import Approval, AuditRecord, Decision, Delivery, Event, Incident, OwnDeputy, Silence
from notifyd.store import CollectionName
from notifyd.store.aside import DECISIONS, DEPUTIES, KEYS, LOOKED_AT, SILENCES
from notifyd.store.decode import DecodeError
from notifyd.store.mongo.base import Base
from notifyd.store.mongo.documents import record_of
from notifyd.store.mongo.driver import Collection, Document, Filter, Keys

T = TypeVar("T")
Noted: TypeAlias = Event | Approval | Delivery

_NAMES: Final[Mapping[type[Any], str]] = {
    Event: CollectionName.EVENTS,
    Approval: CollectionName.APPROVALS,
    Decision: DECISIONS,
    Incident: CollectionName.INCIDENTS,
    Delivery: CollectionName.DELIVERIES,
    AuditRecord: CollectionName.AUDIT,
    Silence: SILENCES,
    OwnDeputy: DEPUTIES,
}


def one(base: Base, kind: type[T], document: Document | None, *, whole: bool = True) -> T | None:
    """The record of a document; None where there is none. Raises `UndecodableRowError`.

    Not `whole` is a document that was not read in all its fields: it may not decode though it does here.
    """
    if document is None:
        return None
    name = _NAMES[kind]
    try:
        record = record_of(document, kind)
    except DecodeError as error:
        raise base.aside.refuse(name, document["_id"], document, str(error)) from None
    if whole:
        base.aside.decoded(name, document["_id"])
    return record


def some(base: Base, kind: type[T], documents: Iterable[Document], *, whole: bool = True) -> list[T]:
    """The records of documents, without those that do not decode."""
    records = []
    for document in documents:
        with suppress(UndecodableRowError):
            records.append(one(base, kind, document, whole=whole))
    return [record for record in records if record is not None]


async def first(base: Base, kind: type[T], where: Filter, sort: Keys, limit: int) -> list[T]:
    """The first of the documents that meet `where`, past those that are set aside."""
    collection = collection_of(base, _NAMES[kind])
    while True:
        found = await collection.find(others(base, kind, where), sort=sort, limit=limit)
        records = some(base, kind, found)
        if records or not found:
            return records


async def decode(base: Base, kind: type[Any], places: list[Any]) -> set[str]:
    """Which of the documents at these places decode, by the text of their `_id`."""
    found = await collection_of(base, _NAMES[kind]).find({"_id": {"$in": places}})
    return {str(document["_id"]) for document in found if some(base, kind, [document])}


def others(base: Base, kind: type[Any], where: Filter) -> Filter:
    """`where`, without the documents that are set aside and not to be tried again yet."""
    return without(where, base.aside.passed_over(_NAMES[kind]))


def without(where: Filter, places: list[Any]) -> Filter:
    """`where`, without the documents at these places."""
    return {**where, "_id": {"$nin": places}} if places else where


def collection_of(base: Base, name: str) -> Collection:
    return {
        DECISIONS: base.decisions,
        CollectionName.EVENTS: base.events,
        CollectionName.APPROVALS: base.approvals,
        CollectionName.INCIDENTS: base.incidents,
        CollectionName.DELIVERIES: base.deliveries,
        CollectionName.AUDIT: base.audit,
        SILENCES: base.silences,
        DEPUTIES: base.deputies,
    }[name]


# --- what is set aside -------------------------------------------------------------------------------------


async def note(base: Base, row: Noted, fault: str) -> bool:
    """Set aside a row that decodes, if it is there. False where it is set aside already."""
    name = _NAMES[type(row)]
    key = {member: getattr(row, member) for member in KEYS[name]}
    found = await collection_of(base, name).find(key, fields=["_id"], limit=1)
    return not found or any(base.aside.put(name, one["_id"], key, fault, noted=True) for one in found)


async def look_again(base: Base) -> None:
    """Read some documents that are set aside, and forget what has been repaired, or removed."""
    base.aside.lapse()
    for kind, name in _NAMES.items():
        places = base.aside.untried(name, LOOKED_AT)
        if places:
            await _look_again(base, kind, name, places)


async def _look_again(base: Base, kind: type[Any], name: str, places: list[Any]) -> None:
    found = await collection_of(base, name).find({"_id": {"$in": places}})
    some(base, kind, found)
    there = {str(document["_id"]) for document in found}
    for place in places:
        if str(place) not in there:
            base.aside.drop(name, place)
