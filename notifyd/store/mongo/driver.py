"""The one file that knows which driver is in use: PyMongo's own asynchronous client, or motor.

Both speak with nearly the same names. What differs, `aggregate`, `close` and sessions, is hidden here; so is what
every operation has in common: write concern, read concern, the measuring of writes, transactions, and errors
without a document's contents in them.
"""

from __future__ import annotations

import asyncio
import random
import time
import warnings
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import Context
from itertools import count
from time import perf_counter
from typing import Any, Final, TypeAlias, TypeVar

import pymongo
from attrs import define, evolve, field, frozen
from bson import ObjectId
from pymongo.errors import (
    BulkWriteError,
    ConfigurationError,
    ConnectionFailure,
    DocumentTooLarge,
    OperationFailure,
    PyMongoError,
)
from pymongo.read_concern import ReadConcern
from pymongo.uri_parser import parse_uri
from pymongo.write_concern import WriteConcern

from notifyd.config.settings import StoreDriver
from notifyd.errors import ConfigError, Fault, NotifydError, StoreError, TooLargeError
from notifyd.store import CommitObserver, Usage

Document: TypeAlias = dict[str, Any]
Filter: TypeAlias = Mapping[str, Any]
Keys: TypeAlias = Sequence[tuple[str, int]]
T = TypeVar("T")

_DURABLE: Final = WriteConcern("majority", j=True)
_TRANSACTION: Final[Mapping[str, Any]] = {
    "read_concern": ReadConcern("snapshot"),
    "write_concern": _DURABLE,
    "read_preference": pymongo.ReadPreference.PRIMARY,
}

_SESSIONS: Final = 32
"""How many transactions this process has open at once; more wait for their turn."""

_PAUSE: Final = 0.005
_LONGEST_PAUSE: Final = 0.2
"""Seconds between tries of a transaction, with full jitter: up to the first, then 1.5 times as much each time."""

DUPLICATE: Final = 11000
"""The server's code for a unique index that has the key already."""

_TOO_LARGE: Final = frozenset({10334, 17280, 17419, 17420})
"""Server codes for what has outgrown its limit: BSONObjectTooLarge, KeyTooLong, what an update or upsert makes."""

_NO_COLLECTION: Final = 26
_NO_INDEX: Final = 27

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
    session: Any = None

    def within(self, session: Any) -> Collection:
        """This collection, in the transaction of `session`: its writes are durable, and measured, with that."""
        return evolve(self, session=session, measure=Measure(None))

    async def find(
        self,
        where: Filter,
        *,
        fields: Sequence[str] | Filter | None = None,
        sort: Keys | None = None,
        limit: int = 0,
        skip: int = 0,
        hint: str | None = None,
    ) -> list[Document]:
        cursor = self.raw.find(
            where, fields, sort=sort, limit=limit, skip=skip, hint=hint, session=self.session
        )
        found: list[Document] = await cursor.to_list(None)
        return found

    async def find_one(self, where: Filter) -> Document | None:
        found: Document | None = await self.raw.find_one(where, session=self.session)
        return found

    async def aggregate(self, *stages: Filter, hint: str | None = None) -> list[Document]:
        options = {} if hint is None else {"hint": hint}
        cursor = self.raw.aggregate(list(stages), session=self.session, **options)
        if self.driver is StoreDriver.PYMONGO:
            cursor = await cursor
        found: list[Document] = await cursor.to_list(None)
        return found

    async def insert_many(self, documents: Sequence[Any]) -> dict[int, int]:
        """Insert what can be; answers the error code of each one that could not, by its place.

        Not for a transaction, which the first of these errors would end.
        """
        with self.measure.write(len(documents)):
            try:
                await self.raw.insert_many(documents, ordered=False, session=self.session)
            except BulkWriteError as error:
                if error.details.get("writeConcernErrors"):
                    raise
                return {fault["index"]: fault["code"] for fault in error.details["writeErrors"]}
        return {}

    async def insert_missing(self, documents: Sequence[Document], *key: str) -> list[bool]:
        """Insert the documents whose `key`, fields of a unique index, is not there yet; for each: was it new?"""
        if not documents:
            return []
        upserts = [
            pymongo.UpdateOne(
                {name: document[name] for name in key},
                {"$setOnInsert": {"_id": ObjectId(), **document}},
                upsert=True,
            )
            for document in documents
        ]
        with self.measure.write(len(documents)):
            result = await self.raw.bulk_write(upserts, session=self.session)
        return [place in (result.upserted_ids or {}) for place in range(len(documents))]

    async def update_one(self, where: Filter, change: Filter, *, upsert: bool = False) -> bool:
        """Was there a document to change? An upsert that inserted says no."""
        with self.measure.write():
            result = await self.raw.update_one(where, change, upsert=upsert, session=self.session)
        return bool(result.matched_count)

    async def update_many(self, where: Filter, change: Filter, *, hint: str | None = None) -> int:
        with self.measure.write():
            result = await self.raw.update_many(where, change, hint=hint, session=self.session)
        return int(result.matched_count)

    async def update_each(self, changes: Sequence[tuple[Filter, Filter]]) -> int:
        """Each document its own change, in no order; answers how many there were to change."""
        with self.measure.write(len(changes)):
            updates = [pymongo.UpdateOne(*change) for change in changes]
            result = await self.raw.bulk_write(updates, ordered=False, session=self.session)
        return int(result.matched_count)

    async def delete_one(self, where: Filter) -> None:
        with self.measure.write():
            await self.raw.delete_one(where, session=self.session)

    async def delete_many(self, where: Filter) -> int:
        with self.measure.write():
            result = await self.raw.delete_many(where, session=self.session)
        return int(result.deleted_count)

    async def count(self) -> int:
        """How many documents there are, by the collection's own figures."""
        return int(await self.raw.estimated_document_count())

    async def create_indexes(self, indexes: Sequence[pymongo.IndexModel]) -> None:
        """Create those that are not there yet, in one command."""
        await self.raw.create_indexes(list(indexes))

    async def drop_index(self, name: str) -> None:
        """Remove an index, if it is there."""
        try:
            await self.raw.drop_index(name)
        except OperationFailure as error:
            if error.code not in (_NO_INDEX, _NO_COLLECTION):
                raise


