"""What notifyd has given up: dead effects of approvals and dead deliveries in one list, and trying them again."""

from __future__ import annotations

from typing import Any

from aiohttp import web
from multidict import MultiMapping

from notifyd.config.settings import Scope
from notifyd.errors import NotFoundError, Reason
from notifyd.model import Approval, AuditName, Delivery, Effect, State
from notifyd.store import DeliveryFilter, Page, Store
from notifyd.web.acts import note_act
from notifyd.web.answers import json_answer
from notifyd.web.auth import Caller, authorize
from notifyd.web.deliveries import revive_delivery
from notifyd.web.lists import Found, Listing
from notifyd.web.services import SERVICES, Services
from notifyd.wire.codec import rfc3339

routes = web.RouteTableDef()


@routes.get("/api/v1/dead")
async def list_dead(request: web.Request) -> web.Response:
    """Effects first, then deliveries, each newest first. The effects of one approval are never parted."""
    return (await find_dead(request, authorize(request, Scope.READ))).answer()


async def find_dead(request: web.Request, caller: Caller, query: MultiMapping[str] | None = None) -> Found:
    listing = Listing.read(request, caller, {}, query=query)
    items, after = await _page(request.app[SERVICES].store, listing.tenant, listing.page)
    return listing.found(items, after)


@routes.post("/api/v1/dead/{id}/retry")
async def retry_dead(request: web.Request) -> web.Response:
    """Take up a dead effect or delivery again. The request has no body."""
    caller, id_ = authorize(request, Scope.OPERATE), request.match_info["id"]
    return json_answer({"id": id_, "what": await revive(request.app[SERVICES], caller, id_)})


async def revive(services: Services, caller: Caller, id_: str) -> str:
    """What it was: an effect or a delivery. Raises as `Dispatcher.retry` does."""
    tenant = caller.only_tenant()
    try:
        await services.effects.retry(tenant, id_)
    except NotFoundError:
        await revive_delivery(services, caller, id_)
        return "delivery"
    await note_act(services, caller, AuditName.EFFECT_RETRIED, tenant, {"effectId": id_})
    return "effect"


async def _page(store: Store, tenant: str, page: Page) -> tuple[list[dict[str, Any]], int | None]:
    """Positions among the effects are negative, so that one number says where either list goes on."""
    items: list[dict[str, Any]] = []
    if page.after is None or page.after < 0:
        after = None if page.after is None else -page.after
        approvals, after = await store.with_dead_effects(tenant, Page(page.limit, after))
        items = [_effect_json(one, effect) for one in approvals for effect in one.dead_effects]
        if after is not None:
            return items, -after
    room = page.limit - len(items)
    if room <= 0:
        return items, 0
    rest = page.after if page.after and page.after > 0 else None
    rows, after = await store.deliveries(tenant, DeliveryFilter(State.DEAD), Page(room, rest))
    return items + [_delivery_json(row) for row in rows], after


def _effect_json(approval: Approval, effect: Effect) -> dict[str, Any]:
    return {
        "id": effect.id,
        "what": "effect",
        "name": effect.kind.value,
        "runId": approval.run_id,
        "approvalId": approval.approval_id,
        "tries": effect.tries,
        "reason": Reason.MAX_ATTEMPTS.value,
        "fault": effect.fault,
        "endedAt": rfc3339(effect.dead_at or 0),
        "correlationId": approval.correlation_id,
    }


def _delivery_json(row: Delivery) -> dict[str, Any]:
    last = row.attempts[-1] if row.attempts else None
    return {
        "id": row.id,
        "what": "delivery",
        "name": row.channel,
        "runId": row.run_id,
        "approvalId": row.approval_id,
        "tries": row.tries,
        "reason": row.reason.value if row.reason else "",
        "fault": last.detail if last else "",
        "endedAt": rfc3339(row.ended_at or 0),
        "correlationId": row.correlation_id,
    }
