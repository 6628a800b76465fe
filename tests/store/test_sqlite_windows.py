"""Windows that hold more rows than one step changes: a step runs on the event loop, and must be short."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path

from attrs import evolve

from notifyd.model import Instant, State
from notifyd.store import DeliveryFilter, Page, Window
from notifyd.store.sqlite import SqliteStore, open_sqlite, windows
from notifyd.store.sqlite.files import Database
from notifyd.store.sqlite.windows import AT_ONCE
from tests.store.makers import HOUR, MINUTE, NODE, NOW, TENANT, TurnableClock, delivery, get, insert

CLOSES = NOW + MINUTE
MANY = 2 * AT_ONCE + 1


async def test_a_very_full_window_is_postponed_folded_and_let_go_whole(tmp_path: Path) -> None:
    store = await open_sqlite(tmp_path / "notifyd.db", node=NODE, clock=TurnableClock())
    for key in ("w", "v"):
        one = delivery(window=key, window_start=NOW, next_attempt_at=CLOSES)
        await insert(store, *(evolve(one, id=f"{key}{number}") for number in range(MANY)))
    folded, freed = (Window(TENANT, key, NOW, CLOSES, "slack", "slack", MANY) for key in ("w", "v"))

    await store.postpone(folded, CLOSES + HOUR)
    assert await store.due_windows(CLOSES, 10) == [freed]
    assert await store.due_windows(CLOSES + HOUR, 10) == [freed, evolve(folded, closes_at=CLOSES + HOUR)]

    digest = delivery("digest", seq=0)
    assert await store.fold(folded, digest, None) == MANY
    assert await store.let_go(freed) == MANY
    assert await store.due_windows(CLOSES + HOUR, 10) == []
    assert await get(store, digest) == digest
    rows, _ = await store.deliveries(TENANT, DeliveryFilter(State.FOLDED), Page(2 * MANY))
    assert {row.folded_into for row in rows} == {"digest"}
    assert len(rows) == MANY
    (lane,) = await store.backlog()
    assert lane.waiting == MANY + 1
    await store.aclose()


async def test_looking_for_windows_that_close_reads_the_rows_of_as_many_as_are_wanted(tmp_path: Path) -> None:
    store = await open_sqlite(tmp_path / "notifyd.db", node=NODE, clock=TurnableClock())
    held = [
        delivery(f"d{n:04}", window=f"w{n:04}", window_start=NOW + n, next_attempt_at=CLOSES + n)
        for n in range(MANY)
    ]
    few = await steps(store, lambda: insert(store, *held[:30]), CLOSES + MANY)
    many = await steps(store, lambda: insert(store, *held[30:]), CLOSES + MANY)
    assert many < 1.1 * few
    await store.aclose()


async def steps(store: SqliteStore, fill: Callable[[], Awaitable[object]], now: Instant) -> int:
    """The steps of SQLite's machine for ten windows, once the store is filled."""
    await fill()
    counted = count(1)

    def due(db: Database) -> int:
        db.set_progress_handler(lambda: next(counted) < 0, 1)
        found = windows.due(db, now, 10)
        db.set_progress_handler(None, 0)
        assert [one.key for one in found] == [f"w{n:04}" for n in range(10)]
        return next(counted)

    return await store._readers.run(due)
