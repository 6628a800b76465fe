"""Opening a MongoDB database: its URL, its schema, its indexes, and a server that is lost and comes back."""

from __future__ import annotations

import asyncio
import gc
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from attrs import define, evolve, field
from pymongo import IndexModel

from notifyd.config.settings import StoreDriver
from notifyd.errors import ConfigError, StoreError, StoreMissingError, StoreOutdatedError, StoreUnusableError
from notifyd.model import SECOND, Status
from notifyd.store import CollectionName
from notifyd.store.mongo import MongoStore, open_mongo
from notifyd.store.mongo.claims import Queue
from notifyd.store.mongo.documents import document_of
from notifyd.store.mongo.driver import connect
from notifyd.store.mongo.schema import INDEXES, MIGRATIONS, Index, create_indexes, migrate
from notifyd.store.open import StoreOptions, check_url, open_store
from tests.e2e.databases import Database
from tests.mongodb import MongoServer, secantus
from tests.ports import free_port
from tests.store.makers import (
    HOUR,
    MINUTE,
    NODE,
    NOW,
    TENANT,
    TurnableClock,
    append_of,
    approval,
    audit_record,
    decision,
    delivery,
    event,
    incident,
)
from tests.store.operations import every_operation

# PyMongo 4.20 forgets to close a socket whose connecting is cancelled, as closing a client does.
FORGOTTEN = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"
)
DRIVERS = pytest.mark.parametrize(
    "driver", [StoreDriver.PYMONGO, pytest.param(StoreDriver.MOTOR, marks=pytest.mark.long)]
)


@define
class Commits:
    """What an observer was told."""

    rows: list[int] = field(factory=list)

    def store_error(self, step: str) -> None:
        raise AssertionError(step)

    def undecodable(self, table: str, rows: int) -> None:
        assert not rows

    def commit(self, seconds: float, rows: int) -> None:
        assert seconds > 0
        self.rows.append(rows)


async def opened(url: str, **options: Any) -> MongoStore:
    given: dict[str, Any] = {"timeout": 20, "driver": StoreDriver.PYMONGO} | options
    return await open_mongo(url, node=NODE, clock=TurnableClock(), **given)


@DRIVERS
@pytest.mark.parametrize("dropped", ["events", None])
async def test_nothing_is_taken_by_a_database_that_was_dropped_until_it_is_restored(
    mongo_server: MongoServer, driver: StoreDriver, dropped: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """What is written next would make the collection anew, without the index that keeps its keys single."""
    store = await opened(mongo_server.database(), driver=driver)
    connection = store._base.connection
    await store.append(append_of(event()))
    if dropped:
        await connection.database.drop_collection(dropped)
    else:
        await connection.client.drop_database(connection.name)
    for look in (partial(store.beat, NOW, NOW + MINUTE), store.probe):
        with pytest.raises(StoreUnusableError, match=rf"lacks .*{dropped or 'schema'}"):
            await look()
    with pytest.raises(StoreUnusableError, match="restore the database"):
        await store.append(append_of(event("later")))
    await migrate(connection)
    await create_indexes(connection, INDEXES)
    await store.beat(NOW, NOW + MINUTE)
    assert (await store.append(append_of(event("later")))).fresh
    await store.aclose()
    told = [one for one in caplog.records if one.levelname == "CRITICAL"]
    assert len(told) == 1


@FORGOTTEN
async def test_a_database_that_holds_no_store_becomes_one_only_where_it_may(
    mongo_server: MongoServer, caplog: pytest.LogCaptureFixture
) -> None:
    url = mongo_server.database()
    with pytest.raises(StoreMissingError, match=r"MongoDB database notifyd_test_\w+: no store is there"):
        await opened(url, create=False)
    for create in (True, True, False):
        await (await opened(url, create=create)).aclose()
    said = [one.message for one in caplog.records if one.name == "notifyd.store"]
    assert len(said) == 1
    assert said[0].endswith(": no store was there, an empty one is made")
    gc.collect()


# --- the URL -----------------------------------------------------------------------------------------------


@DRIVERS
@pytest.mark.parametrize("url", ["mongodb://ops:hunter2@127.0.0.1", "mongodb://ops:hunter2@127.0.0.1/?w=1"])
async def test_a_url_that_names_no_database_is_refused_with_an_example(url: str, driver: StoreDriver) -> None:
    with pytest.raises(ConfigError) as caught:
        await open_store(url, StoreOptions(node=NODE, clock=TurnableClock(), driver=driver))
    with pytest.raises(ConfigError, match="mongodb://host/notifications"):
        check_url(url)
    assert "mongodb://host/notifications" in str(caught.value)
    assert "hunter2" not in str(caught.value)


@DRIVERS
@pytest.mark.parametrize("url", ["mongodb://a:hunter2:@x/db", "mongodb:///db", "mongodb://x:hunter2/db"])
async def test_a_broken_url_is_refused_without_repeating_it(url: str, driver: StoreDriver) -> None:
    with pytest.raises(ConfigError) as caught:
        await opened(url, driver=driver)
    assert [fault.pointer for fault in caught.value.faults] == ["store.url"]
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["mongodb://a,b:27018/db?replicaSet=rs0", "mongodb+srv://ops:p@cluster.example/db"]
)
def test_a_url_that_names_a_database_passes_the_check(url: str) -> None:
    check_url(url)


