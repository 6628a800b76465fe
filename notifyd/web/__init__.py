"""The aiohttp application: one file for each resource, one middleware around them all.

In: HTTP requests. Out: answers as the contract says, problem documents, the approver's pages, the operators'
console.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final, TypeAlias, cast

from aiohttp import HttpVersion10, HttpVersion11, hdrs, web
from aiohttp.web_exceptions import HTTPException

from notifyd import correlation
from notifyd.metrics import OTHER, Metrics
from notifyd.registry.provider import SIGNED_IN
from notifyd.web import (
    approvals,
    channels,
    console,
    dead,
    deliveries,
    inbound,
    incidents,
    ingest,
    keys,
    log_level,
    ops,
    pages,
    problems,
    purge,
    signed_in,
    silences,
)
from notifyd.web.addresses import CURRENT_GATE, CurrentGate
from notifyd.web.body import BODY_TIMEOUT, INTAKE, Intake
from notifyd.web.connections import PIECE, Connection, Door, Place
from notifyd.web.edge import Edge, Guard
from notifyd.web.http import Http, connection_of
from notifyd.web.listener import Listener, listening_sockets
from notifyd.web.ops import READINESS, SCRAPES, Readiness
from notifyd.web.pages import mine
from notifyd.web.refusals import Refusals
from notifyd.web.services import SERVICES, Services

__all__ = ["SERVICES", "Services", "create_app", "listening_sockets", "serving"]

_GUARDS: Final = {
    pages.PATH: Guard.OPEN,
    mine.PATH: Guard.OPEN,
    "/": Guard.OPEN,
    "/approvals": Guard.OPEN,
    SIGNED_IN: Guard.OPEN,
    inbound.PATH: Guard.OPEN,
    "/healthz": Guard.OPEN,
    "/readyz": Guard.OPEN,
    "/openapi.json": Guard.OPEN,
    "/.well-known/notifyd/jwks.json": Guard.OPEN,
    "/metrics": Guard.METRICS,
}


_ALERTED: Final = ("200", "422", "500", "503")
"""Statuses that begin at zero for each path, so that a first one is a change one can alert on."""


_HTTP: Final[dict[str, Any]] = {
    "access_log": None,  # it would hold the approvers' links
    "auto_decompress": False,
    "keepalive_timeout": 75.0,
    "max_field_size": 8190,
    "max_headers": 128,
    "max_line_size": 8190,
    "read_bufsize": PIECE,
}

_PEOPLES: Final = {console.PATH: console.render_problem, "/approvals/": pages.render_problem}
"""Below these it is people who mistype an address, and follow old links: they get a page."""


def create_app(services: Services, *, body_timeout: float = 10.0) -> web.Application:
    """The application. `body_timeout` is in seconds."""
    refusals = Refusals(services.store, services.clock, services.metrics)
    gate = CurrentGate(lambda: services.current().settings.server)
    renderers = dict.fromkeys((pages.PATH, mine.PATH, SIGNED_IN), pages.render_problem) | console.renderers()
    edge = Edge(services, refusals, gate, _GUARDS | console.guards(), renderers, _PEOPLES)
    app = web.Application(middlewares=[edge.pass_through])
    app[SERVICES] = services
    app[CURRENT_GATE] = gate
    app[INTAKE] = Intake()
    app[BODY_TIMEOUT] = body_timeout
    app[console.ENDED] = console.Ended()
    app[READINESS] = Readiness(services.ready, services.draining)
    app[SCRAPES] = ThreadPoolExecutor(1, thread_name_prefix="metrics")
    for resource in (
        ingest,
        approvals,
        incidents,
        deliveries,
        dead,
        channels,
        inbound,
        purge,
        silences,
        keys,
        log_level,
        ops,
        pages,
        mine,
        signed_in,
        *console.RESOURCES,
    ):
        app.add_routes(map(_expecting, resource.routes))

    for declared in app.router.resources():
        for status in _ALERTED:
            services.metrics.http_request(declared.canonical, status)

    async def finish(_: web.Application) -> AsyncIterator[None]:
        yield
        await refusals.aclose()
        app[SCRAPES].shutdown(wait=False)

    app.cleanup_ctx.append(finish)
    return app


def _expecting(route: web.AbstractRouteDef) -> web.RouteDef:
    """The route without aiohttp's answer to `Expect`: whoever reads the body says that it may come."""
    assert isinstance(route, web.RouteDef)  # nosec B101 # noqa: S101 - told to mypy
    return web.RouteDef(route.method, route.path, route.handler, {**route.kwargs, "expect_handler": _expect})


async def _expect(request: web.Request) -> None:
    """Nothing yet."""


@asynccontextmanager
async def serving(
    app: web.Application,
    sockets: Sequence[socket.socket],
    tls: Callable[[], ssl.SSLContext | None] = lambda: None,
    *,
    lingering: float = 2.0,
) -> AsyncIterator[Listener]:
    """A server for `app` at `sockets`, with bounds on what it reads.

    A request line and a header have 8 KiB at most, and a request 128 headers. `tls` gives the context that new
    handshakes are answered with. At the end, requests under way are given a second. A caller whose body is refused
    unread may go on sending for `lingering` seconds, so that it sees the answer.
    """
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    server, loop = cast(web.Server, runner.server), asyncio.get_running_loop()
    server.request_handler = _answering(server.request_handler, app[SERVICES].metrics)
    door = Door(app[CURRENT_GATE], loop.time)

    def protocol(place: Place) -> Connection:
        http = Http(server, loop=loop, lingering_time=lingering, **_HTTP)
        http.connection, http.metrics = Connection(http, place, door), app[SERVICES].metrics
        return http.connection

    try:
        async with aclosing(Listener(sockets, protocol, door, tls, app[SERVICES].metrics)) as listener:
            yield listener
    finally:
        await runner.cleanup()


_VERSIONS: Final = (HttpVersion10, HttpVersion11)
_Handler: TypeAlias = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


def _answering(handler: _Handler, metrics: Metrics) -> _Handler:
    """With a problem document for what aiohttp refuses before its middlewares run, or would not refuse."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        try:
            if request.version not in _VERSIONS or request.method == hdrs.METH_CONNECT:
                connection_of(request).shut()
                raise web.HTTPBadRequest
            return await handler(request)
        except HTTPException as error:
            cid = correlation.begin(request.headers.get(correlation.HEADER))
            response = problems.respond(problems.describe(error), cid)
            metrics.http_request(OTHER, str(response.status)).inc()
            response.force_close()
            response.headers.update(problems.ALWAYS)
            return response

    return answer
