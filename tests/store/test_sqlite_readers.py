"""Lists beside everything else: they end in time, and neither claims nor people wait for them."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from notifyd.errors import ListTimeoutError
from notifyd.store import AuditFilter, CollectionName, DeliveryFilter, Page
from notifyd.store.sqlite import SqliteStore, audit, deliveries, moving, open_sqlite
from notifyd.store.sqlite.files import open_writer
from notifyd.store.sqlite.guard import FileGuard
from notifyd.store.sqlite.readers import Readers
from notifyd.store.sqlite.schema import migrate
from tests.store.makers import (
    MINUTE,
    NODE,
    NOW,
    TENANT,
    TurnableClock,
    append_of,
    approval,
    audit_record,
    delivery,
    event,
    insert,
    open_approval,
)
from tests.waiting import until

ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"
LONG = 30.0


def endless(db: sqlite3.Connection) -> Any:
    return db.execute(ENDLESS).fetchone()


def short(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT 1").fetchone()[0])


async def begun(step: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """A task of `step`, which has come as far as it can without an answer."""
    task = asyncio.create_task(step)
    await asyncio.sleep(0)
    return task


@pytest.fixture
def readers(tmp_path: Path) -> Iterator[Readers]:
    path = tmp_path / "notifyd.db"
    db = open_writer(path)
    migrate(db, path)
    (tmp_path / "notifyd.db.lock").touch()
    guard = FileGuard(path, path)
    readers = Readers(path, guard, "list", count=1, timeout=1.0, aside=db.aside)
    yield readers
    readers.close()
    db.close()
    guard.close()


async def test_a_query_that_takes_too_long_is_interrupted_and_its_connection_used_again(
    readers: Readers,
) -> None:
    with pytest.raises(ListTimeoutError) as caught:
        await readers.run_within(0.05, endless)
    assert (caught.value.code, caught.value.retry_after) == ("list_timeout", 5.0)
    assert await readers.run_within(LONG, short) == 1


async def test_a_query_that_waits_too_long_for_its_turn_is_given_up_while_the_other_goes_on(
    readers: Readers,
) -> None:
    busy = await begun(readers.run_within(LONG, endless))
    with pytest.raises(ListTimeoutError):
        await readers.run_within(0.05, short)
    assert not busy.done()
    busy.cancel()
    with pytest.raises(asyncio.CancelledError):
        await busy


async def test_a_query_whose_caller_has_gone_away_makes_room_for_the_next(readers: Readers) -> None:
    gone = await begun(readers.run_within(LONG, endless))
    gone.cancel()
    assert await readers.run_within(LONG, short) == 1


# --- what a list does when it is interrupted ---------------------------------------------------------------


def test_a_page_that_is_out_of_time_ends_with_the_rows_that_it_has(tmp_path: Path) -> None:
    db, over = open_writer(tmp_path / "notifyd.db"), threading.Event()
    migrate(db, tmp_path)
    audit.write(db, [audit_record(f"a{number}") for number in range(5)])

    def read(_: sqlite3.Cursor, row: tuple[Any, ...]) -> tuple[Any, ...]:
        if "a3" in row:
            over.set()
        return row

    db.row_factory = read
    db.set_progress_handler(over.is_set, 1)
    found, after = audit.search(db, TENANT, AuditFilter(), Page(4))
    assert [one.id for one in found] == ["a4", "a3"]
    over.clear()
    assert [one.id for one in audit.search(db, TENANT, AuditFilter(), Page(4, after))[0]] == [
        "a2",
        "a1",
        "a0",
    ]
    db.close()


# --- a store whose lists and surveys never end -------------------------------------------------------------


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = await open_sqlite(tmp_path / "notifyd.db", node=NODE, clock=TurnableClock(), timeout=LONG)
    yield store
    await store.aclose()


async def the_way_of_an_event(store: SqliteStore) -> None:
    """What an event, an approver and a probe ask of the store."""
    await store.append(append_of(event()))
    await open_approval(store, approval())
    await store.claim_unplanned(NODE, NOW + MINUTE, NOW + 2 * MINUTE, 10)
    await insert(store, delivery(seq=2))
    assert [one.id for one in await store.claim_due("slack", NODE, NOW, NOW + MINUTE, 10)] == ["d1"]
    assert not await store.has_earlier(delivery(seq=2))
    await store.due_windows(NOW, 10)
    await store.due_approvals(NOW, 10)
    await store.owing_approvals(NOW, 10)
    assert await store.approval(approval().key)
    assert await store.delivery(TENANT, "d1")
    await store.probe()


async def test_nothing_on_the_way_of_an_event_waits_for_lists_however_many(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "search", lambda db, *_: endless(db))
    unknown = DeliveryFilter(channel="unknown")
    lists = [await begun(store.deliveries(TENANT, unknown, Page())) for _ in range(200)]
    await the_way_of_an_event(store)
    await store.outstanding()
    await store.backlog()
    assert not [one for one in lists if one.done()]
    for one in lists:
        one.cancel()
    await asyncio.gather(*lists, return_exceptions=True)


async def test_nothing_on_the_way_of_an_event_waits_for_counts_and_moving_and_neither_do_lists(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    waiting: Callable[..., int] = lambda *_: int(gate.wait(LONG))  # noqa: E731 - stands for a function
    monkeypatch.setattr(moving, "count", waiting)
    counts = [await begun(store.count(one)) for one in CollectionName for _ in range(10)]
    await the_way_of_an_event(store)
    assert len((await store.deliveries(TENANT, DeliveryFilter(), Page()))[0]) == 1
    assert not [one for one in counts if one.done()]
    gate.set()
    await until(lambda: all(one.done() for one in counts))
