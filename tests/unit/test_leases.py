"""How the leases of deliveries are given, renewed in time, and doubted after a pause."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from attrs import define, field

from notifyd.errors import StoreError
from notifyd.flow.lane import Job, Lane
from notifyd.flow.leases import Leases
from notifyd.model import SECOND, Delivery, Instant
from tests.fakes import NOW, TurnableClock
from tests.store.makers import delivery

LENGTH = 60 * SECOND


@define
class Holds:
    """The one operation of a store that leases need: it holds all rows but those in `lost`."""

    lost: set[str] = field(factory=set)
    asked: list[tuple[list[str], Instant, bool]] = field(factory=list)
    fault: StoreError | None = None

    async def renew_leases(
        self, deliveries: Sequence[Delivery], until: Instant, *, sending: bool
    ) -> frozenset[str]:
        ids = [one.id for one in deliveries]
        self.asked.append((ids, until, sending))
        if self.fault is not None:
            raise self.fault
        return frozenset(ids) - self.lost


@define
class Bench:
    """A lane with one job that waits and one that runs."""

    holds: Holds = field(factory=Holds)
    clock: TurnableClock = field(factory=TurnableClock)
    lane: Lane = field(factory=lambda: Lane("team", "team"))

    def open(self) -> Leases:
        settings = SimpleNamespace(dispatch=SimpleNamespace(lease=LENGTH))
        store: Any = self.holds
        current: Any = lambda: SimpleNamespace(settings=settings)  # noqa: E731
        leases = Leases(store=store, current=current, clock=self.clock, node="a")
        for name in ("runs", "waits"):
            self.lane.queue.push(Job(leases.give(delivery(name))))
        assert self.lane.start(self.clock()).delivery.id == "runs"
        return leases


def test_what_is_given_is_leased_to_this_node_for_the_first_time() -> None:
    given = Bench().open().give(delivery())
    assert (given.lease_owner, given.lease_until, given.fencing_token) == ("a", NOW + LENGTH, 1)


async def test_leases_are_renewed_once_a_third_of_their_time_is_over() -> None:
    bench = Bench()
    leases = bench.open()
    await leases.keep([bench.lane])
    assert bench.holds.asked == []
    bench.clock.turn(20)
    await leases.keep([bench.lane])
    until = bench.clock() + LENGTH
    assert bench.holds.asked == [(["waits"], until, False), (["runs"], until, True)]
    assert {job.leased_until for job in (*bench.lane.queue, *bench.lane.running.values())} == {until}
    await leases.keep([bench.lane])
    assert len(bench.holds.asked) == 2


async def test_a_clock_that_is_set_back_does_not_stop_the_renewing() -> None:
    bench = Bench()
    leases = bench.open()
    bench.clock.turn(-3600)
    await leases.keep([bench.lane])
    assert [ids for ids, _, _ in bench.holds.asked] == [["waits"], ["runs"]]


async def test_an_attempt_that_is_slow_is_shown_as_being_sent_once() -> None:
    bench = Bench()
    leases = bench.open()
    bench.clock.turn(0.3)
    await leases.keep([bench.lane])
    await leases.keep([bench.lane])
    assert bench.holds.asked == [(["runs"], bench.clock() + LENGTH, True)]
    assert bench.lane.running["runs"].shown


async def test_what_somebody_else_holds_by_now_is_forgotten() -> None:
    bench = Bench(holds=Holds(lost={"waits"}))
    await bench.open().renew_queued([bench.lane])
    assert list(bench.lane.queue) == []


async def test_lanes_are_renewed_one_after_the_other_and_one_that_is_empty_costs_nothing() -> None:
    bench = Bench()
    other = Lane("mail", "mail")
    other.queue.push(Job(delivery("mail")))
    await bench.open().renew_queued(
        {"team": bench.lane, "none": Lane("none", "none"), "mail": other}.values()
    )
    assert [ids for ids, _, _ in bench.holds.asked] == [["waits"], ["mail"]]
    assert [job.leased_until for job in other.queue] == [NOW + LENGTH]


async def test_a_renewal_that_fails_is_due_still() -> None:
    bench = Bench()
    leases = bench.open()
    bench.clock.turn(20)
    bench.holds.fault = StoreError("away")
    with pytest.raises(StoreError):
        await leases.keep([bench.lane])
    bench.holds.fault = None
    await leases.keep([bench.lane])
    assert [ids for ids, _, _ in bench.holds.asked] == [["waits"], ["waits"], ["runs"]]


@pytest.mark.parametrize(
    ("after", "seconds", "enough"),
    [(0, 10, True), (44, 10, True), (51, 10, False), (46, 30, False), (44, 30, True)],
)
def test_a_lease_suffices_while_it_lasts_for_the_attempt_or_a_quarter_of_its_own_time(
    after: float, seconds: float, enough: bool
) -> None:
    bench = Bench()
    leases = bench.open()
    bench.clock.turn(after)
    assert leases.suffices(bench.lane, bench.lane.running["runs"], seconds) is enough
