"""The steps over `silences`."""

from __future__ import annotations

from functools import partial

from notifyd.model import AuditRecord, Instant, Silence
from notifyd.store import Page
from notifyd.store.mongo import audit, reading
from notifyd.store.mongo.base import Base
from notifyd.store.mongo.documents import document_of
from notifyd.store.mongo.paging import newest_first
from notifyd.store.mongo.windows import bring_forward


async def add(base: Base, silence: Silence, record: AuditRecord, forget: Instant) -> None:
    await base.silences.delete_many({"ends_at": {"$lt": forget}})
    await base.transact(partial(_add, silence=silence, record=record))


async def _add(base: Base, silence: Silence, record: AuditRecord) -> None:
    document = {**document_of(silence), "position": base.positions.next()}
    if any(await base.silences.insert_missing([document], "tenant", "id")):
        await audit.write_within(base, [record])


async def end(base: Base, tenant: str, silence_id: str, at: Instant, record: AuditRecord) -> Silence | None:
    await base.transact(partial(_end, tenant=tenant, silence_id=silence_id, at=at, record=record))
    return reading.one(base, Silence, await base.silences.find_one({"tenant": tenant, "id": silence_id}))


async def _end(base: Base, tenant: str, silence_id: str, at: Instant, record: AuditRecord) -> None:
    in_force = {"tenant": tenant, "id": silence_id, "ended_at": None, "ends_at": {"$gt": at}}
    if await base.silences.update_one(in_force, {"$set": {"ended_at": at, "ended_by": record.actor}}):
        await audit.write_within(base, [record])


async def search(base: Base, tenant: str, page: Page) -> tuple[list[Silence], int | None]:
    found, after = await newest_first(base.silences, {"tenant": tenant}, page, "listed")
    return reading.some(base, Silence, found), after


async def live(base: Base, now: Instant) -> list[Silence]:
    found = await base.silences.find({"ends_at": {"$gt": now}}, sort=[("position", 1)])
    return reading.some(base, Silence, found)


async def close_windows(base: Base, tenant: str, first: str, last: str, at: Instant) -> None:
    await bring_forward(base, {"tenant": tenant, "window": {"$gte": first, "$lt": last}}, at)