@FORGOTTEN
@DRIVERS
async def test_a_server_that_is_not_there_is_told_within_the_timeout(driver: StoreDriver) -> None:
    began = time.monotonic()
    with pytest.raises(StoreError) as caught:
        await opened(f"mongodb://ops:hunter2@127.0.0.1:{free_port()}/db", timeout=0.3, driver=driver)
    assert time.monotonic() - began < 5
    assert "MongoDB database db" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    gc.collect()


@pytest.mark.parametrize("timeout", [0.1, 20.0])
async def test_a_cancellation_that_the_driver_turns_into_a_fault_of_its_own_is_what_it_was(
    mongo_server: MongoServer, monkeypatch: pytest.MonkeyPatch, timeout: float
) -> None:
    """A step that breaks with another error than the store's would end the daemon."""
    store = await opened(mongo_server.database(), timeout=20)
    begun = asyncio.Event()

    async def find(*_: Any) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            raise RuntimeError("Lock is not acquired")

    monkeypatch.setattr("notifyd.store.mongo.events.find", find)
    monkeypatch.setattr(store, "_timeout", timeout)
    task = asyncio.create_task(store.event(TENANT, "key"))
    await begun.wait()
    if timeout < 1:
        with pytest.raises(StoreError, match="no answer in time"):
            await task
    else:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    monkeypatch.undo()
    await store.aclose()


@DRIVERS
async def test_a_standalone_server_is_refused_as_it_has_no_transactions(driver: StoreDriver) -> None:
    refused = pytest.raises(StoreError, match="notifyd needs a replica set, of one member at least")
    with secantus(standalone=True) as server, refused:
        await opened(server.database(), driver=driver)


# --- the schema --------------------------------------------------------------------------------------------


async def test_a_database_of_a_newer_notifyd_is_refused(mongo_server: MongoServer) -> None:
    url = mongo_server.database()
    await (await opened(url)).aclose()
    connection = await connect(url, StoreDriver.PYMONGO, timeout=20)
    await connection.collection("schema").update_one({"_id": "schema"}, {"$set": {"version": 99}})
    before = Database(url).content()
    with pytest.raises(StoreUnusableError, match=r"newer notifyd \(schema 99;"):
        await opened(url)
    assert Database(url).content() == before, "nothing is written"
    await connection.aclose()


async def test_a_database_of_an_earlier_notifyd_is_left_to_its_nodes_unless_it_may_be_upgraded(
    mongo_server: MongoServer, caplog: pytest.LogCaptureFixture
) -> None:
    url, known = mongo_server.database(), len(MIGRATIONS)
    await (await opened(url)).aclose()
    connection = await connect(url, StoreDriver.PYMONGO, timeout=20)
    await connection.collection("schema").update_one({"_id": "schema"}, {"$set": {"version": known - 1}})
    before = Database(url).content()
    with pytest.raises(
        StoreOutdatedError, match=f"has schema {known - 1}, .* changes it to {known} at its start"
    ):
        await open_mongo(url, node=NODE, clock=TurnableClock(), timeout=20, upgrade=False)
    assert Database(url).content() == before
    await (await opened(url)).aclose()
    await connection.aclose()
    assert any(f"schema {known - 1} is now {known}" in message for message in caplog.messages)


