"""The keys of `keys.seal`: which rows need which, and moving them all to the first."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import aclosing
from typing import Any

from aiohttp import web
from attrs import frozen

from notifyd.config.settings import Scope
from notifyd.flow.reseal import KeyUse
from notifyd.security.secrets import Keyring
from notifyd.store import SEALED, CollectionName, Place
from notifyd.web.answers import json_answer
from notifyd.web.auth import authorize
from notifyd.web.body import read_body, read_json
from notifyd.web.places import WORK, open_place, seal_place
from notifyd.web.services import SERVICES
from notifyd.wire.records import structure

routes = web.RouteTableDef()


@frozen
class ResealRequest:
    """Where to go on."""

    cursor: str | None = None


@routes.get("/api/v1/keys")
async def get_keys(request: web.Request) -> web.Response:
    """The configured keys in their order, then those that rows name and the configuration does not."""
    keyring = authorize(request, Scope.OPERATE).registry.keyring
    uses = await request.app[SERVICES].reseal.uses()
    ids = [*keyring.ids, *sorted(uses.keys() - set(keyring.ids))]
    return json_answer({"keys": [_key_json(key, keyring, uses.get(key, KeyUse())) for key in ids]})


def _key_json(key: str, keyring: Keyring, use: KeyUse) -> dict[str, Any]:
    configured = "opens" if key in keyring.ids else "missing"
    return {
        "id": key,
        "use": "seals" if key == keyring.sealing_id else configured,
        "needed": _counts(use.needed),
        "ended": _counts(use.ended),
    }


def _counts(rows: Counter[CollectionName]) -> dict[str, int]:
    return {name.value: rows[name] for name in SEALED}


@routes.post("/api/v1/keys/reseal")
async def reseal(request: web.Request) -> web.Response:
    """Work for a second; `moved` has what this request has moved to the first key, by collection."""
    registry = authorize(request, Scope.OPERATE).registry
    body = await read_body(request, registry.settings.server.max_body)
    asked = structure(read_json(request, body), ResealRequest) if body else ResealRequest()
    first = registry.keyring.sealing_id
    label = f"reseal-cursor {first}"  # under another first key there is more to do
    moved, unreadable, place = await _work(request, open_place(registry.keyring, label, asked.cursor))
    cursor = seal_place(registry.keyring, label, place)
    return json_answer(
        {"key": first, "moved": _counts(moved), "unreadable": _counts(unreadable), "nextCursor": cursor}
    )


async def _work(
    request: web.Request, place: Place | None
) -> tuple[Counter[CollectionName], Counter[CollectionName], Place | None]:
    moved: Counter[CollectionName] = Counter()
    unreadable: Counter[CollectionName] = Counter()
    loop = asyncio.get_running_loop()
    end = loop.time() + WORK
    async with aclosing(request.app[SERVICES].reseal.batches(place)) as batches:
        async for batch in batches:
            moved[batch.collection] += batch.moved
            unreadable[batch.collection] += batch.unreadable
            if loop.time() >= end:
                return moved, unreadable, batch.next
    return moved, unreadable, None
