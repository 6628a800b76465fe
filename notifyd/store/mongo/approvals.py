"""The steps over `pack_approvals` and `incidents`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from attrs import evolve, frozen

from notifyd.errors import StoreError
from notifyd.model import (
    Approval,
    ApprovalKey,
    Delivery,
    Incident,
    IncidentKey,
    Instant,
    ResumeStatus,
    Status,
)
from notifyd.store import ApprovalFilter, Page, Subject
from notifyd.store.mongo.base import Base
from notifyd.store.mongo.documents import document_of, record_of
from notifyd.store.mongo.driver import Document
from notifyd.store.mongo.paging import newest_first

RACES: Final = 20
"""How often a conditional write is tried anew over what another has written."""

_OWING: Final = {"effects.id": {"$gt": ""}}


def by_key(key: ApprovalKey | IncidentKey) -> Document:
    where: Document = {"tenant": key.tenant, "run_id": key.run_id, "approval_id": key.approval_id}
    return where | {"policy_id": key.policy_id} if isinstance(key, IncidentKey) else where


async def find(base: Base, key: ApprovalKey) -> Approval | None:
    document = await base.approvals.find_one(by_key(key))
    return None if document is None else record_of(document, Approval)


@frozen
class StoredSubject:
    """What is stored under a key, if anything is; `accepting` has the events that it still carries."""

    subject: Subject | None
    accepting: Sequence[Document] = ()

    def note_of(self, event_key: str) -> Document | None:
        return next((note for note in self.accepting if note["key"] == event_key), None)


async def find_subject(base: Base, key: ApprovalKey | IncidentKey) -> StoredSubject:
    incident = isinstance(key, IncidentKey)
    document = await (base.incidents if incident else base.approvals).find_one(by_key(key))
    if document is None:
        return StoredSubject(None)
    subject: Subject = record_of(document, Incident) if incident else record_of(document, Approval)
    return StoredSubject(subject, document.get("accepting", ()))


async def move(
    base: Base, stored: Subject | None, subject: Subject | None, *, accepting: Document | None = None
) -> bool:
    """Write `subject` over `stored`, or as new. False where the stored one is another by now.

    `accepting` is kept with it: what the acceptance of an event has still to insert. That event may leave the
    stored one as it is (`subject` None). False, too, where that event is being accepted already.
    """
    if stored is None:
        return subject is not None and await _insert(base, subject, accepting)
    where = by_key(stored.key) | {"version": stored.version}
    change: Document = {} if subject is None else {"$set": document_of(subject)}
    if accepting is not None:
        where["accepting.key"] = {"$ne": accepting["key"]}
        change["$push"] = {"accepting": accepting}
    collection = base.incidents if isinstance(stored, Incident) else base.approvals
    return await collection.update_one(where, change)


async def _insert(base: Base, subject: Subject, accepting: Document | None) -> bool:
    inserter = base.new_incidents if isinstance(subject, Incident) else base.new_approvals
    notes = [] if accepting is None else [accepting]
    fields = {"position": base.positions.next(), "accepting": notes}
    (fresh,) = await inserter.insert([{**document_of(subject), **fields}])
    return fresh


async def replace(base: Base, approval: Approval) -> bool:
    """Write `approval` over the version before it. A repetition of a write that was done is True again."""
    where = by_key(approval.key) | {"version": approval.version - 1}
    if await base.approvals.update_one(where, {"$set": document_of(approval)}):
        return True
    return await find(base, approval.key) == approval


async def complete_effect(base: Base, key: ApprovalKey, effect_id: str) -> None:
    where = by_key(key) | {"effects.id": effect_id}
    change = {"$pull": {"effects": {"id": effect_id}}, "$inc": {"version": 1}}
    await base.approvals.update_one(where, change)


async def set_resume(base: Base, delivery: Delivery, status: ResumeStatus) -> None:
    """Tell the approval how its callback stands, if `delivery` is its callback."""
    key = delivery.approval_key
    for _ in range(RACES):
        approval = None if key is None else await find(base, key)
        if approval is None or approval.resume_delivery not in (None, delivery.id):
            return
        changed = evolve(approval, resume=status, resume_delivery=delivery.id)
        if changed == approval or await move(base, approval, evolve(changed, version=approval.version + 1)):
            return
    raise StoreError("too many writes to this approval at once")


async def due(base: Base, now: Instant, limit: int) -> list[Approval]:
    where = {"status": Status.PENDING.value, "expires_at": {"$lte": now}}
    return _records(await base.approvals.find(where, sort=[("expires_at", 1)], limit=limit))


async def owing(base: Base, limit: int) -> list[Approval]:
    return _records(await base.approvals.find(_OWING, limit=limit))


async def outstanding(base: Base) -> dict[str, int]:
    counted = await base.approvals.aggregate(
        {"$match": {"status": Status.PENDING.value}}, {"$group": {"_id": "$tenant", "pending": {"$sum": 1}}}
    )
    return {one["_id"]: one["pending"] for one in counted}


async def search(
    base: Base, tenant: str, where: ApprovalFilter, page: Page
) -> tuple[list[Approval], int | None]:
    statuses = tuple(Status) if where.status is None else (where.status,)
    terms: dict[str, Any] = {"tenant": tenant, "run_id": where.run_id}
    terms["status"] = {"$in": [status.value for status in statuses]}
    found, after = await newest_first(base.approvals, terms, page)
    return _records(found), after


def _records(documents: list[Document]) -> list[Approval]:
    return [record_of(document, Approval) for document in documents]
