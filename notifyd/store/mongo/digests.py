"""Folding a window into its digest.

The transaction that inserts the digest closes the window too, so that no row comes into it afterwards. Where the
digest stands for some of the rows only, it folds those as well: another node may have looked at more of them, or
at fewer. Else the rows are folded after it, however many they are; whoever finds a window whose digest is stored
folds what is left.
"""

from __future__ import annotations

from collections.abc import Collection as Ids
from functools import partial

from notifyd.model import Delivery, Instant
from notifyd.store import Window
from notifyd.store.mongo import deliveries, windows
from notifyd.store.mongo.base import Base


async def fold(base: Base, window: Window, digest: Delivery, ids: Ids[str] | None, now: Instant) -> int:
    """How many rows were folded; none of some of a window's where another node has inserted this digest."""
    insert = partial(_insert, window=window, digest=digest, ids=ids, now=now)
    folded = await base.transact(insert)
    return folded if ids is not None else await windows.fold(base, window, digest, None, now)


async def _insert(base: Base, window: Window, digest: Delivery, ids: Ids[str] | None, now: Instant) -> int:
    await windows.close(base, window)
    (fresh,) = await deliveries.insert_within(base, [digest])
    return await windows.fold(base, window, digest, ids, now) if fresh and ids is not None else 0
