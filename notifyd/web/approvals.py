"""Approvals: the list, one with its history, and deciding one by a machine's call."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from aiohttp import web
from multidict import MultiMapping

from notifyd import correlation
from notifyd.approval.ballots import Ballot
from notifyd.config.settings import Scope
from notifyd.errors import ActorNotAllowedError, Fault, InvalidError
from notifyd.flow.receipts import receipt_of
from notifyd.model import Approval, ApprovalKey, Instant, Status
from notifyd.registry.registry import Registry
from notifyd.security.names import name_fault
from notifyd.security.signing import ID_HEADER
from notifyd.store import ApprovalFilter, AuditFilter, Page, Store
from notifyd.tracing import trace_in
from notifyd.web.addresses import GATE
from notifyd.web.answers import approval_json, callback_reason, json_answer, json_bytes
from notifyd.web.auth import Caller, Signature, authorize, claimed_tenant, receive
from notifyd.web.body import read_json
from notifyd.web.changes import find_changed, not_modified, tagged, wait_of
from notifyd.web.lists import Found, Listing, choice_of
from notifyd.web.services import SERVICES
from notifyd.wire.audit import audit_json
from notifyd.wire.codec import invalid, pointer
from notifyd.wire.events import AckRequest, parse_ack

HISTORY: Final = 200
"""How many lines of its audit trail, and decisions of earlier rounds, an approval is shown with: the newest."""

routes = web.RouteTableDef()


@routes.get("/notifications/pack-approvals")
async def list_approvals(request: web.Request) -> web.Response:
    return (await find_approvals(request, authorize(request, Scope.READ))).answer()


async def find_approvals(
    request: web.Request, caller: Caller, query: MultiMapping[str] | None = None
) -> Found:
    listing = Listing.read(request, caller, {"status": choice_of(Status), "runId": str}, query=query)
    where = ApprovalFilter(listing.values.get("status"), listing.values.get("runId"))
    rows, after = await request.app[SERVICES].store.approvals(listing.tenant, where, listing.page)
    return listing.found([approval_json(row) for row in rows], after)


@routes.get("/notifications/pack-approvals/{run_id}/{approval_id}")
async def get_approval(request: web.Request) -> web.Response:
    """One approval, with its audit trail, oldest first, as its history; with `wait`, once it has changed."""
    caller = authorize(request, Scope.READ)
    key = key_of(request, caller.only_tenant())
    approval = await find_changed(request, key, caller.principal.name, wait_of(request))
    if not_modified(request, approval):
        return tagged(web.Response(status=304), approval)
    told = await with_history(approval, request.app[SERVICES].store, caller.registry)
    return tagged(json_answer(told), approval)


async def with_history(approval: Approval, store: Store, registry: Registry) -> dict[str, Any]:
    """All that is told of one. Raises `StoreError`."""
    where = AuditFilter(approval.run_id, approval.approval_id)
    records, _ = await store.audit(approval.tenant, where, Page(HISTORY))
    waits = await callback_reason(approval, store, registry)
    history = [audit_json(record) for record in reversed(records)]
    superseded = await store.superseded(approval.key, HISTORY) if approval.round > 1 else []
    return approval_json(approval, waits, superseded) | {"history": history}


@routes.get("/notifications/pack-approvals/{run_id}/{approval_id}/receipt")
async def get_receipt(request: web.Request) -> web.Response:
    """The signed receipt of its end, the same bytes each time."""
    caller = authorize(request, Scope.READ)
    key = key_of(request, caller.only_tenant())
    receipt = await receipt_of(key, request.app[SERVICES].store, caller.registry)
    return json_bytes(receipt.encode())


@routes.post("/notifications/pack-approvals/{run_id}/{approval_id}/ack")
async def post_ack(request: web.Request) -> web.Response:
    """Decide. The answer is that of `flow.decide`, byte for byte."""
    services = request.app[SERVICES]
    body, caller = await receive(request, Scope.APPROVE, Signature.TAKEN)
    document = read_json(request, body)
    caller.claim(claimed_tenant(document))
    ballot = _ballot(request, caller, document, services.clock())
    private, caller_trace = request[GATE].private(request), trace_in(request.headers)
    answer = await services.decisions.decide(ballot, private=private, caller=caller_trace)
    return json_bytes(answer)


def key_of(request: web.Request, tenant: str) -> ApprovalKey:
    return ApprovalKey(tenant, request.match_info["run_id"], request.match_info["approval_id"])


def _ballot(request: web.Request, caller: Caller, document: Any, now: Instant) -> Ballot:
    tenant = claimed_tenant(document)
    named = tenant if isinstance(tenant, str) else ""
    key = key_of(request, named or ("" if caller.signed else caller.only_tenant()))
    ack = _read_ack(document, key, caller.signed)
    principal = caller.principal
    actor = caller.registry.actors.of(principal, ack.actor)
    represented = _represented(key.tenant, ack.on_behalf_of, actor, caller.registry, now)
    return Ballot(
        tenant=key.tenant,
        run_id=key.run_id,
        approval_id=key.approval_id,
        choice=ack.decision,
        plan_hash=ack.plan_hash,
        actor=actor,
        comment=caller.registry.redactor.text(ack.comment or ""),
        via=principal.via,
        client=principal.name,
        grants=principal.grants,
        correlation_id=correlation.current.get(),
        round=ack.round,
        message_id=request.headers[ID_HEADER] if caller.signed else "",
        break_glass=ack.break_glass,
        inputs=ack.inputs,
        on_behalf_of=represented,
    )


def _represented(tenant: str, name: str | None, actor: str, registry: Registry, now: Instant) -> str:
    """The person of that name, for whom `actor` stands in; "" for none. Raises `ActorNotAllowedError`."""
    if name is None:
        return ""
    if not registry.is_deputy(tenant, actor, name, now):
        raise ActorNotAllowedError(f"{actor} does not stand in for the person it names")
    return registry.actors.canonical(name)


def _read_ack(document: Any, key: ApprovalKey, signed: bool) -> AckRequest:
    """What the body holds. Raises `InvalidError` with every fault of it."""
    others = list(_faults_here(document, key, signed)) if isinstance(document, dict) else []
    try:
        ack = parse_ack(document)
    except InvalidError as error:
        told = tuple(f"{fault.pointer}/" for fault in error.faults)
        others = [one for one in others if not f"{one.pointer}/".startswith(told)]
        raise invalid([*error.faults, *others]) from None
    if others:
        raise invalid(others)
    return ack


def _faults_here(document: dict[str, Any], key: ApprovalKey, signed: bool) -> Iterator[Fault]:
    """What the body says again must be what the path says; signed, it must say all. And names must be names."""
    said = {
        "/tenant/id": (claimed_tenant(document), key.tenant),
        "/runId": (document.get("runId"), key.run_id),
        "/approvalId": (document.get("approvalId"), key.approval_id),
    }
    for at, (given, path) in said.items():
        if given is None and signed:
            yield Fault(at, "is required where a signature proves it")
        elif given not in (None, path):
            yield Fault(at, "must be what the path says")
    for name in ("actor", "onBehalfOf"):
        given = document.get(name)
        if isinstance(given, str) and given and (fault := name_fault(given)):
            yield Fault(pointer(name), fault)
