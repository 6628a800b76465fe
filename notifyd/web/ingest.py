"""Events coming in: Task Runner's, and any other as CloudEvents 1.0."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from aiohttp import hdrs, web

from notifyd.config.settings import Scope
from notifyd.errors import (
    ConflictError,
    Fault,
    FaultsError,
    InvalidError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedMediaError,
)
from notifyd.flow.ingest import Accepted
from notifyd.web import correlation
from notifyd.web.answers import json_answer
from notifyd.web.auth import Caller, Signature, authorize, claimed_tenant
from notifyd.web.body import JSON, read_body, read_json
from notifyd.web.services import SERVICES, Services
from notifyd.wire.codec import loads, pointer
from notifyd.wire.events import (
    CloudEvent,
    parse_cloud_event,
    parse_cloud_events,
    parse_pack_event,
    structured_form,
)

STRUCTURED: Final = "application/cloudevents+json"
BATCH: Final = "application/cloudevents-batch+json"

routes = web.RouteTableDef()


@routes.post("/notifications/pack-approvals")
async def post_pack_event(request: web.Request) -> web.Response:
    """Accept one of Task Runner's events: 202, or 200 for a duplicate."""
    services = request.app[SERVICES]
    with services.metrics.ingest_seconds.time():
        body, caller = await _receive(request, Signature.REQUIRED)
        document = read_json(request, body)
        caller.claim(claimed_tenant(document))
        event = parse_pack_event(document)
        accepted = await services.ingest.pack_event(
            event, document, caller.principal, correlation.current.get()
        )
    return json_answer(accepted.answer, 202 if accepted.fresh else 200)


@routes.post("/api/v1/events")
async def post_cloud_events(request: web.Request) -> web.Response:
    """Accept CloudEvents: one in structured or binary mode, or a batch. 202 if any is new, else 200."""
    services = request.app[SERVICES]
    with services.metrics.ingest_seconds.time():
        body, caller = await _receive(request, Signature.TAKEN)
        if request.content_type == BATCH:
            return await _accept_batch(services, caller, loads(body))
        document = _one_event(request, body)
        _claim([document], caller)
        event = parse_cloud_event(document)
        tenant = _tenant_of(event, caller)
        accepted = await services.ingest.cloud_event(
            event, document, tenant, caller.principal, correlation.current.get()
        )
    return json_answer(accepted.answer, 202 if accepted.fresh else 200)


async def _receive(request: web.Request, signature: Signature) -> tuple[bytes, Caller]:
    limit = request.app[SERVICES].current().settings.server.max_body
    body = await read_body(request, limit)
    return body, authorize(request, Scope.INGEST, body, signature)


def _one_event(request: web.Request, body: bytes) -> Any:
    """The document that a request in structured or binary mode carries."""
    if request.content_type == STRUCTURED:
        return loads(body)
    if "ce-specversion" in request.headers:
        if hdrs.AUTHORIZATION not in request.headers:
            raise UnauthenticatedError(
                "a signature does not cover the headers: binary mode takes a bearer token"
            )
        return structured_form(request.headers, body)
    if request.content_type == JSON:
        return loads(body)
    raise UnsupportedMediaError(
        f"send {STRUCTURED}, {BATCH}, {JSON}, or the event's attributes as ce- headers"
    )


def _claim(documents: Sequence[Any], caller: Caller) -> None:
    for document in documents:
        if isinstance(document, dict):
            caller.claim(document.get("tenant"))


def _tenant_of(event: CloudEvent, caller: Caller, base: str = "") -> str:
    if event.tenant is not None:
        return event.tenant
    if caller.signed:
        raise InvalidError([Fault(f"{base}/tenant", "is required where a signature proves who is calling")])
    return caller.only_tenant()


# --- batches -----------------------------------------------------------------------------------------------


async def _accept_batch(services: Services, caller: Caller, documents: Any) -> web.Response:
    """Validate all, then accept all at once, so that they share the store's commits."""
    _claim(documents if isinstance(documents, list) else [], caller)
    events = parse_cloud_events(documents)
    tenants = [_tenant_of(event, caller, pointer(index)) for index, event in enumerate(events)]
    _check_times(services, events)
    cid = correlation.current.get()
    results = await asyncio.gather(
        *(
            services.ingest.cloud_event(event, document, tenant, caller.principal, cid)
            for event, document, tenant in zip(events, documents, tenants, strict=True)
        ),
        return_exceptions=True,
    )
    _raise_worst(results)
    accepted = [each for each in results if isinstance(each, Accepted)]
    status = 202 if any(each.fresh for each in accepted) else 200
    return json_answer({"items": [each.answer for each in accepted]}, status)


def _check_times(services: Services, events: Sequence[CloudEvent]) -> None:
    """A batch is taken whole or not at all: one event out of time leaves none of the others stored."""
    for index, event in enumerate(events):
        try:
            services.ingest.check_time(event)
        except FaultsError as error:
            raise _at(index, error) from None


def _raise_worst(results: Sequence[Accepted | BaseException]) -> None:
    """Raise the fault the sender is to hear of: first one that a repeat can mend, as a repeat is safe."""
    failed = [(index, each) for index, each in enumerate(results) if isinstance(each, BaseException)]
    if failed:
        index, error = min(failed, key=lambda pair: not isinstance(pair[1], UnavailableError))
        raise _at(index, error)


def _at(index: int, error: BaseException) -> BaseException:
    """The fault of one event of a batch, with its place."""
    if isinstance(error, FaultsError):
        return type(error)([Fault(pointer(index) + f.pointer, f.message) for f in error.faults])
    if isinstance(error, ConflictError):
        return type(error)(f"event {index} of the batch: {error.detail}")
    return error
