"""Sealing the audit trail: what was written since the last pass goes under seals, batch by batch."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from notifyd.config.settings import Settings
from notifyd.errors import JobTakenError
from notifyd.flow.chains import Chains
from notifyd.flow.jobs import JobLease
from notifyd.model import Clock
from notifyd.store import Job, Store

log = logging.getLogger(__name__)

BATCH: Final = 100
"""How many records one seal is over at most."""


class AuditSealing:
    """Of the nodes that share a store one at a time seals: each pass holds a lease."""

    def __init__(self, *, store: Store, settings: Callable[[], Settings], clock: Clock) -> None:
        self._store = store
        self._chains = Chains(store=store, settings=settings, clock=clock)
        self._lease = JobLease(Job.AUDIT_SEALS, store, lambda: settings().dispatch.lease, clock)

    async def sweep(self) -> int:
        """Seal all that is there, the tenants in turn, unless another node does; answers how many records.

        Raises `StoreError`.
        """
        total, tenants = 0, await self._store.tenants_with_unsealed_audit()
        if not tenants:
            return 0
        try:
            async with self._lease.held():
                while tenants:
                    sealed = {tenant: await self._batch(tenant) for tenant in tenants}
                    total += sum(sealed.values())
                    tenants = [tenant for tenant, records in sealed.items() if records == BATCH]
        except JobTakenError as error:
            log.debug("%s", error)
        return total

    async def _batch(self, tenant: str) -> int:
        """Seal one batch of a tenant; of how many records. None where another node was first."""
        await self._lease.keep()
        records = await self._store.unsealed_audit(tenant, BATCH)
        return len(records) if records and await self._chains.seal(tenant, records) else 0
