"""The steps over `audit`."""

from __future__ import annotations

from collections.abc import Sequence
from sqlite3 import Connection
from typing import Any, Final

from notifyd.model import AuditRecord
from notifyd.store import AuditFilter, Page
from notifyd.store.sqlite import rows
from notifyd.store.sqlite.files import Database
from notifyd.store.sqlite.paging import Source, looked_through, newest_first

_INSERT: Final = rows.insert_if_new("audit", rows.AUDIT)
_OF_TENANT: Final = Source(rows.AUDITS, "audit_by_tenant")
_OF_RUN: Final = Source(rows.AUDITS, "audit_by_run")


def write(db: Connection, records: Sequence[AuditRecord]) -> None:
    """Insert the records that are not there yet."""
    for record in records:
        restore(db, record)


def restore(db: Connection, record: AuditRecord) -> bool:
    """Insert a record; False where it is there."""
    return bool(db.execute(_INSERT, rows.audit_row(record)).rowcount)


def search(db: Database, tenant: str, where: AuditFilter, page: Page) -> tuple[list[AuditRecord], int | None]:
    terms: dict[str, Any] = {"tenant": tenant}
    approval = {} if where.approval_id is None else {"approval_id": where.approval_id}
    if where.run_id is not None:
        # A run's lines are not in the order of their rowids: its rowids are sorted, which the index alone gives.
        return newest_first(db, _OF_RUN, [{**terms, "run_id": where.run_id, **approval}], page)
    if approval:
        return looked_through(db, _OF_TENANT, terms, approval, page)
    return newest_first(db, _OF_TENANT, [terms], page)