async def test_each_migration_runs_once_and_one_that_broke_off_runs_again(mongo_server: MongoServer) -> None:
    connection = await connect(mongo_server.database(), StoreDriver.PYMONGO, timeout=20)
    ran: list[str] = []

    async def first(_: object) -> None:
        ran.append("first")

    async def second(_: object) -> None:
        ran.append("second")
        if ran.count("second") == 1:
            raise StoreError("the connection is lost")

    await migrate(connection, (first,))
    with pytest.raises(StoreError):
        await migrate(connection, (first, second))
    await migrate(connection, (first, second))
    await migrate(connection, (first, second))
    await connection.aclose()
    assert ran == ["first", "second", "second"]


def test_every_unique_index_begins_with_the_tenant() -> None:
    unique = [index for index in INDEXES if index.options.get("unique")]
    assert {index.keys[0][0] for index in unique} == {"tenant"}
    assert {index.collection for index in unique} == {index.collection for index in INDEXES} - {"nodes"}


# --- what the database forgets by itself -------------------------------------------------------------------
# Databases act on TTL indexes once a minute, which no test waits for: what is shown is what they are told.


async def ttl_indexes(store: MongoStore) -> dict[str, dict[str, int]]:
    """By collection: the fields of its TTL indexes, and how many seconds after their time a document goes."""
    database = store._base.connection.database
    found: dict[str, dict[str, int]] = {}
    for name in {index.collection for index in INDEXES}:
        for index in (await database[name].index_information()).values():
            if "expireAfterSeconds" in index:
                found.setdefault(name, {})[index["key"][0][0]] = index["expireAfterSeconds"]
    return found


async def test_only_windows_and_nodes_that_are_over_go_by_a_ttl_index(mongo_server: MongoServer) -> None:
    store = await opened(mongo_server.database())
    assert await ttl_indexes(store) == {"timers": {"ends": 0}, "nodes": {"forgotten_at": 0}}
    await store.aclose()


async def test_a_node_is_forgotten_a_day_after_its_last_beat(mongo_server: MongoServer) -> None:
    began = int(time.time()) * SECOND  # another time would be acted on, or not, by the database's clock
    clock = TurnableClock(began)
    store = await open_mongo(mongo_server.database(), node=NODE, clock=clock, timeout=20)

    async def forgotten_at() -> Any:
        found = await store._base.nodes.find_one({"_id": NODE})
        return found and found["forgotten_at"].replace(tzinfo=UTC).timestamp() * SECOND

    assert await forgotten_at() == began + 24 * HOUR
    clock.now += HOUR
    await store.beat(clock(), clock() + MINUTE)
    assert await forgotten_at() == began + 25 * HOUR
    await store._base.nodes.delete_one({"_id": NODE})
    await store.probe()
    assert await forgotten_at() == began + 25 * HOUR
    await store.aclose()


async def test_a_node_that_was_gone_before_nodes_were_forgotten_is_forgotten_a_day_later(
    mongo_server: MongoServer,
) -> None:
    url = mongo_server.database()
    connection = await connect(url, StoreDriver.PYMONGO, timeout=20)
    await migrate(connection, MIGRATIONS[:2])
    nodes = connection.collection("nodes")
    await nodes.update_one({"_id": "gone"}, {"$set": {"life": "x", "alive_until": 1}}, upsert=True)
    await migrate(connection)
    found = await nodes.find_one({"_id": "gone"})
    now = (await connection.hello())["localTime"]
    assert found is not None
    assert timedelta(hours=23) < found["forgotten_at"] - now <= timedelta(days=1)
    await connection.aclose()


