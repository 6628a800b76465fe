"""Retention: which documents are old enough, and removing them.

A document is judged by this node, from what it and its approval say, and then removed only if it is still as it
was judged. A mark of where to go on is the age of a document and its `_id`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from time import perf_counter
from typing import Any, Final, TypeAlias

from attrs import frozen
from bson import ObjectId
from bson.errors import InvalidId

from notifyd.model import ResumeStatus, Status
from notifyd.store import Aged, CollectionName, LegalHold, Purged
from notifyd.store.decode import object_of
from notifyd.store.mongo.base import Base
from notifyd.store.mongo.driver import Document, Filter
from notifyd.store.mongo.reading import collection_of

_Key: TypeAlias = tuple[str, str, str]
_FINISHED: Final[Mapping[str, Any]] = {"claim_at": None}


@frozen
class _Kind:
    """By which field a collection ages, which are over, and what is needed to judge them."""

    age: str
    over: Mapping[str, Any]
    fields: tuple[str, ...] = ()


_KINDS: Final[Mapping[CollectionName, _Kind]] = {
    CollectionName.EVENTS: _Kind("received_at", _FINISHED, ("occurred_at",)),
    CollectionName.APPROVALS: _Kind(
        "ended_at", {"effects_due_at": None, "resume": {"$ne": ResumeStatus.QUEUED.value}}
    ),
    CollectionName.INCIDENTS: _Kind("closed_at", {"open": False}, ("occurred_at",)),
    CollectionName.DELIVERIES: _Kind("ended_at", _FINISHED, ("event_key",)),
    CollectionName.AUDIT: _Kind("at", {}),
}


@frozen
class _Subject:
    """What an approval says of the documents about it."""

    pending: bool = False
    owes: bool = False
    held: bool = False


_NOBODY: Final = _Subject()


async def purge(base: Base, aged: Aged, limit: int, after: str, *, dry_run: bool) -> Purged:
    kind, collection = _KINDS[aged.collection], collection_of(base, aged.collection)
    found = await collection.find(
        _older(kind, aged, after),
        fields=["tenant", "run_id", "approval_id", kind.age, *kind.fields, *kind.over],
        sort=[(kind.age, 1), ("_id", 1)],
        limit=limit,
    )
    gone = [one["_id"] for one in await _removable(base, aged, kind, found)]
    removed, seconds = len(gone), 0.0
    if gone and not dry_run:
        began = perf_counter()
        where = {"_id": {"$in": gone}, kind.age: {"$lt": aged.before}, **kind.over}
        if aged.collection is CollectionName.APPROVALS:
            removed = await base.transact(partial(_remove_approvals, where=where))
        else:
            removed = await collection.delete_many(where)
        seconds = perf_counter() - began
    mark = f"{int(found[-1][kind.age])}:{found[-1]['_id']}" if len(found) == limit else None
    return Purged(len(found), removed, seconds, mark)


async def _remove_approvals(base: Base, where: Filter) -> int:
    """Remove approvals with what was decided in their earlier rounds."""
    for one in await base.approvals.find(
        {**where, "round": {"$gt": 1}}, fields=["tenant", "run_id", "approval_id"]
    ):
        del one["_id"]
        await base.decisions.delete_many(one)
    return await base.approvals.delete_many(where)


FIRST: Final = "0" * 24
"""Below every `_id` that is given."""


def object_id(text: str) -> ObjectId:
    """Raises ValueError where the text is none."""
    try:
        return ObjectId(text)
    except InvalidId:
        raise ValueError("the mark to go on from is none that this store gave") from None


def _older(kind: _Kind, aged: Aged, after: str) -> Document:
    """What is old enough and stands behind the mark. An `_id` that is none of ours is in no order with them."""
    if not after:
        return {kind.age: {"$gt": 0, "$lt": aged.before}, "_id": {"$gt": object_id(FIRST)}}
    age, _, last = after.partition(":")
    mark = object_id(last)
    return {
        kind.age: {"$gt": max(0, int(age) - 1), "$lt": aged.before},
        "_id": {"$gt": object_id(FIRST)},
        "$or": [{kind.age: {"$gt": int(age)}}, {"_id": {"$gt": mark}}],
    }


async def _removable(base: Base, aged: Aged, kind: _Kind, found: Sequence[Document]) -> list[Document]:
    over = [one for one in found if _is_over(one, aged, kind)]
    subjects = await _subjects(base, aged.hold, map(_key, over))
    unplanned = await _unplanned(base, over) if aged.collection is CollectionName.DELIVERIES else set()
    return [
        one
        for one in over
        if not _is_wanted(aged.collection, subjects.get(_key(one), _NOBODY))
        and (_text(one, "tenant"), _text(one, "event_key")) not in unplanned
    ]


def _is_over(one: Document, aged: Aged, kind: _Kind) -> bool:
    if one.get("occurred_at", 0) >= aged.before:
        return False
    if aged.collection is CollectionName.APPROVALS:
        return one.get("effects_due_at") is None and one.get("resume") != ResumeStatus.QUEUED.value
    return all(one.get(name) == value for name, value in kind.over.items())


def _is_wanted(collection: CollectionName, subject: _Subject) -> bool:
    if collection is CollectionName.EVENTS:
        return subject.held or subject.pending or subject.owes
    return subject.held or (collection is CollectionName.DELIVERIES and subject.owes)


def _key(one: Document) -> _Key:
    return _text(one, "tenant"), _text(one, "run_id"), _text(one, "approval_id")


def _text(one: Document, name: str) -> str:
    """A member, as far as it is text: a document is removed by its age, whether it decodes or not."""
    value = one.get(name)
    return value if isinstance(value, str) else ""


def _by_tenant(keys: Iterable[_Key]) -> dict[str, set[_Key]]:
    tenants: dict[str, set[_Key]] = {}
    for key in keys:
        if key[1]:
            tenants.setdefault(key[0], set()).add(key)
    return tenants


async def _subjects(base: Base, hold: LegalHold | None, keys: Iterable[_Key]) -> dict[_Key, _Subject]:
    """What the approvals and incidents under these keys say, by key."""
    subjects: dict[_Key, _Subject] = {}
    for tenant, wanted in _by_tenant(keys).items():
        runs = list({run for _, run, _ in wanted})
        where = {"tenant": tenant, "run_id": {"$in": runs}}
        fields = ["tenant", "run_id", "approval_id", *(["request"] if hold else [])]
        approvals = await base.approvals.find(where, fields=[*fields, "status", "effects_due_at"])
        for one in approvals:
            pending, owes = one.get("status") == Status.PENDING.value, one.get("effects_due_at") is not None
            subjects[_key(one)] = _Subject(pending, owes, _is_held(one, hold))
        for one in await base.incidents.find(where, fields=fields) if hold else ():
            if _is_held(one, hold):
                known = subjects.get(_key(one), _NOBODY)
                subjects[_key(one)] = _Subject(known.pending, known.owes, held=True)
    return subjects


def _is_held(one: Document, hold: LegalHold | None) -> bool:
    if hold is None:
        return False
    try:
        labels = object_of(one.get("request")).get("labels")
    except ValueError:
        return True  # nobody knows its labels
    if not isinstance(labels, dict) or hold.key not in labels:
        return False
    return hold.value is None or labels[hold.key] == hold.value


async def _unplanned(base: Base, deliveries: Sequence[Document]) -> set[tuple[str, str]]:
    """Tenant and key of those of the deliveries' events whose planning is not finished."""
    keys: dict[str, set[str]] = {}
    for one in deliveries:
        keys.setdefault(_text(one, "tenant"), set()).add(_text(one, "event_key"))
    unplanned: set[tuple[str, str]] = set()
    for tenant, wanted in keys.items():
        where = {"tenant": tenant, "key": {"$in": list(wanted)}, "claim_at": {"$gte": 0}}
        for event in await base.events.find(where, fields=["tenant", "key"]):
            unplanned.add((event["tenant"], event["key"]))
    return unplanned
