"""How SQLite removes: a little at a time, and only what is still old when its turn comes."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from attrs import evolve

from notifyd.model import State
from notifyd.store import Aged, CollectionName
from notifyd.store.sqlite import SqliteStore, open_sqlite, retention
from tests.store.makers import (
    HOUR,
    NODE,
    NOW,
    TENANT,
    TurnableClock,
    audit_record,
    delivery,
    ended,
    insert,
    leased,
)

DELIVERIES, AUDIT = CollectionName.DELIVERIES, CollectionName.AUDIT


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = await open_sqlite(tmp_path / "notifyd.db", node=NODE, clock=TurnableClock())
    yield store
    await store.aclose()


async def test_a_removal_out_of_time_goes_on_where_it_stopped(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "STEP_SECONDS", 0.0)
    await store.write_audit([audit_record(f"a{number}", at=NOW - number) for number in range(5)])
    aged = Aged(AUDIT, NOW + 1)
    done = await store.purge(aged, 10)
    assert (done.examined, done.removed) == (1, 1)
    assert done.after is not None
    left = []
    while done.after is not None:
        done = await store.purge(aged, 10, done.after)
        left.append(await store.count(AUDIT))
    assert left == [3, 2, 1, 0]


async def test_a_removal_tells_how_long_it_kept_others_waiting(store: SqliteStore) -> None:
    await store.write_audit([audit_record()])
    assert (await store.purge(Aged(AUDIT, NOW), 10)).seconds == 0.0
    assert (await store.purge(Aged(AUDIT, NOW + 1), 10, dry_run=True)).seconds == 0.0
    assert 0.0 < (await store.purge(Aged(AUDIT, NOW + 1), 10)).seconds < 60.0


async def test_a_row_that_was_taken_up_between_the_look_and_the_removal_stays(
    store: SqliteStore, tmp_path: Path
) -> None:
    await insert(store, leased(), leased("d2"))
    for row in (leased(), leased("d2")):
        await store.record(ended(row, State.DEAD))
    aged = Aged(DELIVERIES, NOW + HOUR)
    found = await store._read(lambda db: retention.candidates(db, aged, 10, ""))
    assert [one.removable for one in found] == [True, True]
    await store.revive(TENANT, "d1", NOW, NOW + HOUR)
    removal = await store._writer.submit(lambda db: retention.remove(db, aged, found))
    assert (removal.done, removal.removed) == (2, 1)
    assert await store.delivery(TENANT, "d1") is not None


async def test_a_removed_delivery_takes_its_message_along(store: SqliteStore, tmp_path: Path) -> None:
    await store.restore([evolve(delivery(), state=State.SENT, ended_at=NOW)])
    await store.purge(Aged(DELIVERIES, NOW + 1), 10)
    with sqlite3.connect(tmp_path / "notifyd.db") as db:
        assert db.execute("SELECT count(*) FROM messages").fetchone() == (0,)
    db.close()