async def test_a_database_whose_approvals_carry_events_is_given_those_that_are_not_stored(
    mongo_server: MongoServer,
) -> None:
    """Up to schema 4 an event that was being accepted stood in its approval until it was sure to be stored."""
    url = mongo_server.database()
    connection = await connect(url, StoreDriver.PYMONGO, timeout=20)
    await migrate(connection, MIGRATIONS[:4])
    stored, broken = event("stored"), event("broken")
    note: dict[str, Any] = {"at": NOW, "audit": [document_of(audit_record())]}
    notes = [{**note, "key": one.key, "event": document_of(one)} for one in (stored, broken)]
    subject = {**document_of(approval()), "position": 1, "accepting": notes}
    await connection.collection("pack_approvals").insert_many([subject])
    await connection.collection("events").insert_many([document_of(stored)])
    accepting = IndexModel([("accepting.at", 1)], name="accepting")
    await connection.collection("pack_approvals").create_indexes([accepting])
    await connection.aclose()
    for _ in range(2):
        store = await opened(url)
        assert await store.event(TENANT, "broken") == broken
        assert await store.claim_unplanned(NODE, NOW, NOW + HOUR, 5) == [broken]
        assert await store.count(CollectionName.EVENTS) == 2
        assert await store.count(CollectionName.AUDIT) == 1
        (found,) = await store._base.approvals.find({})
        assert "accepting" not in found
        assert "accepting" not in await store._base.approvals.raw.index_information()
        await store.aclose()


async def test_decisions_of_earlier_rounds_get_a_collection_of_their_own_and_no_document_keeps_its_events(
    mongo_server: MongoServer,
) -> None:
    url = mongo_server.database()
    connection = await connect(url, StoreDriver.PYMONGO, timeout=20)
    await migrate(connection, MIGRATIONS[:7])
    earlier, present = [decision(), decision("bob@acme.example")], decision(round=2)
    given = approval(round=2, decisions=(present,), heard_again_at=NOW + 7)
    applied = [{"event_key": "e", "version": 1, "round": 1, "outcome": "opened"}]
    applied += [{**applied[0], "round": 2, "occurred_at": at} for at in (NOW - 9, NOW + 7)]
    before = {**document_of(evolve(given, decisions=(*earlier, present))), "position": 1, "applied": applied}
    over = {**document_of(approval(run_id="over", status=Status.APPROVED)), "position": 2, "applied": applied}
    del before["heard_again_at"], over["heard_again_at"]
    await connection.collection("pack_approvals").insert_many([before, over])
    held = {**document_of(incident()), "position": 1, "applied": applied}
    await connection.collection("incidents").insert_many([held])
    for _ in range(2):  # as by two nodes
        await MIGRATIONS[7](connection)
    for name in ("pack_approvals", "incidents"):
        assert await connection.collection(name).find({"applied": {"$exists": True}}) == []
    await connection.aclose()
    store = await opened(url)
    assert await store.approval(given.key) == given
    assert await store.superseded(given.key, 9) == earlier
    assert (await store.dump(CollectionName.INCIDENTS, "", 9))[0] == [incident()]
    await store.aclose()


# --- the indexes -------------------------------------------------------------------------------------------


@define
class Recorder:
    """A driver's collection that notes what is looked for."""

    raw: Any
    filters: list[tuple[dict[str, Any], Any]] = field(factory=list)

    def find(self, where: dict[str, Any], *args: Any, **options: Any) -> Any:
        self.filters.append((where, options.get("sort")))
        return self.raw.find(where, *args, **options)

    async def find_one(self, where: dict[str, Any], **options: Any) -> Any:
        self.filters.append((where, None))
        return await self.raw.find_one(where, **options)

    async def bulk_write(self, changes: list[Any], **options: Any) -> Any:
        self.filters += [(change._filter, None) for change in changes]
        return await self.raw.bulk_write(changes, **options)

    async def update_one(self, where: dict[str, Any], change: Any, **options: Any) -> Any:
        self.filters.append((where, None))
        return await self.raw.update_one(where, change, **options)

    async def update_many(self, where: dict[str, Any], change: Any, **options: Any) -> Any:
        self.filters.append((where, None))
        return await self.raw.update_many(where, change, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)


def recorded(store: MongoStore) -> dict[str, Recorder]:
    """Note the queries of `store` from now on, by collection."""
    names = ("events", "approvals", "decisions", "incidents", "deliveries", "audit", "timers")
    collections = {name: getattr(store._base, name) for name in names}
    recorders = {name: Recorder(collection.raw) for name, collection in collections.items()}
    spied: dict[str, Any] = {
        name: evolve(collection, raw=recorders[name]) for name, collection in collections.items()
    }
    store._base = evolve(store._base, **spied)
    store._deliveries = Queue(store._base, CollectionName.DELIVERIES)
    store._events = Queue(store._base, CollectionName.EVENTS)
    return recorders


