"""How SQLite removes: a little at a time, and only what is still old when its turn comes."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from attrs import define, evolve

from notifyd.model import State, Status
from notifyd.store import Aged, CollectionName
from notifyd.store.sqlite import SqliteStore, open_sqlite, retention
from tests.store.makers import (
    HOUR,
    NODE,
    NOW,
    TENANT,
    TurnableClock,
    approval,
    audit_record,
    delivery,
    effect,
    ended,
    insert,
    leased,
)

EVENTS, APPROVALS, INCIDENTS, DELIVERIES, AUDIT = CollectionName


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


@define
class Stopwatch:
    """Stands for `perf_counter`: each look at it is a millisecond later."""

    looks: int = 0

    def __call__(self) -> float:
        self.looks += 1
        return self.looks / 1000


@pytest.mark.parametrize("collection", [DELIVERIES, AUDIT])
async def test_a_removal_stops_when_its_share_of_the_time_is_used_however_much_is_wanted(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, collection: CollectionName
) -> None:
    await store.restore([evolve(delivery(f"d{n}"), state=State.SENT, ended_at=NOW) for n in range(20)])
    await store.write_audit([audit_record(f"a{n}") for n in range(20)])
    aged = Aged(collection, NOW + 1)
    found = await store._read(lambda db: retention.candidates(db, aged, 500, ""))
    monkeypatch.setattr(retention, "perf_counter", Stopwatch())
    removal = await store._writer.submit(lambda db: retention.remove(db, aged, found))
    assert (len(found), removal.done, removal.removed) == (20, 5, 5)
    assert retention.STEP_SECONDS * 1000 == 5, "a row is a millisecond here"


async def test_rows_whose_pages_could_not_be_read_in_time_wait_for_the_next_removal(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.write_audit([audit_record(f"a{number}", at=NOW - number) for number in range(3)])
    monkeypatch.setattr(retention, "WARM_SECONDS", 0.0)
    aged = Aged(AUDIT, NOW + 1)
    done = await store.purge(aged, 10)
    assert (done.examined, done.removed) == (1, 1)
    assert done.after is not None
    monkeypatch.setattr(retention, "WARM_SECONDS", 60.0)
    done = await store.purge(aged, 10, done.after)
    assert (done.examined, done.removed, done.after) == (2, 2, None)


@pytest.mark.parametrize("collection", CollectionName)
async def test_what_is_read_for_a_removal_is_the_row_its_part_and_its_place_in_each_index(
    store: SqliteStore, collection: CollectionName
) -> None:
    def explained(db: sqlite3.Connection) -> tuple[list[str], set[str]]:
        plans = [
            detail
            for statement in retention._reads(db, collection)
            for *_, detail in db.execute(f"EXPLAIN QUERY PLAN {statement}", (1,))
        ]
        named = "SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = ?"
        return plans, {name for (name,) in db.execute(named, (collection,))}

    plans, indexes = await store._read(explained)
    decisions = (
        "SEARCH decisions USING INDEX decisions_superseded (approval=?)"  # of an approval, by its rowid
    )
    assert (decisions in plans) is (collection is APPROVALS)
    searched = [plan for plan in plans if "SUBQUERY" not in plan and plan != decisions]
    assert all(plan.startswith("SEARCH") and plan.endswith("rowid=?)") for plan in searched)
    assert {name for name in indexes if any(f" {name} (" in plan for plan in searched)} == indexes
    tables = {plan.split()[1] for plan in searched if "INTEGER PRIMARY KEY" in plan}
    part = {EVENTS: {"plans"}, DELIVERIES: {"messages"}}.get(collection, set())
    assert tables == {"old"} | part


async def test_what_is_read_for_a_removal_are_only_the_rows_that_may_go(store: SqliteStore) -> None:
    await store.restore([approval(status=Status.APPROVED, ended_at=NOW, effects=(effect("x"),))])
    aged = Aged(APPROVALS, NOW + 1)
    found = await store._read(lambda db: retention.candidates(db, aged, 10, ""))
    assert [one.removable for one in found] == [False]
    read: list[str] = []

    def warm(db: sqlite3.Connection) -> list[retention.Candidate]:
        db.set_trace_callback(read.append)
        try:
            return retention.warm(db, aged, [evolve(found[0], removable=wanted) for wanted in (False, True)])
        finally:
            db.set_trace_callback(None)

    await store._read(warm)
    assert sum("SELECT old.*" in statement for statement in read) == 1


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
