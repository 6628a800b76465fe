"""The level of the log of the node that is asked: told, and changed until its next start."""

from __future__ import annotations

import logging

from aiohttp import web
from attrs import frozen

from notifyd.config.settings import Scope
from notifyd.levels import LogLevel, get_level, set_level
from notifyd.web.answers import json_answer
from notifyd.web.auth import authorize
from notifyd.web.body import read_body, read_json
from notifyd.wire.records import structure

log = logging.getLogger(__name__)

routes = web.RouteTableDef()


@frozen
class LogLevelRequest:
    """The level that is wanted."""

    level: LogLevel


@routes.get("/api/v1/log-level")
async def get_log_level(request: web.Request) -> web.Response:
    authorize(request, Scope.OPERATE)
    return json_answer({"level": get_level().value})


@routes.post("/api/v1/log-level")
async def set_log_level(request: web.Request) -> web.Response:
    caller = authorize(request, Scope.OPERATE)
    body = await read_body(request, caller.registry.settings.server.max_body)
    wanted, before = structure(read_json(request, body), LogLevelRequest).level, get_level()
    set_level(wanted)
    log.warning("the log's level is %s, and was %s: %s asked for it", wanted, before, caller.principal.name)
    return json_answer({"level": wanted.value})
