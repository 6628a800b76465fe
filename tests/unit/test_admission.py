"""Shares of a backlog: who floods is refused, who is quiet is not, and the whole is bounded."""

from __future__ import annotations

from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any, Final

import pytest
from attrs import define, evolve, field
from hypothesis import given
from hypothesis import strategies as st

from notifyd.errors import BacklogFullError, OverloadedError
from notifyd.flow.admission import HARD_LIMIT, SharedBacklog
from notifyd.flow.queues import PlanningQueue
from notifyd.flow.waiting import Waiting
from tests.store.makers import event

LIMIT: Final = 12


@define
class Bench:
    deliveries: Waiting = field(factory=Waiting)
    planning: PlanningQueue = field(factory=PlanningQueue)
    asked: list[float] = field(factory=list)

    def backlog(self) -> SharedBacklog:
        settings = SimpleNamespace(dispatch=SimpleNamespace(max_backlog=LIMIT))
        registry: Any = SimpleNamespace(settings=settings)
        return SharedBacklog(
            current=lambda: registry,
            planning_queue=self.planning,
            deliveries=self.deliveries,
            seconds_for=self.seconds_for,
        )

    def seconds_for(self, count: float) -> float:
        self.asked.append(count)
        return 7.0

    def admit(self, tenant: str) -> bool:
        with self.backlog().admit([evolve(event(), tenant=tenant)]) as (from_memory,):
            return from_memory


def test_below_the_limit_everybody_is_let_in_however_much_is_theirs() -> None:
    bench = Bench()
    bench.deliveries.add("acme", LIMIT - 1)
    assert bench.admit("acme")


def test_who_has_filled_the_backlog_is_refused_and_another_is_let_in_up_to_an_equal_share() -> None:
    bench = Bench()
    bench.deliveries.add("acme", LIMIT)
    for _ in range(LIMIT // 2):
        assert bench.admit("globex")
        bench.deliveries.add("globex")
    for tenant in ("acme", "globex"):
        with pytest.raises(OverloadedError) as caught:
            bench.admit(tenant)
        assert caught.value.retry_after == 7.0
    assert bench.admit("initech")


def test_the_log_names_once_who_is_refused_until_it_is_let_in_again(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    backlog = bench.backlog()

    def refused() -> None:
        bench.deliveries.add("acme", LIMIT)
        for _ in range(3):
            with pytest.raises(OverloadedError), backlog.admit([event()]):
                raise AssertionError
        bench.deliveries.add("acme", -LIMIT)

    refused()
    assert [record.getMessage() for record in caplog.records] == [
        f"the backlog is full: events of tenant acme, which has {LIMIT} waiting, are refused"
    ]
    with backlog.admit([event()]):
        pass
    refused()
    assert len(caplog.records) == 2


def test_events_that_wait_for_their_plan_count_as_deliveries_do() -> None:
    bench = Bench()
    for number in range(LIMIT):
        bench.planning.offer(evolve(event(f"e{number}"), tenant="acme"), leased=bool(number % 2))
    with pytest.raises(OverloadedError):
        bench.admit("acme")
    assert bench.admit("globex")


def test_events_that_are_being_accepted_count_until_they_are_queued_or_not() -> None:
    bench = Bench()
    backlog = bench.backlog()
    with ExitStack() as room:
        for _ in range(LIMIT):
            room.enter_context(backlog.admit([event()]))
        with pytest.raises(OverloadedError), backlog.admit([event()]):
            raise AssertionError
    with backlog.admit([event()]):
        pass


def test_a_batch_is_let_in_whole_however_long_it_is_and_counts_whole() -> None:
    backlog = Bench().backlog()
    with backlog.admit([event()] * (LIMIT + 1)), pytest.raises(OverloadedError), backlog.admit([event()]):
        raise AssertionError


def test_nobody_is_let_in_once_the_whole_is_full() -> None:
    bench = Bench()
    for tenant in ("acme", "globex", "initech"):
        bench.deliveries.add(tenant, HARD_LIMIT * LIMIT // 3)
    with pytest.raises(BacklogFullError):
        bench.admit("hooli")
    with pytest.raises(OverloadedError):
        bench.admit("acme")


def test_a_caller_is_asked_to_come_back_when_there_is_room_in_its_share_or_in_the_whole() -> None:
    bench = Bench()
    bench.deliveries.add("acme", 10)
    bench.deliveries.add("globex", 2)
    with pytest.raises(OverloadedError):
        bench.admit("acme")
    assert bench.asked == [pytest.approx(12 - 0.9 * LIMIT)]
    bench.deliveries.add("globex", 8)
    with pytest.raises(OverloadedError):
        bench.admit("acme")
    assert bench.asked[1:] == [pytest.approx(10 - 0.9 * LIMIT / 2)]


moves = st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=120)


@given(moves)
def test_the_whole_is_bounded_and_who_has_nothing_waiting_is_let_in_until_then(
    taken: list[tuple[str, bool]],
) -> None:
    bench = Bench()
    for tenant, comes in taken:
        if not comes:
            bench.deliveries.add(tenant, -1)
            continue
        own, total = bench.deliveries.of(tenant), bench.deliveries.total
        try:
            bench.admit(tenant)
        except OverloadedError:
            assert own > 0
            assert total >= LIMIT
        except BacklogFullError:
            assert total >= HARD_LIMIT * LIMIT
        else:
            bench.deliveries.add(tenant)
    assert bench.deliveries.total <= HARD_LIMIT * LIMIT