def serves(index: Index, where: dict[str, Any]) -> bool:
    """Does the query begin with the index's first key, and is it among what the index covers?"""
    covered = index.options.get("partialFilterExpression", {})
    return all(where.get(key) is not None for key in (index.keys[0][0], *covered))


async def test_every_query_finds_its_documents_by_an_index(mongo_server: MongoServer) -> None:
    store = await opened(mongo_server.database())
    recorders = recorded(store)
    await every_operation(store)
    queries = [(recorder, *query) for recorder in recorders.values() for query in recorder.filters]
    assert len(queries) > 30
    for recorder, where, sort in queries:
        indexes = [index for index in INDEXES if index.collection == recorder.raw.name]
        assert "_id" in where or any(serves(index, where) for index in indexes), where
        if mongo_server.process is None:  # SecantusDB's planner knows fewer ways than MongoDB's
            query = {"find": recorder.raw.name, "filter": where} | ({"sort": dict(sort)} if sort else {})
            plan = await store._base.connection.database.command({"explain": query})
            assert "COLLSCAN" not in str(plan["queryPlanner"]["winningPlan"]), where
    await store.aclose()


# --- a server that is lost ---------------------------------------------------------------------------------


@pytest.fixture
async def own_server(tmp_path: Path) -> AsyncIterator[Callable[[], MongoServer]]:
    """Starts a server of the test's own, each time at the same port over the same files."""
    port, contexts = free_port(), []

    def start() -> MongoServer:
        context = secantus(port, str(tmp_path / "data"))
        contexts.append(context)
        return context.__enter__()

    yield start
    for context in contexts:
        context.__exit__(None, None, None)


async def fails_in_time(operation: Awaitable[object], timeout: float) -> None:
    began = time.monotonic()
    with pytest.raises(StoreError) as caught:
        await operation
    assert time.monotonic() - began < timeout + 1.5  # a busy machine, and no driver default
    assert re.match("MongoDB database notifyd_test_", str(caught.value))


@FORGOTTEN
@DRIVERS
async def test_a_lost_server_is_told_within_the_timeout_and_used_again_when_it_is_back(
    own_server: Callable[[], MongoServer], driver: StoreDriver, caplog: pytest.LogCaptureFixture
) -> None:
    server = own_server()
    store = await opened(server.database(), timeout=0.5, driver=driver)
    assert (await store.append(append_of(event("before")))).fresh
    server.pause()
    await fails_in_time(store.append(append_of(event("paused"))), 0.5)
    await fails_in_time(store.probe(), 0.5)
    server.resume()
    assert (await _patiently(lambda: store.append(append_of(event("resumed"))))).event == event("resumed")
    assert server.process is not None
    server.process.kill()
    server.process.wait()
    await fails_in_time(store.append(append_of(event("lost"))), 0.5)
    await fails_in_time(store.approval(approval().key), 0.5)
    for _ in range(2):
        await fails_in_time(store.beat(1, 2), 0.5)
    own_server()
    assert (await _patiently(lambda: store.append(append_of(event("again"))))).event == event("again")
    await _patiently(lambda: store.beat(1, 2))
    _, lost, back = (line for line in caplog.messages if line.startswith("MongoDB database"))
    assert lost.endswith("; until it answers no event is taken")
    assert back.endswith(": answers again")
    await store.aclose()
    gc.collect()


async def _patiently(operation: Callable[[], Awaitable[Any]]) -> Any:
    """The first answer: the driver looks for the server anew with each operation."""
    end = time.monotonic() + 10
    while True:
        try:
            return await operation()
        except StoreError:
            assert time.monotonic() < end


async def test_writes_are_measured(mongo_server: MongoServer) -> None:
    commits = Commits()
    store = await opened(mongo_server.database(), observer=commits)
    commits.rows.clear()
    await store.insert_deliveries(None, [delivery(f"d{n}") for n in range(5)])
    assert commits.rows == [5]
    await store.aclose()
