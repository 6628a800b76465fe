"""The stores that the contract suite runs against: another kind is one more entry of `KINDS`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pymongo
import pytest
from attrs import frozen
from pymongo.database import Database

from notifyd.config.settings import StoreDriver
from notifyd.store import Store
from notifyd.store.mongo import MongoStore, open_mongo
from notifyd.store.open import StoreOptions, open_store
from tests.mongodb import MongoServer
from tests.store.makers import NODE, TurnableClock

Reopen = Callable[[], Awaitable[Store]]
Open = Callable[..., Awaitable[MongoStore]]
Shared = Database[dict[str, Any]]

SCHEMA = "schema"
"""The document that says which schema the collections have."""


class Deployment:
    """One database of a kind, opened and opened again, as a daemon that restarts does."""

    def __init__(self, url: str, driver: StoreDriver = StoreDriver.PYMONGO) -> None:
        self.url = url
        self.driver = driver
        self.store: Store | None = None

    async def open(self) -> Store:
        await self.close()
        self.store = await open_store(
            self.url, StoreOptions(node=NODE, clock=TurnableClock(), timeout=20, driver=self.driver)
        )
        return self.store

    async def close(self) -> None:
        if self.store is not None:
            await self.store.aclose()


def _sqlite(request: pytest.FixtureRequest) -> str:
    folder: Path = request.getfixturevalue("tmp_path")
    return f"sqlite:///{folder}/notifyd.db"


def _mongodb(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue("emptied")
    return url


@pytest.fixture(scope="session")
def _shared(mongo_server: MongoServer) -> Iterator[Shared]:
    with pymongo.MongoClient[dict[str, Any]](mongo_server.database()) as client:
        yield client.get_default_database()


@pytest.fixture
def emptied(_shared: Shared, mongo_server: MongoServer) -> str:
    """The URL of a database with a schema and nothing else: to make one for each test takes four times as long."""
    for name in _shared.list_collection_names():
        _shared[name].delete_many({"_id": {"$ne": SCHEMA}})
    return mongo_server.database(_shared.name)


@frozen
class Kind:
    """`url` gives an empty database for a test."""

    url: Callable[[pytest.FixtureRequest], str]
    driver: StoreDriver = StoreDriver.PYMONGO


KINDS: dict[str, Kind] = {
    "sqlite": Kind(_sqlite),
    "motor": Kind(_mongodb, StoreDriver.MOTOR),
    "pymongo": Kind(_mongodb, StoreDriver.PYMONGO),
}


# The drivers differ where they connect and answer, as tests/e2e/test_on_mongodb.py tries: all else takes long.
@pytest.fixture(
    params=[pytest.param(kind, marks=pytest.mark.long) if kind == "motor" else kind for kind in KINDS]
)
async def deployment(request: pytest.FixtureRequest) -> AsyncIterator[Deployment]:
    kind = KINDS[request.param]
    deployment = Deployment(kind.url(request), kind.driver)
    yield deployment
    await deployment.close()


@pytest.fixture
async def store(deployment: Deployment) -> Store:
    """An empty store."""
    return await deployment.open()


@pytest.fixture
def reopen(deployment: Deployment, store: Store) -> Reopen:
    """Close `store` and open the same database again."""
    return deployment.open


@pytest.fixture
async def node(emptied: str) -> AsyncIterator[Open]:
    """Opens nodes of one service, by name."""
    opened = list[MongoStore]()

    async def open_node(name: str, **options: Any) -> MongoStore:
        given: dict[str, Any] = {
            "clock": TurnableClock(),
            "timeout": 20,
            "driver": StoreDriver.PYMONGO,
        } | options
        store = await open_mongo(emptied, node=name, **given)
        opened.append(store)
        return store

    yield open_node
    for store in opened:
        await store.aclose()
