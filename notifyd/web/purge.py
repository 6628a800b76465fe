"""Removing by hand what the configuration says is too old: all tenants' rows, as the hourly pass would."""

from __future__ import annotations

import asyncio
import base64
import binascii
from contextlib import aclosing
from typing import Final

import orjson
from aiohttp import web
from attrs import frozen

from notifyd.config.settings import Scope
from notifyd.flow.retention import Place
from notifyd.security.secrets import Keyring
from notifyd.store import CollectionName
from notifyd.web.answers import json_answer
from notifyd.web.auth import authorize
from notifyd.web.body import read_body, read_json
from notifyd.web.problems import InvalidCursorError
from notifyd.web.services import SERVICES
from notifyd.wire.records import structure

_LABEL: Final = "purge-cursor"

WORK: Final = 1.0
"""Seconds that one request works for; the next one goes on."""

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
    place = None if asked.cursor is None else _open(registry.keyring, asked.cursor)
    removed, place = await _work(request, place, dry_run=asked.dry_run)
    cursor = None if place is None else _seal(registry.keyring, place)
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


def _seal(keyring: Keyring, place: Place) -> str:
    content = orjson.dumps([place.collection.value, place.after])
    return base64.urlsafe_b64encode(
        orjson.dumps([content.decode(), keyring.identify(_LABEL, content)])
    ).decode()


def _open(keyring: Keyring, cursor: str) -> Place:
    """Raises `InvalidCursorError`."""
    try:
        content, identity = orjson.loads(base64.urlsafe_b64decode(cursor))
        known = keyring.same(_LABEL, content.encode(), identity)
    except (binascii.Error, ValueError, TypeError, AttributeError):
        known = False
    if not known:
        raise InvalidCursorError("a cursor goes on with the purge it was given out for")
    collection, after = orjson.loads(content)
    return Place(CollectionName(collection), after)
