"""Incidents: what a policy holds, or held."""

from __future__ import annotations

from typing import Any

import orjson
from aiohttp import web
from multidict import MultiMapping

from notifyd.config.settings import Scope
from notifyd.model import Incident
from notifyd.store import IncidentFilter
from notifyd.web.answers import instant_json
from notifyd.web.auth import Caller, authorize
from notifyd.web.lists import Found, Listing
from notifyd.web.services import SERVICES
from notifyd.wire.codec import rfc3339

routes = web.RouteTableDef()


@routes.get("/api/v1/incidents")
async def list_incidents(request: web.Request) -> web.Response:
    return (await find_incidents(request, authorize(request, Scope.READ))).answer()


async def find_incidents(
    request: web.Request, caller: Caller, query: MultiMapping[str] | None = None
) -> Found:
    listing = Listing.read(request, caller, {"open": _truth, "runId": str}, query=query)
    where = IncidentFilter(listing.values.get("open"), listing.values.get("runId"))
    rows, after = await request.app[SERVICES].store.incidents(listing.tenant, where, listing.page)
    return listing.found([_incident_json(row) for row in rows], after)


def _truth(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError("must be true or false")
    return text == "true"


def _incident_json(incident: Incident) -> dict[str, Any]:
    request = orjson.loads(incident.request)
    return {
        "tenant": incident.tenant,
        "runId": incident.run_id,
        "approvalId": incident.approval_id,
        "policyId": incident.policy_id,
        "open": incident.open,
        "openedAt": instant_json(incident.opened_at),
        "closedAt": instant_json(incident.closed_at),
        "occurredAt": rfc3339(incident.occurred_at),
        "messages": request.get("policy", {}).get("messages", []),
        "labels": request.get("labels", {}),
    }