@define(eq=False)
class Connection:
    """A client, the database that its URL names, and the sessions that its transactions take turns with."""

    client: Any
    database: Any
    driver: StoreDriver
    measure: Measure
    timeout: float
    _all: list[Any] = field(factory=list)
    _free: asyncio.Queue[Any] = field(factory=asyncio.Queue)
    _running: set[asyncio.Task[Any]] = field(factory=set)

    @property
    def name(self) -> str:
        return str(self.database.name)

    def collection(self, name: str) -> Collection:
        return Collection(self.database[name], self.driver, self.measure)

    async def hello(self) -> Document:
        """The server's answer to a handshake: who it is, and what its clock says."""
        answer: Document = await self.database.command("hello")
        return answer

    async def usage(self) -> Usage:
        """Not every server tells of its disk, and not every user may ask.

        See https://www.mongodb.com/docs/manual/reference/command/dbStats/.
        """
        try:
            stats = await self.database.command("dbStats")
        except OperationFailure:
            return Usage({}, None)
        total, used = stats.get("fsTotalSize"), stats.get("fsUsedSize")
        parts = {"database": int(stats["storageSize"]), "indexes": int(stats["indexSize"])}
        return Usage(parts, None if total is None or used is None else int(total - used))

    async def collection_names(self) -> set[str]:
        return set(await self.database.list_collection_names())

    async def open_sessions(self) -> None:
        """Make ready for transactions. Raises `StoreError` where the server has none: a standalone one."""
        answer = await self.hello()
        if "setName" not in answer and answer.get("msg") != "isdbgrid":
            raise StoreError(
                f"MongoDB database {self.name}: the server is a standalone one, which has no transactions: "
                "notifyd needs a replica set, of one member at least"
            )
        for _ in range(_SESSIONS):
            session = self.client.start_session()
            self._all.append(session if self.driver is StoreDriver.PYMONGO else await session)
            self._free.put_nowait(self._all[-1])

    @property
    def session_ids(self) -> list[Document]:
        """Those of this process's transactions, by which another can end them."""
        return [session.session_id for session in self._all]

    async def kill_sessions(self, ids: Sequence[Document]) -> None:
        """Let the server abort what the transactions of a dead process hold.

        It would do so by itself, `transactionLifetimeLimitSeconds` after their begin: 60 s, if not set otherwise
        (https://www.mongodb.com/docs/manual/reference/command/killSessions/). An empty list would end everybody's.
        """
        if ids:
            await self.client.admin.command("killSessions", list(ids))

    async def transact(self, step: Callable[[Any], Awaitable[T]]) -> T:
        """Run `step` in a transaction, given its session, again where others were in the way; answers as it does.

        `step` does one operation after the other, all of them with the session, and must not mind being repeated.
        Raises the driver's own errors: the transaction may be committed or not where its commit was not answered.

        The transaction has a task and a time of its own, and goes on where its caller is cancelled: cut off in the
        middle, it would hold what it has written against all others until the server's patience ends.
        """
        task = asyncio.create_task(self._transact(step), context=Context())
        self._running.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # has been looked at, though its caller may have gone away

    async def _transact(self, step: Callable[[Any], Awaitable[T]]) -> T:
        end = time.monotonic() + self.timeout
        session = await self._free.get()
        try:
            for tries in count():
                try:
                    return await self._once(session, step, end)
                except PyMongoError as error:
                    longest = min(_PAUSE * 1.5**tries, _LONGEST_PAUSE)
                    pause = random.uniform(0, longest)  # nosec B311 # noqa: S311 - jitter, not a secret
                    if not _passes(error) or time.monotonic() + pause >= end:
                        raise
                    await asyncio.sleep(pause)
            raise AssertionError("not reached")
        finally:
            self._free.put_nowait(session)

    async def _once(self, session: Any, step: Callable[[Any], Awaitable[T]], end: float) -> T:
        started = session.start_transaction(**_TRANSACTION)
        if self.driver is StoreDriver.PYMONGO:
            await started
        try:
            with pymongo.timeout(max(0.001, end - time.monotonic())):
                result = await step(session)
                await self._commit(session, end)
        except BaseException:
            if session.in_transaction:
                await session.abort_transaction()  # out of the deadline, which may be what ended it
            raise
        return result

    async def _commit(self, session: Any, end: float) -> None:
        """Commit, again where the answer is lost: a transaction is committed once."""
        while True:
            try:
                with self.measure.write():
                    await session.commit_transaction()
            except PyMongoError as error:
                lost = error.has_error_label("UnknownTransactionCommitResult")
                if not lost or time.monotonic() + _PAUSE >= end:
                    raise
                await asyncio.sleep(_PAUSE)
            else:
                return

    async def settled(self) -> None:
        """No transaction is under way any more."""
        if self._running:
            await asyncio.wait(self._running)

    async def aclose(self) -> None:
        for session in self._all:
            await session.end_session()
        await _close(self.client, self.driver)


