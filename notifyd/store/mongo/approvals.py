"""The steps over `pack_approvals` and `incidents`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any

from attrs import evolve

from notifyd.model import (
    Approval,
    ApprovalKey,
    Decision,
    Delivery,
    Incident,
    IncidentKey,
    Instant,
    ResumeStatus,
    Status,
)
from notifyd.store import ApprovalFilter, EffectCounts, IncidentFilter, Page, Subject
from notifyd.store.mongo import reading
from notifyd.store.mongo.base import Base
from notifyd.store.mongo.documents import document_of
from notifyd.store.mongo.driver import Document
from notifyd.store.mongo.paging import newest_first


def by_key(key: ApprovalKey | IncidentKey) -> Document:
    where: Document = {"tenant": key.tenant, "run_id": key.run_id, "approval_id": key.approval_id}
    return where | {"policy_id": key.policy_id} if isinstance(key, IncidentKey) else where


async def find(base: Base, key: ApprovalKey) -> Approval | None:
    return reading.one(base, Approval, await base.approvals.find_one(by_key(key)))


async def versions(base: Base, keys: Collection[ApprovalKey]) -> dict[ApprovalKey, int]:
    runs: defaultdict[str, set[str]] = defaultdict(set)
    for key in keys:
        runs[key.tenant].add(key.run_id)
    fields = ["tenant", "run_id", "approval_id", "version"]
    versions = {}
    for tenant, ids in runs.items():
        where = {"tenant": tenant, "run_id": {"$in": sorted(ids)}}
        for one in await base.approvals.find(where, fields=fields, hint="key"):
            found = ApprovalKey(tenant, one["run_id"], one["approval_id"])
            versions[found] = one.get("version", 0)
    return {key: versions[key] for key in keys if key in versions}


async def find_subject(base: Base, key: ApprovalKey | IncidentKey) -> Subject | None:
    if isinstance(key, ApprovalKey):
        return await find(base, key)
    return reading.one(base, Incident, await base.incidents.find_one(by_key(key)))


async def put(
    base: Base, stored: Subject | None, subject: Subject, superseded: Sequence[Decision] = ()
) -> None:
    """Replace `stored` by `subject`, or insert it, in the transaction that read `stored`."""
    collection = base.incidents if isinstance(subject, Incident) else base.approvals
    where, fields = by_key(subject.key), document_of(subject)
    if stored is not None:
        await collection.update_one(where, {"$set": fields})
    else:
        await collection.insert_missing([{**fields, "position": base.positions.next()}], *where)
    if isinstance(subject, Approval):
        await supersede(base, subject.key, superseded)


async def supersede(base: Base, key: ApprovalKey, decisions: Sequence[Decision]) -> None:
    """Keep what was decided in a round that is over, in a transaction."""
    of = by_key(key)
    documents = [{**of, **document_of(one), "position": base.positions.next()} for one in decisions]
    await base.decisions.insert_missing(documents, *of, "decision_hash")


async def superseded(base: Base, key: ApprovalKey, limit: int = 0) -> list[Decision]:
    """What was decided in earlier rounds, oldest first: the newest `limit`, or all, of those that decode."""
    found = await base.decisions.find(by_key(key), sort=[("position", -1)], limit=limit, hint="key")
    return reading.some(base, Decision, reversed(found))


async def superseded_by(base: Base, key: ApprovalKey, actor: str, plan_hash: str) -> list[Decision]:
    """Raises `UndecodableRowError`: a captured vote must not count again because the first is not known."""
    where = {**by_key(key), "actor": actor, "plan_hash": plan_hash}
    found = await base.decisions.find(where, sort=[("position", 1)], hint="key")
    decided = (reading.one(base, Decision, document) for document in found)
    return [decision for decision in decided if decision is not None]


async def replace(base: Base, approval: Approval) -> bool:
    """Write `approval` over the version before it. A repetition of a write that was done is True again."""
    where = by_key(approval.key) | {"version": approval.version - 1}
    if await base.approvals.update_one(where, {"$set": document_of(approval)}):
        return True
    return await find(base, approval.key) == approval


async def complete_effect(base: Base, key: ApprovalKey, effect_id: str) -> None:
    while (stored := await find(base, key)) and any(effect.id == effect_id for effect in stored.effects):
        if await replace(base, evolve(stored.complete_effect(effect_id), version=stored.version + 1)):
            return


async def set_resume(base: Base, delivery: Delivery, status: ResumeStatus) -> None:
    """Tell the approval how its callback stands, if `delivery` is its callback.

    Without reading the approval: a callback has ended, whether or not that decodes.
    """
    key = delivery.approval_key
    if key is None:
        return
    told = {"resume": status.value, "resume_delivery": delivery.id}
    its_own = {"resume_delivery": {"$in": [None, delivery.id]}, "version": {"$gte": 0}, "$nor": [told]}
    await base.approvals.update_one(by_key(key) | its_own, {"$set": told, "$inc": {"version": 1}})


async def due(base: Base, now: Instant, limit: int) -> list[Approval]:
    where = {"status": Status.PENDING.value, "expires_at": {"$lte": now}}
    return await reading.first(base, Approval, where, [("expires_at", 1)], limit)


async def timed(base: Base, now: Instant, limit: int) -> list[Approval]:
    where = {"status": Status.PENDING.value, "timer_at": {"$gte": 0, "$lte": now}}
    return await reading.first(base, Approval, where, [("timer_at", 1)], limit)


async def wake_timers(base: Base) -> None:
    """A write under way that has read the approval before this loses to it."""
    where = {"status": Status.PENDING.value, "timer_at": {"$ne": 0}, "version": {"$gte": 0}}
    await base.approvals.update_many(where, {"$set": {"timer_at": 0}, "$inc": {"version": 1}})


async def owing(base: Base, now: Instant, limit: int) -> list[Approval]:
    return await _owing(base, {"$gte": 0, "$lte": now}, limit)


async def owing_far(base: Base, horizon: Instant, limit: int) -> list[Approval]:
    return await _owing(base, {"$gt": max(0, horizon)}, limit)


async def _owing(base: Base, due_at: Document, limit: int) -> list[Approval]:
    return await reading.first(base, Approval, {"effects_due_at": due_at}, [("effects_due_at", 1)], limit)


async def effect_counts(base: Base) -> EffectCounts:
    return EffectCounts(
        await _count(base, {"effects_due_at": {"$gte": 0}}), await _count(base, {"dead_effects": {"$gt": 0}})
    )


async def _count(base: Base, where: Document) -> int:
    counted = await base.approvals.aggregate(
        {"$match": where}, {"$group": {"_id": None, "count": {"$sum": 1}}}
    )
    return counted[0]["count"] if counted else 0


async def with_dead_effects(base: Base, tenant: str, page: Page) -> tuple[list[Approval], int | None]:
    terms = {"tenant": tenant, "dead_effects": {"$gt": 0}}
    found, after = await newest_first(base.approvals, terms, page, "dead_effects")
    return reading.some(base, Approval, found), after


async def with_dead_effect(base: Base, tenant: str, effect_id: str) -> Approval | None:
    where = {"tenant": tenant, "dead_effects": {"$gt": 0}, "effects.id": effect_id}
    found = reading.some(base, Approval, await base.approvals.find(where, limit=1))
    return next((one for one in found if any(e.id == effect_id for e in one.dead_effects)), None)


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
    # A run's approvals are not in the order of their positions: they are sorted.
    hint = "by_status" if where.run_id is None else "key"
    found, after = await newest_first(base.approvals, terms, page, hint)
    return reading.some(base, Approval, found), after


async def incidents(
    base: Base, tenant: str, where: IncidentFilter, page: Page
) -> tuple[list[Incident], int | None]:
    states = [True, False] if where.open is None else [where.open]
    terms = {"tenant": tenant, "run_id": where.run_id, "open": {"$in": states}}
    # A run's incidents are not in the order of their positions: they are sorted.
    hint = "listed" if where.run_id is None else "key"
    found, after = await newest_first(base.incidents, terms, page, hint)
    return reading.some(base, Incident, found), after
