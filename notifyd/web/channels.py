"""The configured channels: their names and types, never what they are configured with."""

from __future__ import annotations

from aiohttp import web

from notifyd.model import RESUME_CHANNEL
from notifyd.settings import Scope
from notifyd.web.answers import json_answer
from notifyd.web.auth import authorize

routes = web.RouteTableDef()


@routes.get("/api/v1/channels")
async def list_channels(request: web.Request) -> web.Response:
    """All channels, by name. They belong to no tenant."""
    channels = authorize(request, Scope.READ).registry.channels
    items = [
        {"name": name, "type": channels[name].type} for name in sorted(channels) if name != RESUME_CHANNEL
    ]
    return json_answer({"items": items, "nextCursor": None})
