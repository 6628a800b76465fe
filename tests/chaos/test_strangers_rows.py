"""A stranger's row in every table: a daemon starts, accepts, sends, decides and calls back everything else."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pymongo
import pytest

from notifyd.config.settings import StoreDriver
from notifyd.model import SECOND, State, wall_clock
from notifyd.store import CollectionName, Store
from notifyd.store.open import StoreOptions, open_store, sqlite_path
from notifyd.testing import Sink
from tests import events
from tests.mongodb import MongoServer
from tests.process import TOKEN, DaemonProcess, daemon_process
from tests.spoiling import Spoiler
from tests.store.makers import (
    append_of,
    approval,
    audit_record,
    delivery,
    effect,
    event,
    incident,
    open_approval,
    open_incident,
)
from tests.waiting import until, until_async

pytestmark = pytest.mark.long

EVENTS, APPROVALS, INCIDENTS = CollectionName.EVENTS, CollectionName.APPROVALS, CollectionName.INCIDENTS
DELIVERIES, AUDIT = CollectionName.DELIVERIES, CollectionName.AUDIT

CONFIG: Final = """
[store]
url = "${{NOTIFYD_STORE}}"
driver = "{driver}"
timeout = "20s"
[resume]
allowed_origins = ["{sink}"]
[channels.hook]
type = "webhook"
url = "{sink}/hook"
[[rules]]
name = "approvals"
when = 'event.kind == "pack.approval"'
channels = ["hook"]
"""

STRANGERS: Final[list[tuple[CollectionName, dict[str, str], str, Any]]] = [
    (DELIVERIES, {"id": "pending"}, "reason", "of_the_future"),
    (DELIVERIES, {"id": "sending"}, "state", "of_the_future"),
    (DELIVERIES, {"id": "held"}, "channel_type", b"\xff"),
    (DELIVERIES, {"id": "dead"}, "reason", "of_the_future"),
    (EVENTS, {"key": "unplanned"}, "body", '{"kind": "pack.appr'),
    (APPROVALS, {"approval_id": "expired"}, "request", "[]"),
    (APPROVALS, {"approval_id": "owing"}, "resume", "of_the_future"),
    (INCIDENTS, {"approval_id": "held"}, "opened_at", "soon"),
    (AUDIT, {"id": "line"}, "name", "of_the_future"),
]
MET: Final = {"deliveries": 3, "events": 1, "approvals": 2, "audit": 1}
"""What a daemon meets by itself."""

ASKED: Final = (
    ("/api/v1/deliveries/dead", "deliveries row "),
    ("/notifications/pack-approvals/run-1/owing", "approvals row "),
)
LISTS: Final = ("/api/v1/deliveries", "/api/v1/dead", "/api/v1/audit", "/notifications/pack-approvals")


def row(name: str, **changes: Any) -> Any:
    """A delivery of the hook, due for a second."""
    now = wall_clock()
    times = {"created_at": now - SECOND, "next_attempt_at": now - SECOND, "deadline": now + 3600 * SECOND}
    where = {"channel": "hook", "channel_type": "webhook", "lane": "hook", "approval_id": name}
    return delivery(name, **{**times, **where, **changes})


async def fill(store: Store) -> None:
    """Something in every table that this notifyd could read."""
    now = wall_clock()
    for name, changes in {
        "pending": {},
        "sending": {},
        "held": {"window": "w", "window_start": now - 2 * SECOND},
        "dead": {"state": State.DEAD, "ended_at": now},
        "sealed": {"sealed": True, "message": "what.nobody.has.ever.sealed"},
    }.items():
        await store.insert_deliveries(None, [row(name, **changes)])
    await store.append(append_of(event("unplanned", received_at=now - 3600 * SECOND)))
    await open_approval(store, approval(approval_id="expired", expires_at=now))
    await open_approval(store, approval(approval_id="owing", effects=(effect("n"),)))
    await open_incident(store, incident(approval_id="held"), "hold")
    await store.write_audit([audit_record("line")])


def spoil(url: str) -> None:
    for stranger in STRANGERS:
        Spoiler(url).spoil(*stranger)
    if url.startswith("mongodb"):
        _spoil_mongo(url)
    else:
        _spoil_sqlite(sqlite_path(url))


def _spoil_sqlite(path: Path) -> None:
    """Parts of rows that are not there, with the numbers that the next rows will have; and a note that is none."""
    with closing(sqlite3.connect(path)) as db, db:
        for table, part, key in (
            ("events", "plans", "event, plan"),
            ("events", "planning", "event, life, until"),
            ("deliveries", "messages", "delivery, message"),
        ):
            (last,) = db.execute(f"SELECT max(rowid) FROM {table}").fetchone()  # noqa: S608
            values = ", ".join("?" * len(key.split(",")))
            rest = ("[]", 0, 0)[-len(key.split(",")) + 1 :] if part == "planning" else ("[]",)
            db.execute(f"INSERT INTO {part} ({key}) VALUES ({values})", (last + 1, *rest))  # noqa: S608
        db.execute("UPDATE store SET seal_keys = ?", ("{trunca",))


def _spoil_mongo(url: str) -> None:
    client: pymongo.MongoClient[Any]
    with pymongo.MongoClient(url) as client:
        database: Any = client.get_default_database()
        database.nodes.insert_one({"_id": "stranger", "alive_until": "soon", "sessions": 5})
        database.jobs.insert_one({"_id": "retention", "leased_until": "soon", "done_at": "soon", "node": 5})
        database.timers.update_one({"window": "w"}, {"$set": {"start": "soon", "closes_at": "soon"}})
        database.schema.update_one({"_id": "seal_keys"}, {"$set": {"ids": 5}}, upsert=True)


async def decided(daemon: DaemonProcess, sink: Sink, run: str) -> None:
    """An approval is asked for, told, decided, and its run called back."""
    before = len(sink.received)
    resume = {"callbackUrl": f"{sink.url}/resume", "token": "rt_3yQ8Jv1nTz5kWc7pXe2mRb9d"}
    asked = events.requested(at=wall_clock(), runId=run, resume=resume)
    assert (await daemon.send(asked)).status == 202
    await until(lambda: len(sink.received) > before)
    assert (await daemon.ack(asked)).status == 200
    await until(lambda: any(one.path == "/resume" for one in sink.received[before:]))

    async def told() -> bool:
        path = "/notifications/pack-approvals/{runId}/{approvalId}".format_map(asked)
        return bool((await daemon.get(path)).json["resume"]["status"] == "delivered")

    await until_async(told)


async def undecodable(daemon: DaemonProcess) -> dict[str, int]:
    counted = {name: await daemon.metric("notifyd_undecodable_rows", table=name) for name in CollectionName}
    return {name.value: int(rows) for name, rows in counted.items() if rows}


async def ask(daemon: DaemonProcess, path: str) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with daemon.session.get(daemon.url + path, headers=headers) as answer:
        return answer.status, await answer.json(content_type=None)


async def met(daemon: DaemonProcess, rows: dict[str, int]) -> None:
    async def counted() -> bool:
        return await undecodable(daemon) == rows

    await until_async(counted)


@pytest.mark.parametrize("kind", ["sqlite", *StoreDriver])
async def test_a_strangers_row_in_every_table_ends_no_daemon_and_holds_up_nothing_else(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url, driver = f"sqlite:///{tmp_path}/notifyd.db", StoreDriver.PYMONGO
    if kind != "sqlite":
        server: MongoServer = request.getfixturevalue("mongo_server")
        url, driver = server.database(), StoreDriver(kind)
    store = await open_store(url, StoreOptions(node="before", clock=wall_clock, timeout=20))
    await fill(store)
    await store.aclose()
    spoil(url)
    async with Sink() as sink:
        config = CONFIG.format(sink=sink.url, driver=driver)
        async with daemon_process(tmp_path, config, store=url) as daemon:
            await met(
                daemon, MET | {"deliveries": 4}
            )  # a message that does not open, which is due in a minute again
            await decided(daemon, sink, "first")
            assert await daemon.stop() == 0
            first = len(daemon.logs)
            await daemon.start()
            await met(daemon, MET)
            await decided(daemon, sink, "second")
            for path in LISTS:
                assert (await ask(daemon, path))[0] == 200
            for path, named in ASKED:
                status, problem = await ask(daemon, path)
                assert (status, problem["code"]) == (500, "undecodable_row")
                assert named in problem["detail"]
                assert "of_the_future" not in problem["detail"]
            await met(daemon, MET | {"deliveries": 4})
            told = [line["message"] for line in daemon.logs[first:] if line["level"] == "error"]
            assert len(told) == len(set(told)) == 8
            assert all(line.startswith("set aside: ") for line in told)
            assert await daemon.stop() == 0
    for stranger in STRANGERS:
        collection, key, member, value = stranger
        assert Spoiler(url).value(collection, key, member) == value
