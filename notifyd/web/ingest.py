"""Events coming in: Task Runner's, and any other as CloudEvents 1.0."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from time import perf_counter
from typing import Any, Final

from aiohttp import web

from notifyd import correlation
from notifyd.config.settings import Scope
from notifyd.errors import Fault, InvalidError, UnauthenticatedError, UnsupportedMediaError
from notifyd.flow.arrival import Posted
from notifyd.flow.ingest import Ingest
from notifyd.tracing import NO_TRACER, PARENT, Role, Span, Trace, Tracer, Unrecorded, trace_in
from notifyd.web.answers import json_answer
from notifyd.web.auth import Caller, Signature, claimed_tenant, receive
from notifyd.web.body import JSON, read_json
from notifyd.web.problems import describe
from notifyd.web.services import SERVICES, Services
from notifyd.wire.codec import Document, loads, pointer
from notifyd.wire.events import (
    MAX_BATCH,
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
    with _recorded(request, services) as span:
        body, caller = await receive(request, Scope.INGEST, Signature.REQUIRED)
        document = read_json(request, body)
        caller.claim(claimed_tenant(document))
        try:
            event = parse_pack_event(document)
        except InvalidError as error:
            raise services.ingest.all_faults(error, document, caller.principal) from None
        accepted = await services.ingest.pack_event(
            event, document, caller.principal, correlation.current.get(), span.trace
        )
        return _answer(span, accepted.answer, fresh=accepted.fresh)


@routes.post("/api/v1/events")
async def post_cloud_events(request: web.Request) -> web.Response:
    """Accept CloudEvents: one in structured or binary mode, or a batch. 202 if any is new, else 200."""
    services = request.app[SERVICES]
    with _recorded(request, services) as span:
        body, caller = await receive(request, Scope.INGEST, Signature.TAKEN)
        if request.content_type == BATCH:
            return await _accept_batch(services, caller, loads(body), span)
        document = _one_event(request, body, caller)
        _claim([document], caller)
        try:
            event = parse_cloud_event(document)
            tenant = _tenant_of(event, caller)
        except InvalidError as error:
            raise _with_others(error, [("", document)], caller, services.ingest) from None
        if PARENT in document:
            span.link(trace_in(document))
        accepted = await services.ingest.cloud_event(
            event, document, tenant, caller.principal, correlation.current.get(), span.trace
        )
        return _answer(span, accepted.answer, fresh=accepted.fresh)


class _Timed(Unrecorded):
    """The time of a request as a metric."""

    def __init__(self, services: Services, trace: Trace) -> None:
        super().__init__(trace)
        self._seconds = services.metrics.ingest_seconds

    def __enter__(self) -> Span:
        self._began = perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self._seconds.observe(perf_counter() - self._began)


def _recorded(request: web.Request, services: Services) -> AbstractContextManager[Span]:
    """The time of a request, as a metric and as a span: a child of the sender's that is named in its headers.

    https://opentelemetry.io/docs/specs/semconv/http/http-spans/#http-server says what it is called and bears.
    """
    timed = _Timed(services, trace_in(request.headers))
    # Facts that nobody hears would be gathered for each event.
    return timed if services.tracer is NO_TRACER else _span(request, services.tracer, timed)


@contextmanager
def _span(request: web.Request, tracer: Tracer, timed: _Timed) -> Iterator[Span]:
    facts = {
        "http.request.method": request.method,
        "http.route": request.path,
        "url.path": request.path,
        "url.scheme": request.scheme,
    }
    with timed, tracer.span(f"{request.method} {request.path}", Role.SERVER, timed.trace, facts) as span:
        try:
            yield span
        except Exception as error:
            problem = describe(error)
            span.note({"http.response.status_code": problem.status, "notifyd.outcome": problem.code})
            if problem.status >= 500:
                span.fail(problem.code)
            raise


def _answer(span: Span, answer: Any, *, fresh: bool) -> web.Response:
    status = 202 if fresh else 200
    span.note({"http.response.status_code": status, "notifyd.outcome": "accepted" if fresh else "duplicate"})
    return json_answer(answer, status)


def _one_event(request: web.Request, body: bytes, caller: Caller) -> Any:
    """The document that a request in structured or binary mode carries."""
    if request.content_type == STRUCTURED:
        return loads(body)
    if "ce-specversion" in request.headers:
        if caller.alone:
            raise UnauthenticatedError(
                "a signature does not cover the headers: binary mode takes a bearer token or a client certificate"
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


_NO_TENANT: Final = "is required where a signature proves who is calling"


def _tenant_of(event: CloudEvent, caller: Caller) -> str:
    if event.tenant is not None:
        return event.tenant
    if caller.signed:
        raise InvalidError([Fault("/tenant", _NO_TENANT)])
    return caller.only_tenant()


# --- batches -----------------------------------------------------------------------------------------------


def _tenants_of(events: Sequence[CloudEvent], caller: Caller) -> list[str]:
    """Raises one error with each event that has to name its tenant."""
    unnamed = [index for index, event in enumerate(events) if event.tenant is None]
    if unnamed and caller.signed:
        raise InvalidError([Fault(pointer(index, "tenant"), _NO_TENANT) for index in unnamed])
    return [_tenant_of(event, caller) for event in events]


def _with_others(
    error: InvalidError, documents: Sequence[tuple[str, Any]], caller: Caller, ingest: Ingest
) -> InvalidError:
    """`error` about events, each with its place, and what the clock and the way of proof refuse besides."""
    read = [(base, one) for base, one in documents if type(one) is dict]
    unnamed = [base for base, one in read if caller.signed and one.get("tenant") is None]
    others = [*ingest.time_faults(read), *(Fault(f"{base}/tenant", _NO_TENANT) for base in unnamed)]
    told = {fault.pointer for fault in error.faults}
    return InvalidError([*error.faults, *(one for one in others if one.pointer not in told)])


async def _accept_batch(services: Services, caller: Caller, documents: Any, span: Span) -> web.Response:
    """Validate all, then accept all in one step of the store, or none."""
    _claim(documents if isinstance(documents, list) else [], caller)
    try:
        events = parse_cloud_events(documents)
        tenants = _tenants_of(events, caller)
    except InvalidError as error:
        members = documents[:MAX_BATCH] if isinstance(documents, list) else []
        placed = [(pointer(index), one) for index, one in enumerate(members)]
        raise _with_others(error, placed, caller, services.ingest) from None
    batch = list(map(Posted, events, map(Document.of, documents), tenants))
    for document in documents:
        span.link(trace_in(document))
    accepted = await services.ingest.cloud_events(
        batch, caller.principal, correlation.current.get(), span.trace
    )
    answer = {"items": [each.answer for each in accepted]}
    return _answer(span, answer, fresh=any(each.fresh for each in accepted))
