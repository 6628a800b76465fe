"""Silences: listed, added by a form, and ended early."""

from __future__ import annotations

from typing import Final

from aiohttp import web
from multidict import MultiDict

from notifyd.config.units import parse_duration
from notifyd.errors import Fault, InvalidError
from notifyd.model import Instant
from notifyd.web.console.frame import Form, acts, query_of, see, shows
from notifyd.web.console.html import page
from notifyd.web.console.session import Visit
from notifyd.web.silences import (
    MAX_REASON,
    SilenceRequest,
    find_silences,
    start_silence,
    stop_silence,
)
from notifyd.wire.codec import parse_instant, rfc3339

_EMPTY: Final[Form] = {"for": "2h"}

_LABELS: Final = {
    "/when": "What it holds",
    "/reason": "Why",
    "/startsAt": "Begins",
    "/endsAt": "Lasts",
}
"""The fields of the form, by what the API calls them."""

routes = web.RouteTableDef()


@shows(routes, "silences")
async def get_silences(visit: Visit) -> web.Response:
    found = await find_silences(visit.request, visit.caller, query_of(visit))
    return page(visit, "silences", found=found, form=_EMPTY, longest_reason=MAX_REASON)


@acts(routes, "silences")
async def post_silence(visit: Visit, form: Form) -> web.Response:
    """Add one or, where that cannot be, show the form as it was sent, with every fault."""
    try:
        await start_silence(visit.services, visit.caller, _asked(form, visit.now))
    except InvalidError as error:
        faults = [(_LABELS.get(fault.pointer, fault.pointer), fault.message) for fault in error.faults]
        found = await find_silences(visit.request, visit.caller, MultiDict())
        more = {"form": form, "faults": faults, "longest_reason": MAX_REASON}
        return page(visit, "silences", 422, found=found, **more)
    return see(visit.request, "silences", "silenced")


@acts(routes, "silences/{id}/expire")
async def post_expire(visit: Visit, form: Form) -> web.Response:
    await stop_silence(visit.services, visit.caller, visit.request.match_info["id"])
    return see(visit.request, "silences", "expired")


def _asked(form: Form, now: Instant) -> SilenceRequest:
    """Raises `InvalidError` where no end can be made of the form."""
    begins = form.get("from", "").strip()
    start = f"{begins}:00Z" if len(begins) == len("2026-11-29T13:07") else begins  # as browsers write it
    try:
        ends = (parse_instant(start) if start else now) + parse_duration(form.get("for", "").strip())
    except ValueError as error:
        at = "/endsAt" if not start or _is_instant(start) else "/startsAt"
        raise InvalidError([Fault(at, str(error))]) from None
    return SilenceRequest(
        when=form.get("when", "").strip(),
        reason=form.get("reason", ""),
        ends_at=rfc3339(ends),
        starts_at=start or None,
        approvals="approvals" in form,
    )


def _is_instant(text: str) -> bool:
    try:
        parse_instant(text)
    except ValueError:
        return False
    return True
