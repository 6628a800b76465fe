"""What age removes, when, and in how large steps."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field

from notifyd.config.settings import Auth, Settings
from notifyd.config.settings import Retention as Keep
from notifyd.config.units import DAY, MINUTE, Duration
from notifyd.errors import StoreError
from notifyd.flow.retention import TARGET, Retention, bounds, next_size
from notifyd.metrics import Metrics
from notifyd.model import State, Status
from notifyd.store import Aged, CollectionName, Place, Purged, Store, StoredEvent, Turn
from tests.fakes import TurnableClock, sqlite
from tests.store.makers import NOW, approval, audit_record, delivery, event, incident

EVENTS, APPROVALS, INCIDENTS, DELIVERIES, AUDIT = CollectionName


def settings(**keep: Any) -> Settings:
    return Settings(retention=Keep(**keep), auth=Auth(clock_tolerance=MINUTE))


# --- from when on ------------------------------------------------------------------------------------------


def test_each_collection_has_an_age_of_its_own() -> None:
    keep = {"approvals": 90, "events": 30, "deliveries": 20, "incidents": 80, "audit": 365}
    found = bounds(settings(**{name: Duration(days * DAY) for name, days in keep.items()}), NOW)
    assert found == {
        EVENTS: NOW - 30 * DAY - MINUTE,
        APPROVALS: NOW - 90 * DAY,
        INCIDENTS: NOW - 80 * DAY,
        DELIVERIES: NOW - 20 * DAY,
        AUDIT: NOW - 365 * DAY,
    }


def test_approvals_and_incidents_stay_as_long_as_an_event_about_them_would_be_accepted() -> None:
    found = bounds(settings(approvals=Duration(DAY), incidents=Duration(DAY), events=Duration(2 * DAY)), NOW)
    assert found[APPROVALS] == found[INCIDENTS] == found[EVENTS]


# --- how much at once --------------------------------------------------------------------------------------


def test_a_batch_that_took_too_long_makes_the_next_one_smaller_in_proportion() -> None:
    assert next_size(100, 4 * TARGET) == 25
    assert next_size(1, 1000.0) == 1


def test_a_quick_batch_at_most_doubles_the_next_up_to_a_bound() -> None:
    assert next_size(100, TARGET / 50) == 200
    assert next_size(100, 0.0) == 200
    assert next_size(400, TARGET / 50) == 500


@define
class SlowStore:
    """Has so many old rows; each takes a millisecond."""

    left: int
    sizes: list[int] = field(factory=list)

    async def purge(self, aged: Aged, limit: int, after: str = "", *, dry_run: bool = False) -> Purged:
        if aged.collection is not EVENTS:
            return Purged(0, 0, 0.0, None)
        done = min(limit, self.left)
        self.left -= done
        self.sizes.append(done)
        return Purged(done, done, done / 1000, "more" if self.left else None)

    async def dead_letters(self) -> dict[str, int]:
        return {}

    async def claim_job(self, *_: Any, **__: Any) -> Turn:
        return Turn(mine=True)

    async def end_job(self, *_: Any) -> None:
        """There is nobody else."""

    async def tenants_with_audit(self, _: int) -> list[str]:
        return []

    async def forget_deputies(self, _: int) -> int:
        return 0


async def test_batches_settle_at_the_size_that_takes_the_time_aimed_at() -> None:
    store: Any = SlowStore(200)
    retention = Retention(store=store, settings=settings, metrics=Metrics(), clock=TurnableClock())
    assert await retention.sweep() == 200
    assert store.sizes[0] == 50
    assert set(store.sizes[1:-1]) == {TARGET * 1000}


# --- a pass ------------------------------------------------------------------------------------------------


@define
class Bench:
    """A store with one of everything, all of it over at `NOW`, and its retention."""

    store: Store
    clock: TurnableClock
    metrics: Metrics
    retention: Retention

    def purged(self, collection: CollectionName) -> float:
        labels = {"collection": collection.value}
        return self.metrics.registry.get_sample_value("notifyd_purged_total", labels) or 0.0


ROWS = (
    StoredEvent(event("e1", run_id=None, approval_id=None), planned=True),
    approval(status=Status.APPROVED, ended_at=NOW),
    incident(open=False, closed_at=NOW),
    delivery(state=State.DEAD, ended_at=NOW),
    audit_record(),
)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    clock, metrics = TurnableClock(NOW), Metrics()
    store = await sqlite(tmp_path, clock)
    await store.restore(ROWS)
    keep = settings(hold_label="case")
    yield Bench(
        store, clock, metrics, Retention(store=store, settings=lambda: keep, metrics=metrics, clock=clock)
    )
    await store.aclose()


async def counts(store: Store) -> list[int]:
    return [await store.count(collection) for collection in CollectionName]


async def test_a_pass_removes_counts_and_logs_what_is_old(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert await bench.retention.sweep() == 0
    assert caplog.messages == []
    bench.clock.turn(31 * 86400)
    assert await bench.retention.sweep() == 2
    assert await counts(bench.store) == [0, 1, 1, 0, 1]
    assert [bench.purged(one) for one in CollectionName] == [1, 0, 0, 1, 0]
    assert caplog.messages == ["removed by age: events 1, approvals 0, incidents 0, deliveries 1, audit 0"]
    bench.clock.turn(340 * 86400)
    assert await bench.retention.sweep() == 3


async def test_the_gauge_of_dead_letters_follows_a_pass(bench: Bench) -> None:
    bench.metrics.set_dead_letters(await bench.store.dead_letters())
    assert bench.metrics.dead_letters.labels("slack")._value.get() == 1
    bench.clock.turn(31 * 86400)
    await bench.retention.sweep()
    assert bench.metrics.dead_letters.labels("slack")._value.get() == 0


async def test_a_dry_run_counts_and_changes_neither_store_nor_metric(bench: Bench) -> None:
    bench.clock.turn(31 * 86400)
    batches = [batch async for batch in bench.retention.batches(dry_run=True)]
    assert {batch.collection: batch.removed for batch in batches} | {AUDIT: 0} == {
        EVENTS: 1,
        APPROVALS: 0,
        INCIDENTS: 0,
        DELIVERIES: 1,
        AUDIT: 0,
    }
    assert await counts(bench.store) == [1] * 5
    assert bench.purged(EVENTS) == 0


async def test_a_pass_goes_on_from_the_place_that_a_batch_named(bench: Bench) -> None:
    bench.clock.turn(31 * 86400)
    batches = [batch async for batch in bench.retention.batches(Place(DELIVERIES))]
    assert [batch.collection for batch in batches] == [DELIVERIES, AUDIT]
    assert await counts(bench.store) == [1, 1, 1, 0, 1]


async def test_what_carries_the_label_of_the_configuration_stays(bench: Bench) -> None:
    held = approval(run_id="held", status=Status.APPROVED, ended_at=NOW, request='{"labels":{"case":"1"}}')
    await bench.store.restore([held])
    bench.clock.turn(91 * 86400)
    await bench.retention.sweep()
    assert await bench.store.approval(held.key) is not None
    assert await bench.store.approval(approval().key) is None


async def test_a_store_that_fails_ends_the_pass_and_the_next_one_begins_anew(bench: Bench) -> None:
    bench.clock.turn(31 * 86400)
    await bench.store.aclose()
    with pytest.raises(StoreError):
        await bench.retention.sweep()
    with pytest.raises(StoreError):
        await bench.retention.sweep()
