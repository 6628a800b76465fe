"""Which nodes share this database: one document of `nodes` for each, under its name.

A node's document says which *life* of it (a process) has the name, how many beats that has given, and until when
it counts as alive, by the database's clock. Every write is conditional on what was seen of these, so that of two
lives under one name only one goes on. A TTL index removes the document of a node that is long gone.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any, Final

from pymongo.errors import DuplicateKeyError, OperationFailure

from notifyd.errors import StoreInUseError
from notifyd.model import SECOND, Instant
from notifyd.store.mongo.base import Base, date_of
from notifyd.store.mongo.driver import Document
from notifyd.store.mongo.schema import REMEMBERED

_LOOK: Final = 0.2
"""Seconds between looks at a node that may be alive."""

_PATIENCE: Final = 30.0
"""The longest wait for an earlier life's end, in seconds, whatever its clock has written."""

_log = logging.getLogger("notifyd.store")


async def begin(base: Base) -> None:
    """Take this node's name for this life. Raises `StoreInUseError` where another process lives under it.

    An earlier life that did not end cleanly is waited for until it would count as dead: one that beats
    meanwhile is alive.
    """
    await base.server_clock.measure()
    found = await base.nodes.find_one({"_id": base.node})
    if found is not None:
        await _outlive(base, found)
    seen = _seen(found or {})
    fresh = {"life": base.life, "beats": 0, "alive_until": 0, "probed_at": base.clock(), **_kept(base)}
    try:
        await base.nodes.update_one({"_id": base.node, **seen}, {"$set": fresh}, upsert=True)
    except DuplicateKeyError:
        raise _in_use(base) from None
    if found is not None:
        await _abort(base, found)


def _kept(base: Base) -> dict[str, Any]:
    """What a node's document has of each beat: when it may be forgotten, and the sessions of its transactions."""
    forgotten_at = date_of(base.server_clock.now()) + REMEMBERED
    return {"forgotten_at": forgotten_at, "sessions": base.connection.session_ids}


def _seen(found: Document) -> dict[str, Any]:
    return {"life": found.get("life"), "beats": found.get("beats")}


async def _outlive(base: Base, found: Document) -> None:
    until = found.get("alive_until")
    left = (until - base.server_clock.now()) / SECOND if isinstance(until, int) else 0
    if left <= 0:
        return
    _log.info("node %r has not stopped cleanly: waiting until it would be dead", base.node)
    end = time.monotonic() + min(left, _PATIENCE)
    while time.monotonic() < end:
        await asyncio.sleep(_LOOK)
        now = await base.nodes.find_one({"_id": base.node})
        if now is None:
            return  # it has stopped cleanly since
        if _seen(now) != _seen(found):
            raise _in_use(base)


def _in_use(base: Base) -> StoreInUseError:
    return StoreInUseError(
        f"MongoDB database {base.connection.name}: another process lives as node {base.node!r}; "
        "each needs a server.node of its own"
    )


async def beat(base: Base, now: Instant, until: Instant) -> int:
    """How many nodes are alive, after this one has shown that it is. Raises `StoreInUseError`."""
    await base.server_clock.trusted()  # measures, from time to time
    mine = {"_id": base.node, "life": base.life}
    alive = {
        "$set": {"alive_until": base.server_clock.by_server(until), **_kept(base)},
        "$inc": {"beats": 1},
    }
    try:
        await base.nodes.update_one(mine, alive, upsert=True)
    except DuplicateKeyError:
        raise _in_use(base) from None
    await _abort_of_dead(base, now)
    living = {"alive_until": {"$gt": base.server_clock.by_server(now)}}
    return max(1, len(await base.nodes.find(living, fields=["_id"])))


async def _abort_of_dead(base: Base, now: Instant) -> None:
    """End the transactions of nodes that are dead, once: all others would wait for what those hold."""
    dead = {
        "alive_until": {"$gt": 0, "$lt": base.server_clock.by_server(now) + 1},
        "sessions.id": {"$exists": True},
    }
    for found in await base.nodes.find(dead):
        await _abort(base, found)
        await base.nodes.update_one({"_id": found["_id"], **_seen(found)}, {"$unset": {"sessions": ""}})


async def _abort(base: Base, found: Document) -> None:
    """End the transactions of a life that is over. One that only slept tries its own again."""
    try:
        await base.connection.kill_sessions(found.get("sessions", []))
    except OperationFailure as error:
        _log.warning("the transactions of node %r are left to their time (code %s)", found["_id"], error.code)


async def probe(base: Base) -> None:
    """Write something and see it durable."""
    fresh = {"life": base.life, "beats": 0, **_kept(base)}
    change = {"$set": {"probed_at": base.clock()}, "$setOnInsert": fresh}
    await base.nodes.update_one({"_id": base.node}, change, upsert=True)


async def leave(base: Base) -> None:
    """This life is over: its name is free, and the others count it no longer."""
    await base.nodes.delete_one({"_id": base.node, "life": base.life})
