"""Deliveries with their attempts, and what was given up, with a button to try again."""

from __future__ import annotations

from aiohttp import web

from notifyd.model import State
from notifyd.web.console.frame import Form, acts, query_of, see, shows
from notifyd.web.console.html import page
from notifyd.web.console.session import Visit
from notifyd.web.dead import find_dead, revive
from notifyd.web.deliveries import find_deliveries, find_delivery

routes = web.RouteTableDef()


@shows(routes, "deliveries")
async def get_deliveries(visit: Visit) -> web.Response:
    found = await find_deliveries(visit.request, visit.caller, query_of(visit))
    channels = sorted(visit.registry.channels)
    return page(visit, "deliveries", found=found, states=tuple(State), channels=channels)


@shows(routes, "deliveries/{id}")
async def get_delivery(visit: Visit) -> web.Response:
    return page(visit, "delivery", delivery=await find_delivery(visit.request, visit.caller))


@shows(routes, "dead")
async def get_dead(visit: Visit) -> web.Response:
    return page(visit, "dead", found=await find_dead(visit.request, visit.caller, query_of(visit)))


@acts(routes, "dead/{id}/retry")
async def post_retry(visit: Visit, form: Form) -> web.Response:
    await revive(visit.services, visit.caller, visit.request.match_info["id"])
    return see(visit.request, "dead", "retried")
