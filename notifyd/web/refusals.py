"""Refused calls, kept for the audit trail: bounded, and never in the way of the answer."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from attrs import define, frozen

from notifyd import correlation
from notifyd.errors import ForbiddenError, StoreError, UnauthenticatedError
from notifyd.metrics import Metrics
from notifyd.model import SECOND, AuditName, AuditRecord, Clock, Instant, Principal, Via
from notifyd.store import Store
from notifyd.web.problems import MEANINGS, Problem, UnheardError
from notifyd.wire.codec import derived_id

log = logging.getLogger(__name__)

INTERVAL: Final[Instant] = SECOND
"""At most one record per client and code in so long; it counts the refusals since the one before."""


REFUSALS: Final = frozenset(
    kind.code for kind in MEANINGS if issubclass(kind, UnauthenticatedError | ForbiddenError | UnheardError)
)
"""The problem codes of a caller that proves nothing, or that may not do what it asks for."""


@frozen
class _Refusal:
    """Who was refused, and why. `principal` is None where the caller proved nothing."""

    problem: Problem
    principal: Principal | None
    claims: str
    where: str
    address: str
    cid: str

    @property
    def client(self) -> str:
        return self.principal.name if self.principal else "unknown"

    @property
    def kind(self) -> tuple[str, str, str]:
        known = self.principal
        client = self.client if known is None or known.via is Via.CLIENT else known.via.value
        return client, self.claims, self.problem.code


@define
class _Tally:
    """How many of a kind were refused since `written_at`, of which `last` is the newest.

    `timer` tells of them where no further one does.
    """

    written_at: Instant
    unwritten: int = 0
    last: _Refusal | None = None
    timer: asyncio.TimerHandle | None = None


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
        """Count a refusal; record it with those of its like that come within the second.

        `where` is never a raw path. `claims` is the configured client whose name, and no proof, the caller sent;
        "" for none.
        """
        self._counter.labels(problem.code).inc()
        now, refusal = self._clock(), _Refusal(problem, principal, claims, where, address, cid)
        tally = self._tallies.setdefault(refusal.kind, _Tally(now - INTERVAL))
        tally.last, tally.unwritten = refusal, tally.unwritten + 1
        if not 0 <= now - tally.written_at < INTERVAL:  # a clock that was set back silences nobody
            self._write_down(tally)
        elif tally.timer is None:
            loop = asyncio.get_running_loop()
            tally.timer = loop.call_later(INTERVAL / SECOND, self._write_down, tally)

    def _write_down(self, tally: _Tally) -> None:
        if tally.timer is not None:
            tally.timer.cancel()
        refusal, count, now = tally.last, tally.unwritten, self._clock()
        tally.timer, tally.unwritten, tally.written_at = None, 0, now
        if refusal is not None:
            self._tell(refusal, count)
            self._start(_record(refusal, count, now))

    @staticmethod
    def _tell(refusal: _Refusal, count: int) -> None:
        problem, client = refusal.problem, refusal.client
        who = f"{client} (says it is {refusal.claims})" if refusal.claims else client
        times = f", {count} times" if count > 1 else ""
        why = f"{problem.code}: {problem.detail}"
        with correlation.about(refusal.cid):
            log.warning("refused %s at %s on %s%s: %s", who, refusal.address, refusal.where, times, why)

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
        """Record what is not yet, and wait for that."""
        for tally in self._tallies.values():
            if tally.unwritten:
                self._write_down(tally)
        await asyncio.gather(*self._writes)


def _record(refusal: _Refusal, count: int, now: Instant) -> AuditRecord:
    principal, client, code = refusal.principal, refusal.client, refusal.problem.code
    data = {"code": code, "where": refusal.where, "address": refusal.address, "count": count}
    if refusal.claims:
        data["claims"] = refusal.claims
    # A tenant may read of its own client; what a stranger did is the daemon's affair.
    tenant = principal.tenants[0] if principal and len(principal.tenants) == 1 else ""
    return AuditRecord(
        id=derived_id(
            "audit", tenant, AuditName.AUTH_REFUSED.value, client, refusal.claims, code, refusal.cid, now
        ),
        tenant=tenant,
        name=AuditName.AUTH_REFUSED,
        at=now,
        actor=f"client:{client}" if principal else "",
        correlation_id=refusal.cid,
        data=data,
    )
