"""What was asked, held and done: approvals with their history, incidents, and the audit trail."""

from __future__ import annotations

from aiohttp import web

from notifyd.model import Status
from notifyd.web.approvals import find_approvals, key_of, with_history
from notifyd.web.changes import find
from notifyd.web.console.frame import query_of, shows
from notifyd.web.console.html import page
from notifyd.web.console.session import Visit
from notifyd.web.incidents import find_incidents
from notifyd.web.ops import find_audit

routes = web.RouteTableDef()


@shows(routes, "approvals")
async def get_approvals(visit: Visit) -> web.Response:
    found = await find_approvals(visit.request, visit.caller, query_of(visit))
    return page(visit, "approvals", found=found, statuses=tuple(Status))


@shows(routes, "approvals/{run_id}/{approval_id}")
async def get_approval(visit: Visit) -> web.Response:
    approval = await find(visit.request, key_of(visit.request, visit.caller.only_tenant()))
    told = await with_history(approval, visit.services.store, visit.registry)
    return page(visit, "approval", approval=told)


@shows(routes, "incidents")
async def get_incidents(visit: Visit) -> web.Response:
    found = await find_incidents(visit.request, visit.caller, query_of(visit))
    return page(visit, "incidents", found=found)


@shows(routes, "audit")
async def get_audit(visit: Visit) -> web.Response:
    return page(visit, "audit", found=await find_audit(visit.request, visit.caller, query_of(visit)))
