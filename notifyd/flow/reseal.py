"""Which keys of `keys.seal` the rows are sealed under, and moving them to the first, so that others can go."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from functools import cache, partial
from typing import Final

from attrs import evolve, field, frozen

from notifyd.errors import SealError, UndecodableRowError
from notifyd.model import ApprovalKey, Delivery
from notifyd.registry.registry import Registry
from notifyd.security import resume_token
from notifyd.security.envelope import wrap_anew
from notifyd.security.links import MineLink
from notifyd.security.secrets import sealed_under
from notifyd.store import SEALED, CollectionName, Place, SealedRow, Store

_LOOK: Final = 500
"""Rows that are looked at at once."""

_WRITE: Final = 32
"""Rows that are written at once: others' reads and writes come in between."""


@frozen
class Resealed:
    """What a batch did to rows of a collection: how many it moved to the first key, and how many do not open.

    `next` is None at the end of all.
    """

    collection: CollectionName
    moved: int
    unreadable: int
    next: Place | None


@frozen
class KeyUse:
    """How many rows are sealed under one key, by collection: those that need it, and those that have ended."""

    needed: Counter[CollectionName] = field(factory=Counter)
    ended: Counter[CollectionName] = field(factory=Counter)


async def key_uses(store: Store) -> dict[str, KeyUse]:
    """Each key that rows are sealed under, by its id. It reads all of them, some at a time."""
    uses: dict[str, KeyUse] = {}
    key_of = cache(sealed_under)
    for collection in SEALED:
        after: str | None = ""
        while after is not None:
            rows, after = await store.sealed_rows(collection, after, _LOOK)
            for row in rows:
                if key := key_of(row.header):
                    use = uses.setdefault(key, KeyUse())
                    (use.needed if row.needed else use.ended)[collection] += 1
            await asyncio.sleep(0)
    return uses


class Reseal:
    """Seals rows anew under the first key. Whoever does it too, at the same time or again, does no harm.

    Each row is written only if it is still as it was read, so that what changes meanwhile is not undone.
    """

    def __init__(self, *, store: Store, current: Callable[[], Registry]) -> None:
        self._store = store
        self._current = current

    async def uses(self) -> dict[str, KeyUse]:
        """See `key_uses`. Raises `StoreError`."""
        return await key_uses(self._store)

    async def batches(self, place: Place | None = None) -> AsyncGenerator[Resealed, None]:
        """From `place` on, for as long as batches are asked for; after each it rests for as long as that took.

        Raises `StoreError`, and ValueError for a place that no batch has named.
        """
        loop, at = asyncio.get_running_loop(), place or Place(SEALED[0])
        while True:
            began = loop.time()
            batch = await self._batch(at)
            yield batch
            if batch.next is None:
                return
            at = batch.next
            await asyncio.sleep(loop.time() - began)

    async def _batch(self, at: Place) -> Resealed:
        rows, after = await self._store.sealed_rows(at.collection, at.after, _LOOK)
        registry = self._current()
        first = registry.keyring.sealing_id
        moved = unreadable = 0
        key_of = cache(sealed_under)
        old = [row for row in rows if key_of(row.header) != first]
        for start in range(0, len(old), _WRITE):
            some = old[start : start + _WRITE]
            done = await asyncio.gather(*(self._reseal(at.collection, row, registry) for row in some))
            moved += done.count(True)
            unreadable += done.count(None)
        return Resealed(at.collection, moved, unreadable, at.next(after, SEALED))

    async def _reseal(self, collection: CollectionName, row: SealedRow, registry: Registry) -> bool | None:
        """Was the row moved? False where another was quicker, None where it does not open."""
        try:
            if collection is CollectionName.APPROVALS:
                return await self._reseal_token(ApprovalKey(row.tenant, *row.ids), registry)
            return await self._reseal_message(row, registry)
        except (SealError, UndecodableRowError):
            return None

    async def _reseal_token(self, key: ApprovalKey, registry: Registry) -> bool:
        while True:
            approval = await self._store.approval(key)
            token = approval.sealed_token if approval else None
            if approval is None or token is None or sealed_under(token) == registry.keyring.sealing_id:
                return False
            fresh = resume_token.keep_anew(registry.keyring, token)
            if await self._store.replace_approval(
                evolve(approval, sealed_token=fresh, version=approval.version + 1)
            ):
                return True

    async def _reseal_message(self, row: SealedRow, registry: Registry) -> bool:
        delivery = await self._store.delivery(row.tenant, *row.ids)
        if delivery is None or sealed_under(delivery.message) == registry.keyring.sealing_id:
            return False
        renew = partial(_renewed, delivery=delivery, registry=registry)
        fresh = wrap_anew(delivery.message, registry.keyring, renew)
        return await self._store.replace_message(delivery, fresh)


def _renewed(path: str, *, delivery: Delivery, registry: Registry) -> str:
    """A link of a message under the first key, so that one still to be sent works when the old key is gone.

    Only the links that its recipient was given, which confer no more than they did. A text may hold others, also
    ones that were forged with a key that has leaked: they stay as they are.
    """
    try:
        link = registry.links.read_path(path)
    except SealError:
        return path
    if isinstance(link, MineLink):
        own = (link.tenant, link.recipient) == (delivery.tenant, delivery.recipient)
    else:
        given = (link.tenant, link.rule) == (delivery.tenant, delivery.rule)
        own = given and link.recipient in (None, delivery.recipient)
    return registry.links.seal(link) if own else path
