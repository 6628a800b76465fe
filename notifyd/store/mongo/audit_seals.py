"""The steps over `audit_seals`. A line of the audit trail bears the number of the seal over it, as `seal`.

Lines have no order of their own that nodes would agree on: theirs is that of their `_id`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from notifyd.model import AuditRecord, AuditSeal, Instant
from notifyd.store import SealedAudit
from notifyd.store.mongo import reading
from notifyd.store.mongo.base import Base
from notifyd.store.mongo.driver import Document, Filter
from notifyd.wire.audit import read_seal


async def unsealed_tenants(base: Base) -> list[str]:
    return await _tenants(base, {"seal": None}, "by_seal")


async def _tenants(base: Base, where: Filter, index: str) -> list[str]:
    found = await base.audit.aggregate({"$match": where}, {"$group": {"_id": "$tenant"}}, hint=index)
    return sorted(one["_id"] for one in found if isinstance(one["_id"], str))


async def unsealed(base: Base, tenant: str, limit: int) -> list[AuditRecord]:
    return await reading.first(base, AuditRecord, {"seal": None, "tenant": tenant}, [("_id", 1)], limit)


async def newest(base: Base, tenant: str) -> AuditSeal | None:
    return _seal(await _seals(base, {"tenant": tenant}, -1))


async def following(base: Base, tenant: str, number: int) -> SealedAudit | None:
    seal = _seal(await _seals(base, {"tenant": tenant, "number": {"$gt": number}}, 1))
    if seal is None:
        return None
    bearing = {"seal": seal.number, "tenant": tenant}
    found = await base.audit.find(bearing, sort=[("_id", 1)], hint="by_seal")
    return SealedAudit(seal, tuple(reading.some(base, AuditRecord, found)))


async def _seals(base: Base, where: Filter, way: int) -> list[Document]:
    """The first of some seals, by their numbers upwards (1) or downwards (-1)."""
    return await base.audit_seals.find(where, sort=[("number", way)], limit=1)


def _seal(found: list[Document]) -> AuditSeal | None:
    return AuditSeal(found[0]["tenant"], found[0]["number"], found[0]["envelope"]) if found else None


async def strays(base: Base, tenant: str, limit: int) -> list[AuditRecord]:
    ends = [await _seals(base, {"tenant": tenant}, way) for way in (1, -1)]
    first, last = (end[0]["number"] for end in ends) if all(ends) else (1, 0)
    known = [{"seal": None}, {"seal": {"$gte": first, "$lte": last}}]
    found = await base.audit.find({"tenant": tenant, "$nor": known}, limit=limit, hint="by_seal")
    return reading.some(base, AuditRecord, found)


async def add(base: Base, seal: AuditSeal, records: Sequence[AuditRecord]) -> bool:
    return await base.transact(partial(_add, seal=seal, records=records))


async def _add(base: Base, seal: AuditSeal, records: Sequence[AuditRecord]) -> bool:
    free = {"tenant": seal.tenant, "id": {"$in": [one.id for one in records]}, "seal": None}
    if records and len(await base.audit.find(free, fields=["_id"], hint="key")) < len(records):
        return False
    document = {"tenant": seal.tenant, "number": seal.number, "envelope": seal.envelope}
    (new,) = await base.audit_seals.insert_missing([document], "tenant", "number")
    if new and records:
        await base.audit.update_many(free, {"$set": {"seal": seal.number}}, hint="key")
    return new


async def restore(base: Base, seal: AuditSeal) -> bool:
    """Insert a seal, over those of its records that are there; False where its number is taken."""
    return await base.transact(partial(_restore, seal=seal))


async def _restore(base: Base, seal: AuditSeal) -> bool:
    new = await _add(base, seal, ())
    under = {"tenant": seal.tenant, "id": {"$in": [one.id for one in read_seal(seal).records]}, "seal": None}
    if new:
        await base.audit.update_many(under, {"$set": {"seal": seal.number}}, hint="key")
    return new


async def drop(base: Base, tenant: str, before: int) -> None:
    await base.audit_seals.delete_many({"tenant": tenant, "number": {"$lt": before}})


async def tenants(base: Base, before: Instant) -> list[str]:
    return await _tenants(base, {"at": {"$gt": 0, "$lt": before}}, "by_age")
