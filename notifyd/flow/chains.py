"""The chains over the audit trail, one for each tenant: seals are added at the end, and dropped at the start."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from attrs import evolve

from notifyd.config.settings import Settings
from notifyd.model import AuditRecord, Clock, Instant
from notifyd.security.signing import SigningKeys
from notifyd.store import SealedAudit, Store
from notifyd.wire.audit import Seal, next_seal, read_seal, signed_seal

_DROPPED: Final = 1000
"""How many seals of a chain one checkpoint drops."""


class Chains:
    """Every method may raise `StoreError`, and be repeated then."""

    def __init__(self, *, store: Store, settings: Callable[[], Settings], clock: Clock) -> None:
        self._store = store
        self._settings = settings
        self._clock = clock

    async def seal(self, tenant: str, records: Sequence[AuditRecord]) -> bool:
        """Add a seal over `records`. False where another node was first: nothing is written."""
        seal = next_seal(await self._end(tenant), tenant, self._clock())
        return await self._add(seal.over(records), records)

    async def allow_purge(self, before: Instant) -> None:
        """Let each chain say that records from before then may be gone: a checkpoint, before any is removed.

        Seals at a chain's start whose records are all gone are dropped.
        """
        for tenant in await self._store.tenants_with_audit(before):
            while not await self._checkpointed(tenant, before):
                pass

    async def _checkpointed(self, tenant: str, before: Instant) -> bool:
        """False where another node has added a seal meanwhile."""
        end = await self._end(tenant)
        if end is not None and end.purged_before is not None and end.purged_before >= before:
            return True
        first = await self._first_needed(tenant, before)
        seal = next_seal(end, tenant, self._clock())
        added = await self._add(evolve(seal, first=first or seal.number, purged_before=before), ())
        if added and first is not None:
            await self._store.drop_audit_seals(tenant, first)
        return added

    async def _first_needed(self, tenant: str, before: Instant) -> int | None:
        """The number of the first seal that has a record left, or is over one that is not old; None for none."""
        number = 0
        for _ in range(_DROPPED):
            found = await self._store.next_audit_seal(tenant, number)
            if found is None:
                return None
            number = found.seal.number
            if _is_needed(found, before):
                break
        return number

    async def _end(self, tenant: str) -> Seal | None:
        found = await self._store.newest_audit_seal(tenant)
        return None if found is None else read_seal(found)

    async def _add(self, seal: Seal, records: Sequence[AuditRecord]) -> bool:
        keys = SigningKeys(self._settings().keys.sign)
        return await self._store.add_audit_seal(signed_seal(seal, keys), records)


def _is_needed(found: SealedAudit, before: Instant) -> bool:
    seal = read_seal(found.seal)
    return bool(found.records) or max([seal.sealed_at, *(one.at for one in seal.records)]) >= before
