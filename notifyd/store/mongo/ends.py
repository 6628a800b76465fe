"""Group commit of the ends of attempts: what many attempts record at once is one transaction, not one for each.

An end that sets off an event, or is a callback's, has a transaction of its own: others may write to its approval.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Final

from attrs import define, field
from pymongo.errors import ConnectionFailure, PyMongoError

from notifyd.store import AttemptRecord
from notifyd.store.mongo import approvals, audit, deliveries, events
from notifyd.store.mongo.base import Base
from notifyd.store.mongo.batches import Batches

_BATCH: Final = 64


class _LeaseLostError(Exception):
    """Not every row of a batch is leased as its record says."""


@define(eq=False)
class _Entry:
    record: AttemptRecord
    kept: asyncio.Future[bool]


@define(eq=False)
class Ends:
    """Records ends. Used on one event loop."""

    base: Base
    _entries: dict[tuple[str, str], _Entry] = field(factory=dict)  # waiting or under way, by the delivery
    _limit: int = _BATCH
    _batches: Batches[_Entry] = field(init=False)

    @_batches.default
    def _made(self) -> Batches[_Entry]:
        return Batches(self._write)

    async def record(self, record: AttemptRecord) -> bool:
        """See `Store.record`. Raises the driver's errors."""
        if record.event is not None or record.resume is not None or record.delivery.lease_owner is None:
            return await _alone(self.base, record)
        entry = self._entries.get(_key(record))
        if entry is None or entry.record != record:
            entry = self._add(record)
        # A caller whose time is up comes back with the same record, and finds it here or written.
        return await asyncio.shield(entry.kept)

    def _add(self, record: AttemptRecord) -> _Entry:
        entry = self._entries[_key(record)] = _Entry(record, asyncio.get_running_loop().create_future())
        self._batches.add([entry])
        return entry

    async def settled(self) -> None:
        """Nothing is under way any more."""
        await self._batches.settled()

    async def _write(self, waiting: deque[_Entry]) -> None:
        batch = [waiting.popleft() for _ in range(min(len(waiting), self._limit))]
        try:
            if len(batch) == 1 or not await self._together(batch):
                for entry in batch:
                    await _settle(self.base, entry)
        finally:
            for entry in batch:
                if self._entries.get(_key(entry.record)) is entry:
                    del self._entries[_key(entry.record)]

    async def _together(self, batch: Sequence[_Entry]) -> bool:
        """Write a batch in one transaction. False: each has to be written by itself, as one of them cannot be."""
        try:
            await self.base.transact(partial(_all_within, records=[entry.record for entry in batch]))
        except Exception as error:  # noqa: BLE001 - whatever it is, one of them brings it on, or all are late
            if not _is_late(error):
                return False
            # A store that is too slow for this many is asked for fewer, so that some get through.
            self._limit = max(1, len(batch) // 2)
            for entry in batch:
                _fail(entry, error)
            return True
        self._limit = min(_BATCH, 2 * self._limit)
        for entry in batch:
            entry.kept.set_result(True)
        return True


def _is_late(error: Exception) -> bool:
    """Would each of a batch have met it? The server was not reached, or others were in the way for too long."""
    return isinstance(error, ConnectionFailure) or (
        isinstance(error, PyMongoError)
        and (error.timeout or error.has_error_label("TransientTransactionError"))
    )


async def _settle(base: Base, entry: _Entry) -> None:
    try:
        entry.kept.set_result(await _alone(base, entry.record))
    except Exception as error:  # noqa: BLE001 - it is its caller's
        _fail(entry, error)


def _fail(entry: _Entry, error: Exception) -> None:
    entry.kept.set_exception(error)
    entry.kept.exception()  # has been looked at, though its caller may have gone away


def _key(record: AttemptRecord) -> tuple[str, str]:
    return record.delivery.tenant, record.delivery.id


# --- the writes --------------------------------------------------------------------------------------------


async def _alone(base: Base, record: AttemptRecord) -> bool:
    if record.audit or record.event is not None or record.resume is not None:
        return await base.transact(partial(_one_within, record=record))
    return await deliveries.record_end(base, record)


async def _one_within(base: Base, record: AttemptRecord) -> bool:
    if not await deliveries.record_end(base, record):
        return False
    await audit.write_within(base, record.audit)
    if record.event is not None:
        await events.insert_within(base, record.event, record.delivery.lease_until)
    if record.resume is not None:
        await approvals.set_resume(base, record.delivery, record.resume)
    return True


async def _all_within(base: Base, records: Sequence[AttemptRecord]) -> None:
    """Raises `_LeaseLostError`, which undoes all of it."""
    if not await deliveries.record_ends(base, records):
        raise _LeaseLostError
    await audit.write_within(base, [line for record in records for line in record.audit])
