"""What several nodes on one MongoDB do about age: one of them removes, and another if that one cannot."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field

from notifyd.cli.common import Failure
from notifyd.cli.upkeep import failing
from notifyd.config.settings import Settings
from notifyd.config.units import DAY, MINUTE
from notifyd.errors import JobTakenError
from notifyd.flow.retention import REST, Retention
from notifyd.metrics import Metrics
from notifyd.model import State
from notifyd.store import CollectionName, Place, Turn
from notifyd.store.mongo import MongoStore, open_mongo
from tests.daemon import daemon
from tests.fakes import TurnableClock
from tests.mongodb import MongoServer
from tests.store.makers import audit_record, delivery

AUDIT = CollectionName.AUDIT


@define
class Member:
    """A node of a service on one MongoDB, and its retention."""

    store: MongoStore
    clock: TurnableClock
    metrics: Metrics
    retention: Retention

    @property
    def removed(self) -> float:
        labels = {"collection": AUDIT.value}
        return self.metrics.registry.get_sample_value("notifyd_purged_total", labels) or 0.0


@define
class Service:
    """Nodes that share a database and the time."""

    url: str
    clock: TurnableClock = field(factory=TurnableClock)
    members: list[Member] = field(factory=list)

    async def node(self, name: str) -> Member:
        store = await open_mongo(self.url, node=name, clock=self.clock, timeout=20)
        metrics, keep = Metrics(), Settings()
        retention = Retention(store=store, settings=lambda: keep, metrics=metrics, clock=self.clock)
        self.members.append(Member(store, self.clock, metrics, retention))
        return self.members[-1]

    async def fill(self, rows: int) -> None:
        """So many audit lines that are old enough to go."""
        old = self.clock() - 400 * DAY
        await self.members[0].store.restore([audit_record(f"a{old}-{n}", at=old + n) for n in range(rows)])

    async def left(self) -> int:
        return await self.members[0].store.count(AUDIT)


@pytest.fixture
async def service(mongo_server: MongoServer) -> AsyncIterator[Service]:
    service = Service(mongo_server.database())
    yield service
    for member in service.members:
        await member.store.aclose()


async def test_of_nodes_whose_passes_begin_at_once_one_removes(service: Service) -> None:
    nodes = [await service.node(name) for name in ("a", "b", "c")]
    await service.fill(120)
    removed = await asyncio.gather(*(member.retention.sweep() for member in nodes))
    assert sorted(removed) == [0, 0, 120]
    assert sorted(member.removed for member in nodes) == [0, 0, 120]
    assert await service.left() == 0


async def test_a_pass_that_one_node_has_done_is_not_repeated_by_another_within_the_hour(
    service: Service,
) -> None:
    first, second = await service.node("a"), await service.node("b")
    assert await first.retention.sweep() == 0
    await service.fill(3)
    service.clock.now += REST
    assert await second.retention.sweep() == 0
    service.clock.now += 1
    assert await second.retention.sweep() == 3


async def test_a_pass_that_its_node_did_not_live_to_end_is_another_s_after_the_lease(
    service: Service,
) -> None:
    killed, second = await service.node("a"), await service.node("b")
    await service.fill(120)
    batches = killed.retention.batches(Place(AUDIT))
    assert (await anext(batches)).removed == 50
    assert await second.retention.sweep() == 0
    service.clock.now += MINUTE - 1
    assert await second.retention.sweep() == 0
    service.clock.now += 1
    assert await second.retention.sweep() == 70
    await batches.aclose()  # should it wake
    assert await service.left() == 0


async def test_a_node_that_lost_its_lease_stops_before_the_next_batch(service: Service) -> None:
    slow, second = await service.node("a"), await service.node("b")
    await service.fill(120)
    batches = slow.retention.batches(Place(AUDIT))
    await anext(batches)
    service.clock.now += MINUTE
    others = second.retention.batches(Place(AUDIT))
    await anext(others)
    left = await service.left()
    assert left > 0
    with pytest.raises(JobTakenError, match="node 'b' has it"):
        await anext(batches)
    assert await service.left() == left
    await others.aclose()


async def test_a_pass_by_hand_is_refused_with_the_name_of_the_node_that_is_at_it_and_counting_is_not(
    service: Service,
) -> None:
    first, second = await service.node("a"), await service.node("b")
    await service.fill(60)
    running = first.retention.batches(Place(AUDIT))
    await anext(running)
    with pytest.raises(JobTakenError, match="node 'a' has it"):
        await anext(second.retention.batches())
    counted = [batch async for batch in second.retention.batches(dry_run=True)]
    assert sum(batch.removed for batch in counted) == 10
    await running.aclose()
    by_hand = [batch async for batch in second.retention.batches()]
    assert sum(batch.removed for batch in by_hand) == 10


async def test_a_pass_by_hand_follows_one_by_the_clock_at_once(service: Service) -> None:
    first, second = await service.node("a"), await service.node("b")
    await first.retention.sweep()
    await service.fill(3)
    assert sum([batch.removed async for batch in second.retention.batches()]) == 3


async def test_a_node_that_removes_nothing_counts_what_others_left_of_the_dead_letters(
    service: Service,
) -> None:
    first, second = await service.node("a"), await service.node("b")
    await first.store.restore([delivery("d1", state=State.DEAD, ended_at=service.clock())])
    second.metrics.set_dead_letters(await second.store.dead_letters())
    service.clock.now += 31 * DAY
    await first.retention.sweep()
    await second.retention.sweep()
    assert second.metrics.dead_letters.labels("slack")._value.get() == 0


def test_a_purge_of_a_stopped_service_s_store_says_it_too_and_ends() -> None:
    with pytest.raises(Failure, match="node 'b' has it"), failing():
        raise JobTakenError("the job 'retention' is not done here: node 'b' has it")


async def test_a_purge_by_hand_says_which_other_node_is_at_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def taken(*_: Any, **__: Any) -> Turn:
        return Turn(mine=False, node="b")

    async with daemon(tmp_path) as notifyd:
        monkeypatch.setattr(notifyd.app._store, "claim_job", taken)
        answer = await notifyd.post("/api/v1/purge", {}, "operator")
        assert (answer.status, answer.json["code"]) == (503, "job_taken")
        assert "node 'b' has it" in answer.json["detail"]
        assert answer.headers["Retry-After"] == "5"
