"""Group inserts: what many callers insert at once goes out as one unordered `insert_many`."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final

import bson
from attrs import define, field
from bson.raw_bson import RawBSONDocument
from pymongo.errors import PyMongoError

from notifyd.errors import StoreError, TooLargeError
from notifyd.store.mongo.batches import Batches
from notifyd.store.mongo.driver import DUPLICATE, Collection, Document, store_error

_BATCH: Final = 512
_BATCH_BYTES: Final = 32 * 1024 * 1024
_LIMIT: Final = 16 * 1024 * 1024
"""The largest document MongoDB stores (https://www.mongodb.com/docs/manual/reference/limits/)."""


@define(eq=False)
class _Entry:
    document: RawBSONDocument
    fresh: asyncio.Future[bool]


@define(eq=False)
class Inserter:
    """Inserts into one collection. Used on one event loop."""

    collection: Collection
    database: str
    _batches: Batches[_Entry] = field(init=False)

    @_batches.default
    def _made(self) -> Batches[_Entry]:
        return Batches(self._insert)

    async def insert(self, documents: Sequence[Document]) -> list[bool]:
        """For each document: was it new? False where a unique index has its key already.

        Raises `TooLargeError` before anything is inserted, or `StoreError`.
        """
        loop = asyncio.get_running_loop()
        entries = [_Entry(_encoded(document), loop.create_future()) for document in documents]
        self._batches.add(entries)
        # All of them are waited for, so that none of several faults goes unseen.
        results = await asyncio.gather(*(entry.fresh for entry in entries), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return [result is True for result in results]

    async def settled(self) -> None:
        """Nothing is under way any more."""
        await self._batches.settled()

    async def _insert(self, waiting: deque[_Entry]) -> None:
        batch = _next_batch(waiting)
        if not batch:
            return
        try:
            faults = await self.collection.insert_many([entry.document for entry in batch])
        except (PyMongoError, TimeoutError) as error:
            for entry in batch:
                _fail(entry, store_error(self.database, error))
            return
        for place, entry in enumerate(batch):
            self._settle(entry, faults.get(place))

    def _settle(self, entry: _Entry, code: int | None) -> None:
        if code not in (None, DUPLICATE):
            _fail(entry, StoreError(f"MongoDB database {self.database}: insert refused (code {code})"))
        elif not entry.fresh.done():
            entry.fresh.set_result(code is None)


def _next_batch(waiting: deque[_Entry]) -> list[_Entry]:
    batch: list[_Entry] = []
    size = 0
    while waiting and len(batch) < _BATCH and size < _BATCH_BYTES:
        entry = waiting.popleft()
        if not entry.fresh.done():  # else its caller gave up waiting
            batch.append(entry)
            size += len(entry.document.raw)
    return batch


def _fail(entry: _Entry, error: Exception) -> None:
    if not entry.fresh.done():
        entry.fresh.set_exception(error)


def _encoded(document: Document) -> RawBSONDocument:
    """Encoded here, because one document that is too large would fail a whole batch."""
    encoded = bson.encode({"_id": bson.ObjectId(), **document})
    if len(encoded) > _LIMIT:
        raise TooLargeError("the record is larger than MongoDB stores in one document (16 MiB)")
    return RawBSONDocument(encoded)
