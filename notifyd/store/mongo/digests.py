"""Folding a window into its digest.

Rows are marked first, then the digest is inserted, then what is marked is folded. So a digest that is stored
stands for marked rows only, and whoever finds a window half-way folded can tell what the digest has told of
from what came too late for it.
"""

from __future__ import annotations

from collections.abc import Collection as Ids

from notifyd.model import Delivery, Instant
from notifyd.store import Window
from notifyd.store.mongo import deliveries, windows
from notifyd.store.mongo.base import Base


async def fold(base: Base, window: Window, digest: Delivery, ids: Ids[str] | None, now: Instant) -> int:
    """How many rows were folded; none where another node has inserted this digest, which sends it too."""
    await windows.close(base, window)
    ours = await _is_ours(base, digest)
    if ours is not False:
        await windows.mark(base, window, digest, ids)
    if ours is None:
        await deliveries.insert(base, [digest])
        ours = await _is_ours(base, digest)
    folded = await windows.fold_marked(base, window, digest, now)
    if ours:
        return folded
    await windows.let_go_rest(base, window, digest, ids, now)
    return 0


async def _is_ours(base: Base, digest: Delivery) -> bool | None:
    """Is the digest that is stored under this id leased as this one, so this node's? None where there is none."""
    stored = await deliveries.find(base, digest.tenant, digest.id)
    return None if stored is None else stored.lease_owner == digest.lease_owner
