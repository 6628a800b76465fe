"""Events that wait for their plan: tenants take turns, in memory as far as there is room."""

from __future__ import annotations

import asyncio

from attrs import evolve

from notifyd.flow.memory import Memory, Share, event_size
from notifyd.flow.queues import TENANT_PLANNING_CAPACITY, PlanningQueue
from notifyd.model import Event
from tests.store.makers import event

ROOM = 1024 * 1024


def of(tenant: str, number: int, body: str = "{}") -> Event:
    return evolve(event(f"{tenant}-{number}"), tenant=tenant, body=body)


def keys(events: list[Event]) -> list[str]:
    return [one.key for one in events]


async def test_tenants_take_turns_and_each_keeps_its_order() -> None:
    queue = PlanningQueue()
    for number in range(5):
        queue.offer(of("acme", number))
    queue.offer(of("globex", 0))
    assert keys(await queue.take(3, ROOM)) == ["acme-0", "globex-0", "acme-1"]
    assert keys(await queue.take(9, ROOM)) == ["acme-2", "acme-3", "acme-4"]
    assert queue.waiting.total == 0


async def test_a_batch_ends_with_its_bytes_and_has_one_event_whatever_that_has() -> None:
    queue = PlanningQueue()
    for number in range(4):
        queue.offer(of("acme", number))
    size = event_size(of("acme", 0))
    assert len(await queue.take(9, 1)) == 1
    assert len(await queue.take(9, size + 1)) == 2


async def test_taking_waits_for_an_event() -> None:
    queue = PlanningQueue()
    taking = asyncio.create_task(queue.take(9, ROOM))
    await asyncio.sleep(0)
    assert not taking.done()
    queue.offer(of("acme", 0))
    assert keys(await taking) == ["acme-0"]
    again = asyncio.create_task(queue.take(9, ROOM))
    await asyncio.sleep(0)
    assert not again.done()
    again.cancel()


def test_a_tenant_that_floods_leaves_room_for_others() -> None:
    queue = PlanningQueue()
    for number in range(TENANT_PLANNING_CAPACITY):
        assert queue.takes(of("acme", number))
        queue.offer(of("acme", number))
    assert not queue.takes(of("acme", -1))
    assert queue.takes(of("globex", 0))


def test_a_tenant_with_large_events_leaves_room_for_others() -> None:
    large = of("acme", 0, '"' + "x" * 100_000 + '"')
    queue = PlanningQueue(Share(Memory(lambda: 10 * event_size(large))))
    count = 0
    while queue.takes(large):
        queue.offer(large)
        count += 1
    assert count == 4
    assert queue.takes(evolve(large, tenant="globex"))


async def test_what_is_left_behind_counts_until_it_is_taken_up() -> None:
    queue = PlanningQueue()
    for tenant in ("acme", "acme", "globex"):
        queue.offer(of(tenant, 0), leased=False)
    assert queue.only_left_behind
    assert (queue.waiting.total, queue.waiting.of("acme")) == (3, 2)
    queue.caught_up([of("acme", 0), of("initech", 0)])
    assert (queue.waiting.total, queue.waiting.of("acme")) == (2, 1)
    queue.caught_up([])
    assert queue.waiting.total == 0
    assert not queue.only_left_behind
