"""What changes many rows at once does so in many steps: a step runs on the event loop, and must be short."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from notifyd.errors import StoreError
from notifyd.model import AuditSeal
from notifyd.store import Planned
from notifyd.store.sqlite import SqliteStore, deliveries, open_sqlite
from notifyd.store.sqlite.audit_seals import DROPPED_AT_ONCE
from notifyd.store.sqlite.deliveries import AT_ONCE as INSERTED_AT_ONCE
from notifyd.store.sqlite.files import Database
from notifyd.store.sqlite.windows import AT_ONCE
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
    delivery,
    event,
    insert,
    leased,
    open_approval,
    own_deputy,
    planned,
)

CLOSES = NOW + MINUTE


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = await open_sqlite(tmp_path / "notifyd.db", node=NODE, clock=TurnableClock())
    yield store
    await store.aclose()


@pytest.fixture
def changed(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each step of the writer has changed."""
    counts, submit = list[int](), store._writer.submit

    def counted(step: Callable[[Database], Any]) -> Any:
        def run(db: Database) -> Any:
            before = db.total_changes
            done = step(db)
            counts.append(db.total_changes - before)
            return done

        return submit(run)

    monkeypatch.setattr(store._writer, "submit", counted)
    return counts


async def test_the_windows_of_a_silence(store: SqliteStore, changed: list[int]) -> None:
    held = {"s:a": 1, "s:b": 2 * AT_ONCE + 1, "s:c": AT_ONCE, "t:a": 1}
    for key, rows in held.items():
        one = delivery(window=key, window_start=NOW, next_attempt_at=CLOSES)
        await insert(store, *(evolve(one, id=f"{key}{number}") for number in range(rows)))
    changed.clear()
    await store.close_windows(TENANT, "s:", "s;", NOW + 1)
    del held["t:a"]
    assert {one.key: one.count for one in await store.due_windows(NOW + 1, 9)} == held
    assert sum(changed) == sum(held.values())
    assert max(changed) <= AT_ONCE
    await store.close_windows(TENANT, "s:", "s;", NOW + 1)
    assert sum(changed) == sum(held.values()), "what closes already is not written again"


async def test_the_timers_of_all_that_is_pending(store: SqliteStore, changed: list[int]) -> None:
    pending = AT_ONCE + 1
    for number in range(pending):
        await open_approval(store, approval(run_id=f"run-{number}", timer_at=NOW + HOUR))
    changed.clear()
    await store.wake_timers()
    assert changed == [0, AT_ONCE, 1]
    assert len(await store.timed_approvals(NOW, 2 * pending)) == pending


async def test_a_timer_that_is_on_its_way_into_the_store_is_woken_too(store: SqliteStore) -> None:
    opened = asyncio.create_task(open_approval(store, approval(timer_at=NOW + HOUR)))
    await asyncio.sleep(0)
    await store.wake_timers()
    await opened
    assert len(await store.timed_approvals(NOW, 9)) == 1


async def test_the_seals_that_a_chain_needs_no_more(store: SqliteStore, changed: list[int]) -> None:
    last = 2 * DROPPED_AT_ONCE + 2
    for number in range(1, last + 1):
        assert await store.add_audit_seal(AuditSeal(TENANT, number, "{}"), ())
    changed.clear()
    await store.drop_audit_seals(TENANT, last)
    assert changed == [DROPPED_AT_ONCE, DROPPED_AT_ONCE, 1]
    first = await store.next_audit_seal(TENANT, 0)
    assert first is not None
    assert first.seal.number == last


async def test_the_deputies_that_are_over(store: SqliteStore, changed: list[int]) -> None:
    for number in range(AT_ONCE + 1):
        await store.add_deputy(own_deputy(f"p{number}", over_at=NOW), audit_record(f"a{number}"))
    changed.clear()
    assert await store.forget_deputies(NOW + 1) == AT_ONCE + 1
    assert changed == [AT_ONCE, 1]


async def test_what_is_written_meanwhile_waits_for_some_of_the_leases_that_are_renewed(
    store: SqliteStore, changed: list[int]
) -> None:
    rows = [leased(f"d{number}") for number in range(3000)]
    await insert(store, *rows)
    changed.clear()
    renewing = asyncio.ensure_future(store.renew_leases(rows, NOW + HOUR, sending=False))
    await asyncio.sleep(0)
    await store.append(append_of(event()))
    assert not renewing.done()
    assert len(await renewing) == 3000
    assert max(changed) <= 256


async def test_a_claim_takes_no_longer_where_more_waits(store: SqliteStore) -> None:
    few = [delivery(f"d{number}", rule=f"rule-{number % 3}") for number in range(30)]
    many = [delivery(f"e{number}", rule=f"rule-{number % 3}", created_at=NOW + 1) for number in range(600)]

    def look(db: Database) -> int:
        counted = count(1)
        db.set_progress_handler(lambda: next(counted) < 0, 1)
        found = deliveries.due(db, 1, "slack", NOW, 6, (), overdue_only=False)
        db.set_progress_handler(None, 0)
        assert len(found) == 6
        return next(counted)

    await insert(store, *few)
    before = await store._readers.run(look)
    await insert(store, *many)
    assert await store._readers.run(look) < 1.1 * before


WIDE = 2 * INSERTED_AT_ONCE + 1


def wide() -> Planned:
    given = event()
    return planned(given, *(delivery(f"d{number}", event_key=given.key) for number in range(WIDE)))


async def test_the_deliveries_of_one_event(store: SqliteStore, changed: list[int]) -> None:
    await store.append(append_of(event()))
    changed.clear()
    (fixed,) = await store.fix_plans([wide()])
    assert len(fixed.inserted) == WIDE
    assert max(changed) <= 2 * INSERTED_AT_ONCE + 2, "a row and its message, the plan, and what was due"
    assert await store.claim_unplanned(NODE, NOW + HOUR, NOW + 2 * HOUR, 10) == []
    (lost,) = await store.fix_plans([wide()])
    assert not lost.won
    assert not lost.inserted


async def test_the_deliveries_of_an_event_that_is_stored_with_its_plan(
    store: SqliteStore, changed: list[int]
) -> None:
    appended, fixed = await store.append_planned(append_of(event()), wide())
    assert appended.fresh
    assert fixed is not None
    assert len(fixed.inserted) == WIDE
    assert max(changed) <= 2 * INSERTED_AT_ONCE + 4
    assert await store.claim_unplanned(NODE, NOW + HOUR, NOW + 2 * HOUR, 10) == []


async def test_an_event_whose_deliveries_are_not_all_inserted_is_to_be_planned_still(
    store: SqliteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.append(append_of(event()))
    monkeypatch.setattr(store, "insert_deliveries", ended_there)
    with pytest.raises(StoreError):
        await store.fix_plans([wide()])
    await store.aclose()

    again = await open_sqlite(tmp_path / "notifyd.db", node=NODE, clock=TurnableClock())
    (found,) = await again.claim_unplanned(NODE, NOW, NOW + HOUR, 10)
    assert found.plan == wide().plan
    rest = await again.insert_deliveries(found, wide().deliveries)
    assert len(rest) == WIDE - INSERTED_AT_ONCE
    assert await again.claim_unplanned(NODE, NOW + 2 * HOUR, NOW + 3 * HOUR, 10) == []
    await again.aclose()


async def ended_there(*_: object) -> frozenset[str]:
    raise StoreError("the power failed")
