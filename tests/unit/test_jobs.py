"""How a node keeps the lease of a job while it is at it, and when it lets go."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from attrs import define, field

from notifyd.errors import JobTakenError, StoreError
from notifyd.flow.jobs import JobLease
from notifyd.model import SECOND, Instant
from notifyd.store import Job, Turn
from tests.fakes import NOW, TurnableClock
from tests.waiting import until

LEASE = 60 * SECOND
OURS = Turn(mine=True, node="a")


@define
class Jobs:
    """The operations of a store that a lease needs; it gives what `turn` says."""

    turn: Turn = OURS
    claims: list[tuple[Instant, Instant, Instant | None]] = field(factory=list)
    ends: list[Instant | None] = field(factory=list)
    fault: StoreError | None = None

    async def claim_job(
        self, job: Job, now: Instant, until: Instant, *, unless_done_since: Instant | None = None
    ) -> Turn:
        assert job is Job.RETENTION
        self.claims.append((now, until, unless_done_since))
        return self.turn

    async def end_job(self, job: Job, done_at: Instant | None = None) -> None:
        self.ends.append(done_at)
        if self.fault is not None:
            raise self.fault


@define
class Bench:
    jobs: Jobs = field(factory=Jobs)
    clock: TurnableClock = field(factory=TurnableClock)
    length: Instant = LEASE

    def lease(self) -> JobLease:
        store: Any = self.jobs
        return JobLease(Job.RETENTION, store, lambda: self.length, self.clock)


async def test_a_lease_is_taken_for_its_time_and_given_back() -> None:
    bench = Bench()
    async with bench.lease().held(rest=10):
        assert bench.jobs.claims == [(NOW, NOW + LEASE, NOW - 10)]
        assert bench.jobs.ends == []
    assert bench.jobs.ends == [None]


async def test_a_job_that_is_done_is_given_back_with_the_time_of_that() -> None:
    bench = Bench()
    lease = bench.lease()
    async with lease.held():
        bench.clock.turn(5)
        lease.note_done()
        bench.clock.turn(5)
    async with lease.held():
        pass
    assert bench.jobs.ends == [NOW + 5 * SECOND, None]


async def test_a_lease_is_renewed_when_a_step_begins_and_the_last_look_is_a_second_old() -> None:
    bench = Bench()
    lease = bench.lease()
    async with lease.held():
        await lease.keep()
        bench.clock.turn(0.9)
        await lease.keep()
        assert len(bench.jobs.claims) == 1
        bench.clock.turn(0.1)
        await lease.keep()
        await lease.keep()
        assert bench.jobs.claims[1:] == [(NOW + SECOND, NOW + SECOND + LEASE, None)]
        bench.clock.turn(-0.5)
        await lease.keep()
        assert len(bench.jobs.claims) == 3, "a clock that was set back tells nothing"


async def test_a_short_lease_is_renewed_after_a_third_of_it() -> None:
    bench = Bench(length=SECOND)
    lease = bench.lease()
    async with lease.held():
        bench.clock.turn(0.3)
        await lease.keep()
        assert len(bench.jobs.claims) == 1
        bench.clock.turn(0.04)
        await lease.keep()
        assert len(bench.jobs.claims) == 2


async def test_a_lease_that_is_another_s_names_it_and_leaves_it_alone() -> None:
    bench = Bench(Jobs(Turn(mine=False, node="b")))
    with pytest.raises(JobTakenError, match="'retention' is not done here: node 'b' has it") as caught:
        async with bench.lease().held():
            pytest.fail("the job is another's")
    assert caught.value.retry_after == 5.0
    assert bench.jobs.ends == []


async def test_a_lease_that_was_lost_is_told_when_the_next_step_begins() -> None:
    bench = Bench()
    lease = bench.lease()
    async with lease.held():
        bench.jobs.turn = Turn(mine=False, node="b")
        bench.clock.turn(61)
        with pytest.raises(JobTakenError, match="'b'"):
            await lease.keep()
    assert bench.jobs.ends == [None]


async def test_a_node_whose_clock_is_off_is_told_so() -> None:
    bench = Bench(Jobs(Turn(mine=False)))
    with pytest.raises(JobTakenError, match="this host's clock is not the database's"):
        async with bench.lease().held():
            pytest.fail("nobody has given it the job")


async def test_runs_that_overlap_share_the_lease_until_the_last_is_over() -> None:
    bench = Bench()
    lease = bench.lease()
    async with lease.held():
        async with lease.held():
            pass
        assert bench.jobs.ends == []
    assert bench.jobs.ends == [None]


class Stuck(Jobs):
    """Never answers the second claim."""

    async def claim_job(self, *args: Any, **options: Any) -> Turn:
        turn = await super().claim_job(*args, **options)
        if len(self.claims) == 2:
            await asyncio.Event().wait()
        return turn


async def test_a_run_that_is_cancelled_as_it_ends_does_not_keep_the_lease_for_ever() -> None:
    bench = Bench(Stuck())
    lease = bench.lease()

    async def run() -> None:
        async with lease.held():
            await asyncio.Event().wait()

    runs = [asyncio.create_task(run()) for _ in range(2)]
    await until(lambda: len(bench.jobs.claims) == 2)  # the second is in the first one's way to giving back
    for task in (runs[0], runs[0], runs[1]):
        task.cancel()
        await asyncio.sleep(0)
    await asyncio.gather(*runs, return_exceptions=True)
    async with lease.held():
        assert bench.jobs.ends == []
    assert bench.jobs.ends == [None]


async def test_a_lease_that_cannot_be_given_back_ends_by_itself(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(Jobs(fault=StoreError("connection lost")))
    async with bench.lease().held():
        pass
    assert caplog.messages == ["the lease of the job 'retention' ends by itself: connection lost"]
