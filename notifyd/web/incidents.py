"""Incidents: what a policy holds, or held."""

from __future__ import annotations

from typing import Any

import orjson
from aiohttp import web

from notifyd.config.settings import Scope
from notifyd.model import Incident
from notifyd.store import IncidentFilter
from notifyd.web.answers import instant_json
from notifyd.web.auth import authorize
from notifyd.web.lists import Listing
from notifyd.web.services import SERVICES
from notifyd.wire.codec import rfc3339

routes = web.RouteTableDef()


@routes.get("/api/v1/incidents")
async def list_incidents(request: web.Request) -> web.Response:
    caller = authorize(request, Scope.READ)
    listing = Listing.read(request, caller, {"open": _truth, "runId": str})
    where = IncidentFilter(listing.values.get("open"), listing.values.get("runId"))
    rows, after = await request.app[SERVICES].store.incidents(listing.tenant, where, listing.page)
    return listing.answer([_incident_json(row) for row in rows], after)


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
