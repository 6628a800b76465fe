"""Refused calls, kept for the audit trail: bounded, and never in the way of the answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Final

from attrs import define

from notifyd.errors import ForbiddenError, StoreError, UnauthenticatedError
from notifyd.metrics import Metrics
from notifyd.model import SECOND, AuditName, AuditRecord, Clock, Instant, Principal, Via
from notifyd.store import Store
from notifyd.web.problems import MEANINGS, Problem
from notifyd.wire.codec import derived_id

log = logging.getLogger(__name__)

INTERVAL: Final[Instant] = SECOND
"""At most one record per client and code in so long; it counts the refusals since the one before."""


REFUSALS: Final = frozenset(
    kind.code for kind in MEANINGS if issubclass(kind, UnauthenticatedError | ForbiddenError)
)
"""The problem codes of a caller that proves nothing, or that may not do what it asks for."""


@define
class _Tally:
    written_at: Instant
    unwritten: int = 0


class Refusals:
    """Writes `auth.refused` records in the background.

    A caller that proved nothing is "unknown", beside the configured client that it `claims` to be, and those whom
    tokens name are one: so the kinds of records, and with them the memory, are bounded by the configured clients
    and the codes.
    """

    def __init__(self, store: Store, clock: Clock, metrics: Metrics) -> None:
        self._store = store
        self._clock = clock
        self._counter = metrics.refused
        metrics.name_refusals(REFUSALS)
        self._tallies: dict[tuple[str, str, str], _Tally] = {}
        self._writes: set[asyncio.Task[None]] = set()

    def note(
        self, problem: Problem, principal: Principal | None, claims: str, where: str, address: str, cid: str
    ) -> None:
        """Count a refusal; record it unless its like was recorded just now. `where` is never a raw path.

        `claims` is the configured client whose name, and no proof, the caller sent; "" for none.
        """
        self._counter.labels(problem.code).inc()
        now, client = self._clock(), principal.name if principal else "unknown"
        kind = client if principal is None or principal.via is Via.CLIENT else principal.via.value
        tally = self._tallies.setdefault((kind, claims, problem.code), _Tally(now - INTERVAL))
        tally.unwritten += 1
        if now - tally.written_at < INTERVAL:
            return
        data = {"code": problem.code, "where": where, "address": address, "count": tally.unwritten}
        if claims:
            data["claims"] = claims
        self._tell(problem, client, data)
        tally.written_at, tally.unwritten = now, 0
        # A tenant may read of its own client; what a stranger did is the daemon's affair.
        tenant = principal.tenants[0] if principal and len(principal.tenants) == 1 else ""
        record = AuditRecord(
            id=derived_id(
                "audit", tenant, AuditName.AUTH_REFUSED.value, client, claims, problem.code, cid, now
            ),
            tenant=tenant,
            name=AuditName.AUTH_REFUSED,
            at=now,
            actor=f"client:{client}" if principal else "",
            correlation_id=cid,
            data=data,
        )
        self._start(record)

    @staticmethod
    def _tell(problem: Problem, client: str, data: Mapping[str, Any]) -> None:
        who = f"{client} (says it is {data['claims']})" if "claims" in data else client
        times = f", {data['count']} times" if data["count"] > 1 else ""
        why = f"{problem.code}: {problem.detail or problem.title}"
        log.warning("refused %s at %s on %s%s: %s", who, data["address"], data["where"], times, why)

    def _start(self, record: AuditRecord) -> None:
        task = asyncio.create_task(self._write(record))
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)

    async def _write(self, record: AuditRecord) -> None:
        try:
            await self._store.write_audit([record])
        except StoreError as error:
            log.error("an auth.refused record was not kept: %s", error.detail)

    async def aclose(self) -> None:
        """Wait for the records being written."""
        await asyncio.gather(*self._writes)
