"""The one file that knows which driver is in use: motor, or PyMongo's own asynchronous client.

Both speak with nearly the same names. What differs, `aggregate` and `close`, is hidden here; so is what every
operation has in common: write concern, read concern, the measuring of writes, and errors without a document's
contents in them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from time import perf_counter
from typing import Any, Final, TypeAlias

import pymongo
from attrs import define, frozen
from pymongo.errors import (
    BulkWriteError,
    ConfigurationError,
    ConnectionFailure,
    DocumentTooLarge,
    OperationFailure,
    PyMongoError,
)
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from notifyd.config.settings import StoreDriver
from notifyd.errors import ConfigError, Fault, NotifydError, StoreError, TooLargeError
from notifyd.store import CommitObserver

Document: TypeAlias = dict[str, Any]
Filter: TypeAlias = Mapping[str, Any]
Keys: TypeAlias = Sequence[tuple[str, int]]

DUPLICATE: Final = 11000
"""The server's code for a unique index that has the key already."""

_TOO_LARGE: Final = frozenset({10334, 17280})
"""Server codes for a document, or an index key, that has outgrown its limit: BSONObjectTooLarge, KeyTooLong."""

_SHOWN: Final = 200


def store_error(database: str, error: Exception) -> NotifydError:
    """What a driver's error is to a caller. A failed write's text holds the document, so only its code is told."""
    where = f"MongoDB database {database}"
    if isinstance(error, TimeoutError):
        return StoreError(f"{where}: no answer in time")
    if isinstance(error, DocumentTooLarge) or _code(error) in _TOO_LARGE:
        return TooLargeError("the record is larger than MongoDB stores in one document (16 MiB)")
    if isinstance(error, ConnectionFailure):
        return StoreError(f"{where}: {type(error).__name__}: {str(error)[:_SHOWN]}")
    code = _code(error)
    return StoreError(f"{where}: {type(error).__name__}" + (f" (code {code})" if code is not None else ""))


def _code(error: Exception) -> int | None:
    if isinstance(error, BulkWriteError):
        faults = error.details.get("writeErrors") or error.details.get("writeConcernErrors") or [{}]
        code = faults[0].get("code")
        return code if isinstance(code, int) else None
    return error.code if isinstance(error, OperationFailure) else None


@frozen
class Measure:
    """Tells an observer of each write: how long it took to be durable, and how many documents it carried."""

    observer: CommitObserver | None

    def write(self, rows: int = 1) -> AbstractContextManager[None]:
        return self._measured(rows)

    @contextmanager
    def _measured(self, rows: int) -> Any:
        start = perf_counter()
        yield
        if self.observer is not None:
            self.observer.commit(perf_counter() - start, rows)


