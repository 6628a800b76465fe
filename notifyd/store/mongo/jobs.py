"""Jobs that one node does for all: one document of `jobs` for each, with who has it, and when it was last done.

Leases are as those of events and deliveries: stamped by the database's clock, free for others after their end and
the tolerance of clocks, and void where they end further ahead than anybody gives one for.
"""

from __future__ import annotations

from typing import Any

from pymongo.errors import DuplicateKeyError

from notifyd.model import Instant
from notifyd.store import Turn
from notifyd.store.mongo.base import LEASE_CEILING, Base


async def claim(
    base: Base, job: str, now: Instant, until: Instant, unless_done_since: Instant | None
) -> Turn:
    if not await base.server_clock.right():
        return Turn(mine=False)
    at = base.server_clock.by_server(now)
    free: list[dict[str, Any]] = [
        {"life": base.life},
        {"leased_until": {"$lt": at + 1}},
        {"leased_until": {"$gt": at + LEASE_CEILING}},
        {"leased_until": {"$not": {"$gte": 0}}},  # no time at all
    ]
    where: dict[str, Any] = {"_id": str(job), "$or": free}
    if unless_done_since is not None:
        where["done_at"] = {"$not": {"$gte": base.server_clock.by_server(unless_done_since)}}
    lease = {"node": base.node, "life": base.life, "leased_until": base.server_clock.lease_end(until)}
    try:
        await base.jobs.update_one(where, {"$set": lease, "$setOnInsert": {"done_at": 0}}, upsert=True)
    except DuplicateKeyError:
        return await _taken(base, job)
    return Turn(mine=True, node=base.node)


async def _taken(base: Base, job: str) -> Turn:
    found = await base.jobs.find_one({"_id": str(job)})
    return Turn(mine=False, node="" if found is None else str(found.get("node", "")))


async def end(base: Base, job: str, done_at: Instant | None) -> None:
    change: dict[str, Any] = {"leased_until": 0}
    if done_at is not None:
        change["done_at"] = base.server_clock.by_server(done_at)
    await base.jobs.update_one({"_id": str(job), "life": base.life}, {"$set": change})


async def void(base: Base) -> None:
    """End the leases of this node's earlier life."""
    await base.jobs.update_many({"node": base.node}, {"$set": {"leased_until": 0}})
