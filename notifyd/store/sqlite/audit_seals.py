"""The steps over `audit_seals`. A line of the audit trail bears the number of the seal over it, 0 without one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from sqlite3 import Connection
from typing import Final

from notifyd.model import AuditRecord, AuditSeal, Instant
from notifyd.store import SealedAudit
from notifyd.store.sqlite import rows
from notifyd.store.sqlite.files import Database
from notifyd.store.sqlite.rows import sql
from notifyd.wire.audit import read_seal

_TENANTS: Final = "SELECT DISTINCT tenant FROM audit INDEXED BY"
_UNSEALED_TENANTS: Final = sql(_TENANTS, "audit_sealed WHERE seal = 0")
_AGED_TENANTS: Final = sql(_TENANTS, "audit_by_age WHERE at < ?")

_RECORDS: Final = rows.AUDITS.select_by("audit_sealed")
_UNDER: Final = sql(_RECORDS, "WHERE seal = :seal AND tenant = :tenant")
_IN_ORDER: Final = "ORDER BY audit.rowid"
_OTHERS: Final = "AND audit.rowid NOT IN (SELECT value FROM json_each(:aside))"
_UNSEALED: Final = sql(_UNDER, _OTHERS, _IN_ORDER, "LIMIT :limit")
_STRAYS: Final = tuple(
    sql(_RECORDS, "WHERE", outside, "AND seal <> 0 AND tenant = ? LIMIT ?")
    for outside in ("seal < ?", "seal > ?")
)

_SEAL: Final = "SELECT tenant, number, envelope FROM audit_seals WHERE tenant = ?"
_NEWEST: Final = sql(_SEAL, "ORDER BY number DESC LIMIT 1")
_OLDEST: Final = sql(_SEAL, "ORDER BY number LIMIT 1")
_NEXT: Final = sql(_SEAL, "AND number > ? ORDER BY number LIMIT 1")
_INSERT: Final = rows.insert_if_new("audit_seals", ("tenant", "number", "envelope"))
_DROP: Final = """
DELETE FROM audit_seals WHERE rowid IN (
    SELECT rowid FROM audit_seals INDEXED BY audit_seals_key
    WHERE tenant = ? AND number < ? ORDER BY number LIMIT ?
)
"""

DROPPED_AT_ONCE: Final = 32
"""How many seals one step removes: each takes several pages."""

_MARK: Final = sql(
    "UPDATE audit INDEXED BY audit_id SET seal = :seal WHERE",
    rows.has_key("audit", ":tenant", ":id"),
    "AND at = :at AND seal = 0",
)


class NotUnsealedError(Exception):
    """Some of the records are sealed already, or gone: the step is undone."""


def unsealed_tenants(db: Connection) -> list[str]:
    return [tenant for (tenant,) in db.execute(_UNSEALED_TENANTS) if isinstance(tenant, str)]


def unsealed(db: Database, tenant: str, limit: int) -> list[AuditRecord]:
    return rows.due(db, rows.AUDITS, _UNSEALED, {"seal": 0, "tenant": tenant, "limit": limit})


def newest(db: Connection, tenant: str) -> AuditSeal | None:
    found = db.execute(_NEWEST, (tenant,)).fetchone()
    return None if found is None else AuditSeal(*found)


def following(db: Database, tenant: str, number: int) -> SealedAudit | None:
    found = db.execute(_NEXT, (tenant, number)).fetchone()
    if found is None:
        return None
    seal = AuditSeal(*found)
    found_under = db.execute(sql(_UNDER, _IN_ORDER), {"seal": seal.number, "tenant": tenant})
    return SealedAudit(seal, tuple(rows.some(db, rows.AUDITS, found_under)))


def strays(db: Database, tenant: str, limit: int) -> list[AuditRecord]:
    ends = [db.execute(query, (tenant,)).fetchone() for query in (_OLDEST, _NEWEST)]
    first, last = (number for _, number, _ in ends) if all(ends) else (1, 0)
    found = (
        db.execute(query, (end, tenant, limit)) for query, end in zip(_STRAYS, (first, last), strict=True)
    )
    return rows.some(db, rows.AUDITS, chain.from_iterable(found))


def add(db: Connection, seal: AuditSeal, records: Sequence[AuditRecord]) -> bool:
    """Raises `NotUnsealedError`."""
    if not db.execute(_INSERT, (seal.tenant, seal.number, seal.envelope)).rowcount:
        return False
    if not all(_mark(db, seal, one.at, one.id) for one in records):
        raise NotUnsealedError
    return True


def restore(db: Connection, seal: AuditSeal) -> bool:
    """Insert a seal, over those of its records that are there; False where its number is taken."""
    new = add(db, seal, ())
    for one in read_seal(seal).records if new else ():
        _mark(db, seal, one.at, one.id)
    return new


def _mark(db: Connection, seal: AuditSeal, at: Instant, record: str) -> bool:
    terms = {"seal": seal.number, "tenant": seal.tenant, "at": at, "id": record}
    return db.execute(_MARK, terms).rowcount > 0


def drop(db: Connection, tenant: str, before: int) -> int:
    """Remove the first `DROPPED_AT_ONCE` of them; how many it was."""
    return db.execute(_DROP, (tenant, before, DROPPED_AT_ONCE)).rowcount


def tenants(db: Connection, before: Instant) -> list[str]:
    return [tenant for (tenant,) in db.execute(_AGED_TENANTS, (before,)) if isinstance(tenant, str)]
