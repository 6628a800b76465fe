"""The steps over `deputies`."""

from __future__ import annotations

from functools import partial

from notifyd.model import AuditRecord, Instant, OwnDeputy
from notifyd.store.mongo import audit, reading
from notifyd.store.mongo.base import Base
from notifyd.store.mongo.documents import document_of


async def add(base: Base, deputy: OwnDeputy, record: AuditRecord) -> None:
    await base.transact(partial(_add, deputy=deputy, record=record))


async def _add(base: Base, deputy: OwnDeputy, record: AuditRecord) -> None:
    document = {**document_of(deputy), "position": base.positions.next()}
    if any(await base.deputies.insert_missing([document], "tenant", "id")):
        await audit.write_within(base, [record])


async def end(base: Base, tenant: str, deputy_id: str, at: Instant, record: AuditRecord) -> None:
    await base.transact(partial(_end, tenant=tenant, deputy_id=deputy_id, at=at, record=record))


async def _end(base: Base, tenant: str, deputy_id: str, at: Instant, record: AuditRecord) -> None:
    open_still = {"tenant": tenant, "id": deputy_id, "ended_at": None, "over_at": {"$gt": at}}
    if await base.deputies.update_one(open_still, {"$set": {"ended_at": at}}):
        await audit.write_within(base, [record])


async def live(base: Base, now: Instant) -> list[OwnDeputy]:
    found = await base.deputies.find({"over_at": {"$gt": now}}, sort=[("position", 1)])
    return reading.some(base, OwnDeputy, found)


async def forget(base: Base, before: Instant) -> int:
    return await base.deputies.delete_many({"over_at": {"$lt": before}})
