"""The audit trail is sealed, and what age removes is said in its chain before it goes, on each kind of store."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from attrs import define

from notifyd.config.settings import Keys, Settings
from notifyd.config.settings import Retention as Keep
from notifyd.config.units import DAY, Duration
from notifyd.errors import StoreError
from notifyd.flow.retention import Retention
from notifyd.flow.seal import BATCH, AuditSealing
from notifyd.metrics import Metrics
from notifyd.model import AuditSeal
from notifyd.security.secrets import Secret
from notifyd.store import Aged, CollectionName, Store
from notifyd.store.sqlite import rows
from notifyd.store.sqlite.files import open_writer
from notifyd.store.sqlite.schema import MIGRATIONS, migrate
from notifyd.wire.audit import audit_json
from notifyd.wire.chain import ChainCheck
from tests.fakes import sqlite
from tests.store.makers import TENANT, TurnableClock, audit_record

SETTINGS = Settings(
    retention=Keep(audit=Duration(DAY), hold_label="case"),
    keys=Keys(sign=(Secret("whsk_" + base64.b64encode(b"k" * 32).decode()),)),
)


@define
class Bench:
    """The two jobs over the audit trail of one node, on a clock that the test turns."""

    store: Store
    clock: TurnableClock
    sealing: AuditSealing
    retention: Retention

    @classmethod
    def over(cls, store: Any) -> Bench:
        clock = TurnableClock()
        given: dict[str, Any] = {"store": store, "settings": lambda: SETTINGS, "clock": clock}
        return cls(store, clock, AuditSealing(**given), Retention(**given, metrics=Metrics()))

    async def write(self, *names: str, tenant: str = TENANT) -> None:
        await self.store.write_audit(
            [
                audit_record(name, tenant=tenant, at=self.clock(), run_id=None, approval_id=None)
                for name in names
            ]
        )

    async def check(self, tenant: str = TENANT) -> tuple[ChainCheck, list[str]]:
        check, faults, number = ChainCheck(), list[str](), 0
        while (found := await self.store.next_audit_seal(tenant, number)) is not None:
            number = found.seal.number
            faults += check.add(number, found.seal.envelope, [audit_json(one) for one in found.records])
        strays = [audit_json(one) for one in await self.store.stray_audit(tenant, 9)]
        return check, [*faults, *check.end(strays)]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """Over SQLite: what a store does for them is shown of each kind above, and in its contract."""
    (folder := tmp_path / "bench").mkdir()
    store = await sqlite(folder, TurnableClock())
    yield Bench.over(store)
    await store.aclose()


async def test_each_tenant_has_a_chain_of_its_own_over_all_that_was_written(store: Store) -> None:
    bench = Bench.over(store)
    await bench.write(*(f"a{number}" for number in range(BATCH + 1)))
    await bench.write("b", tenant="")
    assert await bench.sealing.sweep() == BATCH + 2
    assert await bench.sealing.sweep() == 0
    await bench.write("late")
    assert await bench.sealing.sweep() == 1
    (mine, wrong), (untenanted, none) = await bench.check(), await bench.check("")
    assert (mine.seals, mine.records, wrong) == (3, BATCH + 2, [])
    assert (untenanted.seals, untenanted.records, none) == (1, 1, [])


async def test_age_removes_sealed_records_and_the_chain_still_holds(store: Store) -> None:
    bench = Bench.over(store)
    await bench.write("old-1", "old-2")
    await bench.sealing.sweep()
    bench.clock.now += 2 * DAY
    await bench.write("new")
    await bench.sealing.sweep()
    assert await bench.retention.sweep() == 2
    check, faults = await bench.check()
    assert (check.seals, check.records, check.purged, faults) == (3, 1, 2, [])
    bench.clock.now += DAY // 2
    await bench.retention.sweep()
    assert (await bench.check())[0].seals == 3  # nothing was to be removed, and so nothing is said


async def test_seals_whose_records_are_gone_are_dropped_and_the_chain_still_holds(bench: Bench) -> None:
    for day in range(4):
        await bench.write(f"day-{day}")
        await bench.sealing.sweep()
        await bench.retention.sweep()
        bench.clock.now += DAY
    bench.clock.now += DAY
    await bench.retention.sweep()
    await bench.write("last")
    await bench.sealing.sweep()
    bench.clock.now += 2 * DAY
    await bench.retention.sweep()
    check, faults = await bench.check()
    assert (faults, check.records) == ([], 0)
    first = await bench.store.next_audit_seal(TENANT, 0)
    assert first is not None
    assert first.seal.number > 4


async def test_a_record_that_was_removed_before_its_time_is_told(bench: Bench) -> None:
    await bench.write("old")
    bench.clock.now += 2 * DAY
    await bench.write("new")
    await bench.sealing.sweep()
    await bench.retention.sweep()
    await bench.store.purge(Aged(CollectionName.AUDIT, bench.clock() + 1), 9)
    _, faults = await bench.check()
    assert [fault.partition(" of ")[0] for fault in faults] == ["seal 1: record new"]


async def test_a_node_that_died_after_its_checkpoint_leaves_a_chain_that_holds(bench: Bench) -> None:
    await bench.write("old")
    await bench.sealing.sweep()
    bench.clock.now += 2 * DAY
    await bench.retention._chains.allow_purge(bench.clock() - DAY)
    assert (await bench.check())[1] == []
    again = Bench.over(bench.store)
    again.clock.now = bench.clock.now
    assert await again.retention.sweep() == 1
    assert (await bench.check())[1] == []


class Cut:
    """A store that dies after so many writes to the chain, with or without having done the last."""

    def __init__(self, store: Store, after: int, *, done: bool) -> None:
        self._store = store
        self._left = after
        self._done = done

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def add_audit_seal(self, seal: AuditSeal, records: Any) -> bool:
        self._left -= 1
        if self._left or self._done:
            await self._store.add_audit_seal(seal, records)
        if not self._left:
            raise StoreError("cut off")
        return True


@pytest.mark.parametrize("done", [True, False])
async def test_sealing_that_was_cut_off_goes_on_without_a_gap(bench: Bench, done: bool) -> None:
    await bench.write(*(f"a{number}" for number in range(BATCH + 1)))
    with pytest.raises(StoreError):
        await Bench.over(Cut(bench.store, 1, done=done)).sealing.sweep()
    await bench.sealing.sweep()
    check, faults = await bench.check()
    assert (check.seals, check.records, faults) == (2, BATCH + 1, [])


async def test_another_node_that_was_first_is_given_way_to(bench: Bench) -> None:
    await bench.write("a")
    records = await bench.store.unsealed_audit(TENANT, 9)
    await bench.sealing.sweep()
    assert not await bench.sealing._chains.seal(TENANT, records)
    check, faults = await bench.check()
    assert (check.seals, faults) == (1, [])


async def test_what_an_older_version_has_written_is_sealed(tmp_path: Path) -> None:
    path, record = tmp_path / "notifyd.db", audit_record("old")
    with closing(open_writer(path)) as db:
        migrate(db, path, MIGRATIONS[:16])
        db.execute(rows.insert("audit", rows.AUDIT), rows.audit_row(record))
    store = await sqlite(tmp_path, TurnableClock())
    bench = Bench.over(store)
    assert await bench.sealing.sweep() == 1
    check, faults = await bench.check()
    assert (check.records, faults) == (1, [])
    await store.aclose()


async def test_a_chain_moves_to_another_store_with_what_age_has_removed_from_it(
    bench: Bench, store: Store
) -> None:
    await bench.write("old")
    await bench.sealing.sweep()
    bench.clock.now += 2 * DAY
    await bench.write("b", "a", "c")
    await bench.write("x", tenant="")
    await bench.sealing.sweep()
    await bench.retention.sweep()
    await bench.write("unsealed")
    after: str | None = ""
    while after is not None:
        rows, after = await bench.store.dump(CollectionName.AUDIT, after, 2)
        assert await store.restore(rows) == len(rows)
        assert await store.restore(rows) == 0
    moved = Bench.over(store)
    assert await store.tenants_with_unsealed_audit() == [TENANT]
    assert await moved.sealing.sweep() == 1
    (mine, wrong), (untenanted, none) = await moved.check(), await moved.check("")
    assert (mine.seals, mine.records, mine.purged, wrong) == (4, 4, 1, [])
    assert (untenanted.seals, untenanted.records, none) == (1, 1, [])
