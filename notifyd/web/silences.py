"""Silences: holding notifications back for a time, and ending that."""

from __future__ import annotations

from typing import Any, Final

from aiohttp import web
from attrs import frozen
from multidict import MultiMapping

from notifyd import correlation
from notifyd.config.settings import Scope
from notifyd.config.units import DAY
from notifyd.errors import Fault, InvalidError, NotFoundError
from notifyd.flow.silences import predicate_faults
from notifyd.model import Instant, Silence
from notifyd.rules.booleans import no_boolean
from notifyd.rules.rules import NATIVE_FUNCTIONS
from notifyd.text import one_line
from notifyd.web.answers import instant_json, json_answer
from notifyd.web.auth import Caller, authorize
from notifyd.web.body import read_body, read_json
from notifyd.web.lists import Found, Listing
from notifyd.web.services import SERVICES, Services
from notifyd.wire.codec import derived_id, parse_instant, rfc3339
from notifyd.wire.records import structure

LONGEST: Final = 366 * DAY
"""How far ahead a silence may end: nothing waits for ever."""

MAX_REASON: Final = 500

routes = web.RouteTableDef()


@frozen
class SilenceRequest:
    """What to hold back, until when, and why."""

    when: str
    reason: str
    ends_at: str
    starts_at: str | None = None
    approvals: bool = False


@routes.get("/api/v1/silences")
async def list_silences(request: web.Request) -> web.Response:
    return (await find_silences(request, authorize(request, Scope.READ))).answer()


async def find_silences(
    request: web.Request, caller: Caller, query: MultiMapping[str] | None = None
) -> Found:
    services, listing = request.app[SERVICES], Listing.read(request, caller, {}, query=query)
    rows, after = await services.store.silences(listing.tenant, listing.page)
    return listing.found([_silence_json(row, services.clock()) for row in rows], after)


@routes.post("/api/v1/silences")
async def add_silence(request: web.Request) -> web.Response:
    services, caller = request.app[SERVICES], authorize(request, Scope.OPERATE)
    caller.only_tenant()  # before the body is read
    body = await read_body(request, caller.registry.settings.server.max_body)
    asked = structure(read_json(request, body), SilenceRequest)
    silence = await start_silence(services, caller, asked)
    return json_answer(_silence_json(silence, services.clock()))


async def start_silence(services: Services, caller: Caller, asked: SilenceRequest) -> Silence:
    """Raises `InvalidError` with every fault, `TooManySilencesError`."""
    silence = _silence(asked, caller.only_tenant(), caller.author, services)
    await services.silences.add(silence, correlation.current.get())
    return silence


@routes.delete("/api/v1/silences/{id}")
async def end_silence(request: web.Request) -> web.Response:
    """End a silence: what it held is told. One that is over is answered as it is."""
    services, caller = request.app[SERVICES], authorize(request, Scope.OPERATE)
    ended = await stop_silence(services, caller, request.match_info["id"])
    return json_answer(_silence_json(ended, services.clock()))


async def stop_silence(services: Services, caller: Caller, id_: str) -> Silence:
    """Raises `NotFoundError`."""
    tenant, author = caller.only_tenant(), caller.author
    ended = await services.silences.end(tenant, id_, author, correlation.current.get())
    if ended is None:
        raise NotFoundError("no such silence")
    return ended


def _silence(asked: SilenceRequest, tenant: str, author: str, services: Services) -> Silence:
    """Raises `InvalidError` with every fault."""
    registry, now = services.current(), services.clock()
    wrong = predicate_faults(asked.when, registry) or no_boolean(
        asked.when, services.examples(), NATIVE_FUNCTIONS
    )
    faults = [Fault("/when", message) for message in wrong]
    reason = one_line(asked.reason)
    if not 0 < len(reason) <= MAX_REASON:
        faults.append(Fault("/reason", f"must be a text of 1 to {MAX_REASON} characters"))
    starts_at = now if asked.starts_at is None else _instant("/startsAt", asked.starts_at, faults)
    ends_at = _instant("/endsAt", asked.ends_at, faults)
    if not faults and not max(now, starts_at) < ends_at <= now + LONGEST:
        faults.append(Fault("/endsAt", "must be after startsAt, ahead of now, and within 366 days"))
    if faults:
        raise InvalidError(faults)
    what = (asked.when, reason, author, now, starts_at, ends_at)
    return Silence(
        tenant=tenant,
        id=derived_id("silence", tenant, *what),
        predicate=asked.when,
        reason=registry.redactor.text(reason),
        author=author,
        created_at=now,
        starts_at=max(now, starts_at),
        ends_at=ends_at,
        approvals=asked.approvals,
    )


def _instant(at: str, text: str, faults: list[Fault]) -> Instant:
    try:
        return parse_instant(text)
    except ValueError as error:
        faults.append(Fault(at, str(error)))
        return 0


def _silence_json(silence: Silence, now: Instant) -> dict[str, Any]:
    return {
        "id": silence.id,
        "tenant": silence.tenant,
        "when": silence.predicate,
        "reason": silence.reason,
        "author": silence.author,
        "approvals": silence.approvals,
        "state": silence.state(now).value,
        "createdAt": rfc3339(silence.created_at),
        "startsAt": rfc3339(silence.starts_at),
        "endsAt": rfc3339(silence.ends_at),
        "endedAt": instant_json(silence.ended_at),
        "endedBy": silence.ended_by,
    }