@frozen
class Collection:
    """A collection, for either driver. Methods raise the driver's own errors (`pymongo.errors`)."""

    raw: Any
    driver: StoreDriver
    measure: Measure

    async def find(
        self,
        where: Filter,
        *,
        fields: Sequence[str] | None = None,
        sort: Keys | None = None,
        limit: int = 0,
    ) -> list[Document]:
        found: list[Document] = await self.raw.find(where, fields, sort=sort, limit=limit).to_list(None)
        return found

    async def find_one(self, where: Filter) -> Document | None:
        found: Document | None = await self.raw.find_one(where)
        return found

    async def aggregate(self, *stages: Filter, hint: str | None = None) -> list[Document]:
        options = {} if hint is None else {"hint": hint}
        cursor = self.raw.aggregate(list(stages), **options)
        if self.driver is StoreDriver.PYMONGO:
            cursor = await cursor
        found: list[Document] = await cursor.to_list(None)
        return found

    async def insert_many(self, documents: Sequence[Any]) -> dict[int, int]:
        """Insert what can be; answers the error code of each one that could not, by its place."""
        with self.measure.write(len(documents)):
            try:
                await self.raw.insert_many(documents, ordered=False)
            except BulkWriteError as error:
                if error.details.get("writeConcernErrors"):
                    raise
                return {fault["index"]: fault["code"] for fault in error.details["writeErrors"]}
        return {}

    async def update_one(self, where: Filter, change: Filter, *, upsert: bool = False) -> bool:
        """Was there a document to change? An upsert that inserted says no."""
        with self.measure.write():
            result = await self.raw.update_one(where, change, upsert=upsert)
        return bool(result.matched_count)

    async def update_many(self, where: Filter, change: Filter, *, hint: str | None = None) -> int:
        with self.measure.write():
            result = await self.raw.update_many(where, change, hint=hint)
        return int(result.matched_count)

    async def update_each(self, changes: Sequence[tuple[Filter, Filter]]) -> int:
        """Each document its own change, in no order; answers how many there were to change."""
        with self.measure.write(len(changes)):
            updates = [pymongo.UpdateOne(*change) for change in changes]
            result = await self.raw.bulk_write(updates, ordered=False)
        return int(result.matched_count)

    async def delete_one(self, where: Filter) -> None:
        with self.measure.write():
            await self.raw.delete_one(where)

    async def delete_many(self, where: Filter) -> int:
        with self.measure.write():
            result = await self.raw.delete_many(where)
        return int(result.deleted_count)

    async def count(self) -> int:
        """How many documents there are, by the collection's own figures."""
        return int(await self.raw.estimated_document_count())

    async def create_index(self, keys: Keys, **options: Any) -> None:
        await self.raw.create_index(keys, **options)


@define(eq=False)
class Connection:
    """A client and the database that its URL names."""

    client: Any
    database: Any
    driver: StoreDriver
    measure: Measure

    @property
    def name(self) -> str:
        return str(self.database.name)

    def collection(self, name: str) -> Collection:
        return Collection(self.database[name], self.driver, self.measure)

    async def hello(self) -> Document:
        """The server's answer to a handshake: who it is, and what its clock says."""
        answer: Document = await self.database.command("hello")
        return answer

    async def aclose(self) -> None:
        await _close(self.client, self.driver)


async def _close(client: Any, driver: StoreDriver) -> None:
    closing = client.close()
    if driver is StoreDriver.PYMONGO:
        await closing


async def connect(
    url: str, driver: StoreDriver, *, timeout: float, observer: CommitObserver | None = None
) -> Connection:
    """A client of the database that `url` names; it connects when it is first asked something.

    `timeout` is how long one operation may take, its retries and the search for a server included, in seconds.
    Raises `ConfigError`, which repeats nothing of the URL: it may hold a password.
    """
    milliseconds = max(1, int(timeout * 1000))
    options: dict[str, Any] = {
        "appname": "notifyd",
        "timeoutMS": milliseconds,
        "connectTimeoutMS": milliseconds,
        "serverSelectionTimeoutMS": milliseconds,
    }
    try:
        client = _client(url, driver, options)
    except (PyMongoError, ValueError) as error:
        raise _config_error(f"is no URL of a MongoDB database ({type(error).__name__})") from None
    try:
        database = client.get_default_database(
            read_concern=ReadConcern("majority"),
            read_preference=pymongo.ReadPreference.PRIMARY,
            write_concern=WriteConcern("majority", j=True),
        )
    except ConfigurationError:
        await _close(client, driver)
        raise _config_error("must name a database, as in mongodb://host/notifications") from None
    return Connection(client, database, driver, Measure(observer))


def _client(url: str, driver: StoreDriver, options: Mapping[str, Any]) -> Any:
    if driver is StoreDriver.PYMONGO:
        return pymongo.AsyncMongoClient(url, **options)
    from motor.motor_asyncio import AsyncIOMotorClient  # only where it is asked for

    return AsyncIOMotorClient(url, io_loop=asyncio.get_running_loop(), **options)


def _config_error(message: str) -> ConfigError:
    return ConfigError([Fault("store.url", message)])
