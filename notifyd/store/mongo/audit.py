"""The steps over `audit`."""

from __future__ import annotations

from collections.abc import Sequence

from notifyd.model import AuditRecord
from notifyd.store import AuditFilter, Page
from notifyd.store.mongo import reading
from notifyd.store.mongo.base import Base
from notifyd.store.mongo.documents import document_of
from notifyd.store.mongo.driver import Document
from notifyd.store.mongo.paging import looked_through, newest_first


async def write(base: Base, records: Sequence[AuditRecord]) -> None:
    """Insert the records that are not there yet, together with what others write."""
    if records:
        await base.new_audit.insert(_documents(base, records))


async def write_within(base: Base, records: Sequence[AuditRecord]) -> None:
    """Insert the records that are not there yet, in a transaction."""
    await base.audit.insert_missing(_documents(base, records), "tenant", "id")


def _documents(base: Base, records: Sequence[AuditRecord]) -> list[Document]:
    return [{**document_of(record), "position": base.positions.next()} for record in records]


async def search(
    base: Base, tenant: str, where: AuditFilter, page: Page
) -> tuple[list[AuditRecord], int | None]:
    terms, approval = {"tenant": tenant}, {"approval_id": where.approval_id}
    if where.run_id is not None:
        of_run = {**terms, "run_id": where.run_id, **approval}
        found, after = await newest_first(base.audit, of_run, page, "by_run")
    elif where.approval_id is not None:
        found, after = await looked_through(base.audit, terms, approval, page, "by_tenant")
    else:
        found, after = await newest_first(base.audit, terms, page, "by_tenant")
    return reading.some(base, AuditRecord, found), after
