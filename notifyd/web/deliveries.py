"""The ledger of deliveries, and taking up a dead one again."""

from __future__ import annotations

from aiohttp import web

from notifyd.config.settings import Scope
from notifyd.errors import NotFoundError
from notifyd.model import State
from notifyd.store import DeliveryFilter
from notifyd.web.answers import delivery_json, json_answer
from notifyd.web.auth import authorize
from notifyd.web.lists import Listing, choice_of
from notifyd.web.services import SERVICES

routes = web.RouteTableDef()


@routes.get("/api/v1/deliveries")
async def list_deliveries(request: web.Request) -> web.Response:
    caller = authorize(request, Scope.READ)
    listing = Listing.read(request, caller, {"state": choice_of(State), "channel": str})
    where = DeliveryFilter(listing.values.get("state"), listing.values.get("channel"))
    rows, after = await request.app[SERVICES].store.deliveries(listing.tenant, where, listing.page)
    wait_of = request.app[SERVICES].dispatcher.wait_of
    return listing.answer([delivery_json(row, caller.registry, wait_of(row)) for row in rows], after)


@routes.get("/api/v1/deliveries/{id}")
async def get_delivery(request: web.Request) -> web.Response:
    caller = authorize(request, Scope.READ)
    services = request.app[SERVICES]
    found = await services.store.delivery(caller.only_tenant(), request.match_info["id"])
    if found is None:
        raise NotFoundError("no such delivery")
    return json_answer(delivery_json(found, caller.registry, services.dispatcher.wait_of(found)))


@routes.post("/api/v1/deliveries/{id}/retry")
async def retry_delivery(request: web.Request) -> web.Response:
    """Make a dead delivery pending again, rendered now if it could not be. The request has no body."""
    caller = authorize(request, Scope.OPERATE)
    dispatcher = request.app[SERVICES].dispatcher
    revived = await dispatcher.retry(caller.only_tenant(), request.match_info["id"])
    return json_answer(delivery_json(revived, caller.registry, dispatcher.wait_of(revived)))
