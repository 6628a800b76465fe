"""What one of several nodes on one MongoDB does for all: who has the job, and who has it next."""

from __future__ import annotations

import asyncio
import time

import pytest

from notifyd.model import SECOND, Instant
from notifyd.store import Job, Turn
from notifyd.store.mongo import MongoStore
from tests.store.conftest import Open
from tests.store.makers import HOUR, MINUTE, NOW, TurnableClock

JOB = Job.RETENTION


async def claim(store: MongoStore, now: Instant = NOW, since: Instant | None = None) -> Turn:
    return await store.claim_job(JOB, now, now + MINUTE, unless_done_since=since)


async def test_of_nodes_that_claim_a_job_at_once_one_has_it_and_the_others_are_told_who(node: Open) -> None:
    stores = {name: await node(name) for name in ("a", "b", "c")}
    turns = await asyncio.gather(*map(claim, stores.values()))
    assert [turn.mine for turn in turns].count(True) == 1
    (owner,) = {turn.node for turn in turns}
    assert [name for name, turn in zip(stores, turns, strict=True) if turn.mine] == [owner]


async def test_a_job_is_its_node_s_as_long_as_that_renews_the_lease(node: Open) -> None:
    first, second = await node("a"), await node("b")
    for minute in range(3):
        now = NOW + minute * (MINUTE - 1)
        assert (await claim(first, now)).mine
        assert await claim(second, now + MINUTE - 1) == Turn(mine=False, node="a")
    assert await claim(second, NOW + 3 * MINUTE - 2) == Turn(mine=True, node="b")
    assert await claim(first, NOW + 3 * MINUTE - 2) == Turn(mine=False, node="b")


async def test_a_job_goes_to_others_only_after_the_lease_s_end_and_the_clocks_tolerance(node: Open) -> None:
    wall = TurnableClock(time.time_ns() // 1000)
    first, second = await node("a", clock=wall, clock_skew=5), await node("b", clock=wall, clock_skew=5)
    assert (await claim(first, wall.now)).mine
    assert not (await claim(second, wall.now + MINUTE + 4 * SECOND)).mine
    assert (await claim(second, wall.now + MINUTE + 6 * SECOND)).mine


async def test_a_job_that_is_given_back_is_free_at_once(node: Open) -> None:
    first, second = await node("a"), await node("b")
    await claim(first)
    await second.end_job(JOB, NOW)
    assert not (await claim(second)).mine, "only its node gives it back"
    await first.end_job(JOB)
    assert (await claim(second)).mine


async def test_a_job_that_was_done_need_not_be_done_again_soon_by_any_node(node: Open) -> None:
    first, second = await node("a"), await node("b")
    assert (await claim(first, since=NOW - HOUR)).mine
    await first.end_job(JOB, NOW)
    for store in (first, second):
        assert await claim(store, NOW + HOUR, since=NOW) == Turn(mine=False, node="a")
    assert (await claim(second, NOW + HOUR, since=NOW + 1)).mine
    await second.end_job(JOB)
    assert (await claim(first, NOW + HOUR)).mine, "one who asks for it whatever was done has it"


async def test_a_job_that_its_node_left_undone_is_done_by_another(node: Open) -> None:
    first, second = await node("a"), await node("b")
    assert (await claim(first, since=NOW - HOUR)).mine
    await first.end_job(JOB)
    assert (await claim(second, since=NOW - HOUR)).mine


async def test_a_node_that_starts_voids_the_lease_of_its_earlier_life_which_has_it_no_longer(
    node: Open,
) -> None:
    killed, other = await node("a"), await node("b")
    await claim(killed)
    again = await node("a")
    assert await claim(other) == Turn(mine=True, node="b")
    await other.end_job(JOB)
    assert (await claim(again)).mine
    assert await claim(killed) == Turn(mine=False, node="a")
    await killed.end_job(JOB, NOW)
    assert not (await claim(other)).mine


async def test_a_lease_that_ends_further_ahead_than_any_is_given_for_is_void(node: Open) -> None:
    first, second = await node("a"), await node("b")
    await first.claim_job(JOB, NOW + 24 * HOUR, NOW + 25 * HOUR)
    assert (await claim(second)).mine


async def test_a_node_whose_clock_is_off_has_no_job(node: Open, caplog: pytest.LogCaptureFixture) -> None:
    store = await node("a", clock=TurnableClock(), clock_skew=5)
    assert await claim(store) == Turn(mine=False)
    assert "nothing is claimed or ended by it until it is right" in caplog.text
