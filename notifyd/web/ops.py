"""What operators and their tools look at: metrics, liveness, readiness, the contract, and the audit trail."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib import resources
from typing import Any, Final

import orjson
from aiohttp import hdrs, web
from multidict import MultiMapping
from prometheus_client.exposition import choose_encoder

from notifyd.config.settings import Scope
from notifyd.errors import NotifydError, StoppingError, UnavailableError
from notifyd.model import AuditRecord
from notifyd.store import PAGE_BYTES, AuditFilter
from notifyd.web.answers import json_answer, json_bytes
from notifyd.web.auth import Caller, authorize
from notifyd.web.lists import Found, Listing, Parser
from notifyd.web.problems import InvalidHeaderError
from notifyd.web.services import SERVICES
from notifyd.wire.audit import audit_json

PROBE_LIFE: Final = 1.0
"""Seconds a probe's result is reused: this endpoint is open, and a probe writes to the disk."""

_VERSIONS: Final = re.compile(r"version=([^;,]*)").findall
_VERSION: Final = re.compile(r"([0-9]{1,3}(\.[0-9]{1,3}){0,2})?[ \t]*").fullmatch

_CONTRACT: Final = resources.files("notifyd") / "contract" / "openapi.json"

routes = web.RouteTableDef()


@cache
def _contract() -> bytes:
    """Read once: many callers share these bytes."""
    return _CONTRACT.read_bytes()


class Readiness:
    """Asks the daemon whether it can work, at most once per `PROBE_LIFE`, whoever asks meanwhile."""

    def __init__(self, ready: Callable[[], Awaitable[None]], draining: Callable[[], bool]) -> None:
        self._ready = ready
        self._draining = draining
        self._lock = asyncio.Lock()
        self._asked_at = float("-inf")
        self._fault: NotifydError | None = None

    async def check(self) -> None:
        """Raises `UnavailableError`."""
        if self._draining():
            raise StoppingError
        async with self._lock:
            now = asyncio.get_running_loop().time()
            if now - self._asked_at >= PROBE_LIFE:
                self._fault = await self._ask()
                self._asked_at = asyncio.get_running_loop().time()
        if self._fault is not None:
            raise UnavailableError(self._fault.detail)

    async def holds(self) -> bool:
        """Is all well, as far as can be told in `PROBE_LIFE`?"""
        try:
            async with asyncio.timeout(PROBE_LIFE):
                await self.check()
        except (UnavailableError, TimeoutError):
            return False
        return True

    async def _ask(self) -> NotifydError | None:
        try:
            await self._ready()
        except NotifydError as fault:
            return fault
        return None


READINESS: Final = web.AppKey("READINESS", Readiness)
SCRAPES: Final = web.AppKey("SCRAPES", ThreadPoolExecutor)
"""One thread, on which metrics are written: a page of many channels takes seconds.

It is none of those of the event loop, which plugins may hold up.
"""


@routes.get("/healthz")
async def get_healthz(request: web.Request) -> web.Response:
    """That this answers shows that the loop turns."""
    return json_answer({"status": "ok"})


@routes.get("/readyz")
async def get_readyz(request: web.Request) -> web.Response:
    await request.app[READINESS].check()
    return json_answer({"status": "ready"})


@routes.get("/metrics")
async def get_metrics(request: web.Request) -> web.Response:
    """The Prometheus text format, or OpenMetrics where it is asked for."""
    encode, content_type = choose_encoder(_accepted(request))
    metrics = request.app[SERVICES].metrics
    metrics.ready.set(await request.app[READINESS].holds())
    scrapes = request.app[SCRAPES]
    body = await asyncio.get_running_loop().run_in_executor(scrapes, encode, metrics.registry)
    return web.Response(body=body, headers={hdrs.CONTENT_TYPE: content_type})


def _accepted(request: web.Request) -> str:
    """`Accept`, where its versions are fit to be compared and to be told back. Raises `InvalidHeaderError`."""
    accepted = ",".join(request.headers.getall(hdrs.ACCEPT, ()))
    if not all(_VERSION(found) for found in _VERSIONS(accepted)):
        raise InvalidHeaderError("accept names a version that is none, such as 1.0.0 would be")
    return accepted


@routes.get("/openapi.json")
async def get_contract(request: web.Request) -> web.Response:
    return json_bytes(await asyncio.to_thread(_contract))


@routes.get("/.well-known/notifyd/jwks.json")
async def get_keys(request: web.Request) -> web.Response:
    """The public keys of what notifyd signs."""
    return json_answer(request.app[SERVICES].current().signing.jwks())


_UNTENANTED: Final = "untenanted"


def _yes(text: str) -> bool:
    if text != "true":
        raise ValueError("must be true, or left out")
    return True


def _audit_listing(
    request: web.Request, caller: Caller, parsers: Mapping[str, Parser], query: MultiMapping[str]
) -> Listing:
    """Of the caller's tenant or, for an operator, of what concerns no tenant, such as refused callers."""
    tenant = None
    if query.get(_UNTENANTED):
        caller.require(Scope.OPERATE)
        tenant = ""
    return Listing.read(request, caller, {**parsers, _UNTENANTED: _yes}, tenant=tenant, query=query)


@routes.get("/api/v1/audit")
async def list_audit(request: web.Request) -> web.Response:
    return (await find_audit(request, authorize(request, Scope.READ), request.query)).answer()


async def find_audit(request: web.Request, caller: Caller, query: MultiMapping[str]) -> Found:
    listing = _audit_listing(request, caller, {"runId": str, "approvalId": str}, query)
    where = AuditFilter(listing.values.get("runId"), listing.values.get("approvalId"))
    rows, after = await request.app[SERVICES].store.audit(listing.tenant, where, listing.page)
    return listing.found([audit_json(row) for row in rows], after)


@routes.get("/api/v1/audit/seals")
async def list_audit_seals(request: web.Request) -> web.Response:
    """A chain from its start, each seal with the records that bear its number."""
    listing = _audit_listing(request, authorize(request, Scope.READ), {}, request.query)
    store = request.app[SERVICES].store
    items: list[dict[str, Any]] = []
    number, room = listing.page.after or 0, PAGE_BYTES
    while len(items) < listing.page.limit and room > 0:
        found = await store.next_audit_seal(listing.tenant, number)
        if found is None:
            strays = await store.stray_audit(listing.tenant, listing.page.limit)
            rest = [_sealed_json(None, None, strays)] if strays else []
            return listing.found([*items, *rest], None).answer()
        number = found.seal.number
        items.append(_sealed_json(number, found.seal.envelope, found.records))
        room -= len(orjson.dumps(items[-1]))
    return listing.found(items, number).answer()


def _sealed_json(number: int | None, envelope: str | None, records: Sequence[AuditRecord]) -> dict[str, Any]:
    return {"number": number, "envelope": envelope, "records": [audit_json(one) for one in records]}