def _passes(error: PyMongoError) -> bool:
    """Is it worth trying a transaction again? A key that it did not see when it began is there the next time."""
    return error.has_error_label("TransientTransactionError") or _code(error) == DUPLICATE


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
            write_concern=_DURABLE,
        )
    except ConfigurationError:
        await _close(client, driver)
        raise _config_error("must name a database, as in mongodb://host/notifications") from None
    return Connection(client, database, driver, Measure(observer), timeout)


def check_mongo_url(url: str) -> None:
    """Raises `ConfigError` where the text alone shows that nothing can be opened by it; nothing is looked up."""
    if url.startswith("mongodb+srv:"):
        return  # reading it asks the domain's DNS
    try:
        with warnings.catch_warnings(action="ignore"):  # of options that a start does without
            found = parse_uri(url, warn=True)
    except (PyMongoError, ValueError) as error:
        raise _config_error(f"is no URL of a MongoDB database ({type(error).__name__})") from None
    if not found["database"]:
        raise _config_error("must name a database, as in mongodb://host/notifications")


def _client(url: str, driver: StoreDriver, options: Mapping[str, Any]) -> Any:
    if driver is StoreDriver.PYMONGO:
        return pymongo.AsyncMongoClient(url, **options)
    from motor.motor_asyncio import AsyncIOMotorClient  # only where it is asked for

    return AsyncIOMotorClient(url, io_loop=asyncio.get_running_loop(), **options)


def _config_error(message: str) -> ConfigError:
    return ConfigError([Fault("store.url", message)])
