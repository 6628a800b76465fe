"""The ledger of deliveries, and taking up a dead one again."""

from __future__ import annotations

from typing import Any

from aiohttp import web
from multidict import MultiMapping

from notifyd.config.settings import Scope
from notifyd.errors import NotFoundError
from notifyd.model import AuditName, Delivery, State
from notifyd.store import DeliveryFilter
from notifyd.web.acts import note_act
from notifyd.web.answers import delivery_json, json_answer
from notifyd.web.auth import Caller, authorize
from notifyd.web.lists import Found, Listing, Parser, choice_of
from notifyd.web.services import SERVICES, Services

routes = web.RouteTableDef()


@routes.get("/api/v1/deliveries")
async def list_deliveries(request: web.Request) -> web.Response:
    return (await find_deliveries(request, authorize(request, Scope.READ))).answer()


async def find_deliveries(
    request: web.Request, caller: Caller, query: MultiMapping[str] | None = None
) -> Found:
    parsers: dict[str, Parser] = {"state": choice_of(State), "channel": str}
    listing = Listing.read(request, caller, parsers, query=query)
    where = DeliveryFilter(listing.values.get("state"), listing.values.get("channel"))
    rows, after = await request.app[SERVICES].store.deliveries(listing.tenant, where, listing.page)
    wait_of = request.app[SERVICES].dispatcher.wait_of
    return listing.found([delivery_json(row, caller.registry, wait_of(row)) for row in rows], after)


@routes.get("/api/v1/deliveries/{id}")
async def get_delivery(request: web.Request) -> web.Response:
    return json_answer(await find_delivery(request, authorize(request, Scope.READ)))


async def find_delivery(request: web.Request, caller: Caller) -> dict[str, Any]:
    """The one that the path names, with its attempts. Raises `NotFoundError`."""
    services = request.app[SERVICES]
    found = await services.store.delivery(caller.only_tenant(), request.match_info["id"])
    if found is None:
        raise NotFoundError("no such delivery")
    return delivery_json(found, caller.registry, services.dispatcher.wait_of(found))


@routes.post("/api/v1/deliveries/{id}/retry")
async def retry_delivery(request: web.Request) -> web.Response:
    """Make a dead delivery pending again, rendered now if it could not be. The request has no body."""
    caller, services = authorize(request, Scope.OPERATE), request.app[SERVICES]
    revived = await revive_delivery(services, caller, request.match_info["id"])
    return json_answer(delivery_json(revived, caller.registry, services.dispatcher.wait_of(revived)))


async def revive_delivery(services: Services, caller: Caller, id_: str) -> Delivery:
    """Raises as `Replays.retry` does."""
    revived = await services.replays.retry(caller.only_tenant(), id_)
    about = revived.run_id, revived.approval_id
    facts = {"deliveryId": id_, "channel": revived.channel}
    await note_act(services, caller, AuditName.DELIVERY_RETRIED, revived.tenant, facts, about)
    return revived
