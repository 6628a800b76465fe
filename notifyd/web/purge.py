"""Removing by hand what the configuration says is too old: all tenants' rows, as the hourly pass would."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Final

from aiohttp import web
from attrs import frozen

from notifyd.config.settings import Scope
from notifyd.store import CollectionName, Place
from notifyd.web.answers import json_answer
from notifyd.web.auth import authorize
from notifyd.web.body import read_body, read_json
from notifyd.web.places import WORK, open_place, seal_place
from notifyd.web.services import SERVICES
from notifyd.wire.records import structure

_LABEL: Final = "purge-cursor"

routes = web.RouteTableDef()


@frozen
class PurgeRequest:
    """What to do, and where to go on."""

    dry_run: bool = False
    cursor: str | None = None


@routes.post("/api/v1/purge")
async def purge(request: web.Request) -> web.Response:
    """Work for a second; `removed` has what this request has removed, or would have, by collection."""
    registry = authorize(request, Scope.OPERATE).registry
    body = await read_body(request, registry.settings.server.max_body)
    asked = structure(read_json(request, body), PurgeRequest) if body else PurgeRequest()
    place = open_place(registry.keyring, _LABEL, asked.cursor)
    removed, place = await _work(request, place, dry_run=asked.dry_run)
    cursor = seal_place(registry.keyring, _LABEL, place)
    return json_answer({"dryRun": asked.dry_run, "removed": removed, "nextCursor": cursor})


async def _work(
    request: web.Request, place: Place | None, *, dry_run: bool
) -> tuple[dict[str, int], Place | None]:
    removed = dict.fromkeys((name.value for name in CollectionName), 0)
    loop = asyncio.get_running_loop()
    end = loop.time() + WORK
    async with aclosing(request.app[SERVICES].retention.batches(place, dry_run=dry_run)) as batches:
        async for batch in batches:
            removed[batch.collection] += batch.removed
            if loop.time() >= end:
                return removed, batch.next
    return removed, None
