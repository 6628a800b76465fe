"""What every request passes: the correlation id, the address check, and problems in place of exceptions.

One middleware, because each costs every request.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Final, TypeAlias

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler
from aiohttp.web_exceptions import HTTPException
from multidict import istr

from notifyd.errors import (
    ChannelFailedError,
    ForbiddenError,
    StoppingError,
    UnauthenticatedError,
    UnavailableError,
    UndecodableRowError,
)
from notifyd.metrics import OTHER
from notifyd.registry.registry import Registry
from notifyd.web import correlation, problems
from notifyd.web.addresses import GATE, Gate
from notifyd.web.auth import PRINCIPAL, bearer_token
from notifyd.web.problems import Problem
from notifyd.web.refusals import Refusals
from notifyd.web.services import Services

log = logging.getLogger(__name__)


class Guard(Enum):
    """Which allowlist stands before a resource. A resource that names none is for machines."""

    MACHINE = "ip_allowlist"
    METRICS = "metrics_allowlist"
    OPEN = "none"


Renderer: TypeAlias = Callable[[web.Request, Problem, Registry], web.Response]
"""Writes a problem as an answer: as a problem document, or, for people, as a page."""

_ALWAYS: Final = {
    hdrs.SERVER: "notifyd",
    hdrs.CACHE_CONTROL: "no-store",
    istr("X-Content-Type-Options"): "nosniff",
}

_READING: Final = frozenset({hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_OPTIONS})
"""What goes on while the daemon is being stopped: nothing else may bring it work."""

_FORESEEN: Final = (ChannelFailedError, UnavailableError, UndecodableRowError, HTTPException)
"""What is no fault of this code, though its status is above 499."""


class Edge:
    """The middleware. `guards` and `renderers` are by a resource's canonical path, such as `/healthz`."""

    def __init__(
        self,
        services: Services,
        refusals: Refusals,
        guards: Mapping[str, Guard],
        renderers: Mapping[str, Renderer],
    ) -> None:
        self._services = services
        self._refusals = refusals
        self._guards = guards
        self._renderers = renderers
        self._gate = Gate(services.current().settings.server)

    @web.middleware
    async def pass_through(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        cid = correlation.begin(request.headers.get(correlation.HEADER))
        registry, where = self._services.current(), _canonical(request)
        gate = request[GATE] = self._gate_of(registry)
        try:
            if (guard := self._guards.get(where, Guard.MACHINE)) is not Guard.OPEN:
                gate.admit(request, metrics=guard is Guard.METRICS)
                if token := bearer_token(request.headers):
                    await registry.tokens.prepare(token)
            if request.method not in _READING and self._services.draining():
                raise StoppingError
            response = await handler(request)
        except Exception as error:  # noqa: BLE001 - whatever it is, it becomes a problem document
            problem = _describe(error, where)
            if isinstance(error, UnauthenticatedError | ForbiddenError):
                address = str(gate.caller(request))
                self._refusals.note(problem, request.get(PRINCIPAL), where, address, cid)
            render = self._renderers.get(where, _document)
            response = render(request, problem, registry)
        response.headers.update(_ALWAYS)
        response.headers[correlation.HEADER] = cid
        self._services.metrics.http_request(where or OTHER, str(response.status)).inc()
        return response

    def _gate_of(self, registry: Registry) -> Gate:
        """The gate of the configuration in force, built anew only when that changes."""
        if self._gate.server is not registry.settings.server:
            self._gate = Gate(registry.settings.server)
        return self._gate


def _canonical(request: web.Request) -> str:
    """The resource's path as it was declared, "" where there is none: fit for a log, as a raw path is not."""
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else ""


def _describe(error: Exception, where: str) -> Problem:
    problem = problems.describe(error)
    if problem.status >= 500 and not isinstance(error, _FORESEEN):
        log.error("%s failed", where or "a request", exc_info=error)
    return problem


def _document(request: web.Request, problem: Problem, registry: Registry) -> web.Response:
    return problems.respond(problem, correlation.current.get(), registry.redactor.text)
