"""The aiohttp application: one file for each resource, one middleware around them all.

In: HTTP requests. Out: answers as the contract says, problem documents, the approver's pages.
"""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Final, cast

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from notifyd.web import approvals, channels, dead, deliveries, ingest, keys, ops, pages, purge
from notifyd.web.body import BODY_TIMEOUT
from notifyd.web.edge import Edge, Guard
from notifyd.web.listener import Listener, listening_sockets
from notifyd.web.ops import READINESS, Readiness
from notifyd.web.refusals import Refusals
from notifyd.web.services import SERVICES, Services

__all__ = ["SERVICES", "Services", "create_app", "listening_sockets", "serving"]

_GUARDS: Final = {
    pages.PATH: Guard.OPEN,
    "/healthz": Guard.OPEN,
    "/readyz": Guard.OPEN,
    "/openapi.json": Guard.OPEN,
    "/.well-known/notifyd/jwks.json": Guard.OPEN,
    "/metrics": Guard.METRICS,
}


_ALERTED: Final = ("200", "500", "503")
"""Statuses that begin at zero for each path, so that a first one is a change one can alert on."""


def _is_ours(record: logging.LogRecord) -> bool:
    """Is a server's log record about more than a caller's broken HTTP?"""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError)


_server_log: Final = logging.getLogger("notifyd.web.server")
_server_log.addFilter(_is_ours)


def create_app(services: Services, *, body_timeout: float = 10.0) -> web.Application:
    """The application. `body_timeout` is in seconds."""
    refusals = Refusals(services.store, services.clock, services.metrics)
    edge = Edge(services, refusals, _GUARDS, {pages.PATH: pages.render_problem})
    app = web.Application(middlewares=[edge.pass_through])
    app[SERVICES] = services
    app[BODY_TIMEOUT] = body_timeout
    app[READINESS] = Readiness(services.ready, services.draining)
    for resource in (ingest, approvals, deliveries, dead, channels, purge, keys, ops, pages):
        app.add_routes(resource.routes)

    for declared in app.router.resources():
        for status in _ALERTED:
            services.metrics.http_request(declared.canonical, status)

    async def finish_refusals(_: web.Application) -> AsyncIterator[None]:
        yield
        await refusals.aclose()

    app.cleanup_ctx.append(finish_refusals)
    return app


@asynccontextmanager
async def serving(
    app: web.Application,
    sockets: Sequence[socket.socket],
    tls: Callable[[], ssl.SSLContext | None] = lambda: None,
    *,
    lingering: float = 2.0,
) -> AsyncIterator[None]:
    """A server for `app` at `sockets`, with bounds on what it reads.

    A request line and a header have 8 KiB at most, and a request 128 headers. `tls` gives the context that new
    handshakes are answered with. At the end, requests under way are given a second. A caller whose body is refused
    unread may go on sending for `lingering` seconds, so that it sees the answer. There is no access log, which
    would hold the approvers' links. What is not HTTP at all aiohttp answers with a plain 400; that is not logged
    either, because its log would quote the bytes.
    """
    runner = web.AppRunner(
        app,
        access_log=None,
        logger=_server_log,
        auto_decompress=False,
        keepalive_timeout=75.0,
        lingering_time=lingering,
        max_field_size=8190,
        max_headers=128,
        max_line_size=8190,
        shutdown_timeout=1.0,
    )
    await runner.setup()
    try:
        async with aclosing(Listener(sockets, cast(web.Server, runner.server), tls)):
            yield
    finally:
        await runner.cleanup()
