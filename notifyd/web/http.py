"""aiohttp's protocol of one connection, as it is used here: broken HTTP gets an answer that quotes none of it."""

from __future__ import annotations

import logging
import os
from typing import Any, Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from notifyd.metrics import OTHER, Metrics
from notifyd.web import problems
from notifyd.web.connections import Connection
from notifyd.web.problems import Problem

log = logging.getLogger("notifyd.web.server")

_CODE, _DETAIL = problems.MALFORMED
_BROKEN: Final = Problem(400, _CODE, "The request is not valid HTTP", _DETAIL)
_FAILED: Final = Problem(500, "internal", "Something went wrong here", problems.IN_THE_LOG)


class Http(web.RequestHandler):
    """`connection` is what stands between this and the transport."""

    connection: Connection
    metrics: Metrics

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what never became a request. It ends the connection."""
        broken = isinstance(exc, HttpProcessingError)
        if not broken:
            log.error("a connection failed", exc_info=exc)
        elif exc is not None:
            exc.__traceback__ = (
                None  # it leads to what was read, in a circle that only the collector would find
            )
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun already")
        response = problems.respond(_BROKEN if broken else _FAILED, os.urandom(16).hex())
        self.metrics.http_request(OTHER, str(response.status)).inc()
        response.headers.update(problems.ALWAYS)
        response.force_close()
        return response


def connection_of(request: web.BaseRequest) -> Connection:
    protocol: Any = request.protocol
    connection: Connection = protocol.connection
    return connection
