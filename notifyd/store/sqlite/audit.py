"""The steps over `audit`."""

from __future__ import annotations

from collections.abc import Sequence
from sqlite3 import Connection
from typing import Final

from notifyd.model import AuditRecord
from notifyd.store import AuditFilter, Page
from notifyd.store.sqlite import rows
from notifyd.store.sqlite.paging import Source, newest_first

_INSERT: Final = rows.insert_if_new("audit", rows.AUDIT)


def write(db: Connection, records: Sequence[AuditRecord]) -> None:
    """Insert the records that are not there yet."""
    for record in records:
        restore(db, record)


def restore(db: Connection, record: AuditRecord) -> bool:
    """Insert a record; False where it is there."""
    return bool(db.execute(_INSERT, rows.audit_row(record)).rowcount)


def search(
    db: Connection, tenant: str, where: AuditFilter, page: Page
) -> tuple[list[AuditRecord], int | None]:
    index = "audit_by_tenant" if where.run_id is None else "audit_by_run"
    terms = {"tenant": tenant, "run_id": where.run_id, "approval_id": where.approval_id}
    found, after = newest_first(db, Source("audit", index, rows.AUDIT), terms, page)
    return [rows.audit_of(row) for row in found], after
