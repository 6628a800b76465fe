"""A lane's limits: bucket, breaker, fair queue and retry schedule, by times that a test says."""

from __future__ import annotations

import math
import random

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from notifyd.config.settings import Backoff, Duration
from notifyd.config.units import parse_rate
from notifyd.errors import Reason
from notifyd.flow.lane import (
    BREAKER_INTERVAL,
    BREAKER_THRESHOLD,
    CLAIMED,
    FLOW_CAPACITY,
    TENANT_CAPACITY,
    Breaker,
    BreakerState,
    FairQueue,
    Job,
    Lane,
    TokenBucket,
    retry_delay,
)
from notifyd.flow.memory import Memory, Share
from notifyd.model import SECOND, Attempt, AttemptOutcome
from tests.fakes import NOW
from tests.store.makers import delivery

HOUR = 3600 * SECOND
BACKOFF = Backoff(Duration(SECOND), Duration(900 * SECOND))


def job(name: str, tenant: str = "acme", rule: str = "approvals") -> Job:
    return Job(delivery(name, tenant=tenant, rule=rule))


def ids(jobs: list[Job]) -> list[str]:
    return [one.delivery.id for one in jobs]


# --- the retry schedule ------------------------------------------------------------------------------------


class Highest(random.Random):
    """Jitter that always takes all there is."""

    def uniform(self, a: float, b: float) -> float:
        return b


@pytest.mark.parametrize(
    ("tries", "seconds"), [(1, 1), (2, 2), (3, 4), (10, 512), (11, 900), (12, 900), (1000, 900)]
)
def test_steps_double_up_to_the_ceiling(tries: int, seconds: int) -> None:
    assert retry_delay(tries, BACKOFF, None, Highest()) == seconds * SECOND


@given(st.integers(1, 60), st.integers())
def test_jitter_is_full_between_nothing_and_the_step(tries: int, seed: int) -> None:
    step = retry_delay(tries, BACKOFF, None, Highest())
    assert 0 <= retry_delay(tries, BACKOFF, None, random.Random(seed)) <= step  # noqa: S311 - jitter


def test_jitter_spreads_over_the_whole_step() -> None:
    chance = random.Random(7)  # noqa: S311 - jitter
    delays = [retry_delay(8, BACKOFF, None, chance) / (128 * SECOND) for _ in range(400)]
    assert min(delays) < 0.05
    assert max(delays) > 0.95
    assert 0.4 < sum(delays) / len(delays) < 0.6


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [(0, 4), (3, 4), (4, 4), (20, 20), (900, 900), (901, 900), (10**9, 900), (math.inf, 900), (math.nan, 4)],
)
def test_what_a_receiver_asks_for_counts_between_the_step_and_the_ceiling(asked: float, seconds: int) -> None:
    assert retry_delay(3, BACKOFF, asked, random.Random(1)) == seconds * SECOND  # noqa: S311 - jitter


# --- the bucket --------------------------------------------------------------------------------------------


def taken(bucket: TokenBucket, now: int) -> int:
    """How many go at once at `now`."""
    count = 0
    while bucket.wait(now) == 0:
        bucket.take()
        count += 1
    return count


def test_a_bucket_lets_a_seconds_worth_through_at_once_and_then_its_rate() -> None:
    bucket = TokenBucket(parse_rate("5/s"), NOW)
    assert taken(bucket, NOW) == 5
    assert bucket.wait(NOW) == pytest.approx(0.2)
    assert taken(bucket, NOW + SECOND) == 5
    assert taken(bucket, NOW + HOUR) == 5


def test_a_slow_rate_lets_one_through_at_a_time() -> None:
    bucket = TokenBucket(parse_rate("30/m"), NOW)
    assert taken(bucket, NOW) == 1
    assert bucket.wait(NOW) == pytest.approx(2)
    assert taken(bucket, NOW + 2 * SECOND) == 1


@given(st.lists(st.integers(0, 3_000_000), min_size=1, max_size=200))
def test_over_any_time_no_more_than_the_rate_and_one_burst_go(steps: list[int]) -> None:
    bucket, now, gone = TokenBucket(parse_rate("10/s"), NOW), NOW, 0
    for step in steps:
        now += step
        gone += taken(bucket, now)
    assert gone <= 10 + 10 * (now - NOW) / SECOND + 1e-6


@pytest.mark.parametrize("jump", [-HOUR, HOUR])
def test_a_clock_that_jumps_an_hour_gives_a_burst_at_most_and_holds_nothing_up(jump: int) -> None:
    bucket = TokenBucket(parse_rate("2/s"), NOW)
    taken(bucket, NOW)
    assert taken(bucket, NOW + jump) <= 2
    assert bucket.wait(NOW + jump) <= 0.5
    assert taken(bucket, NOW + jump + SECOND) == 2


def test_a_token_that_was_not_needed_goes_back() -> None:
    bucket = TokenBucket(parse_rate("1/s"), NOW)
    bucket.take()
    bucket.give_back()
    bucket.give_back()
    assert taken(bucket, NOW) == 1


def test_nodes_divide_a_rate_among_them() -> None:
    bucket = TokenBucket(parse_rate("4/s"), NOW)
    taken(bucket, NOW)
    assert bucket.wait(NOW, share=2) == pytest.approx(0.5)


# --- the breaker -------------------------------------------------------------------------------------------


def opened(now: int = NOW) -> Breaker:
    breaker = Breaker()
    for _ in range(BREAKER_THRESHOLD):
        assert breaker.wait(now) == 0
        breaker.started()
        breaker.failed(now)
    return breaker


def test_a_breaker_opens_after_five_failures_in_a_row_and_not_before() -> None:
    breaker = Breaker()
    for _ in range(BREAKER_THRESHOLD - 1):
        breaker.failed(NOW)
    breaker.succeeded()
    for _ in range(BREAKER_THRESHOLD - 1):
        breaker.failed(NOW)
    assert not breaker.open
    breaker.failed(NOW)
    assert breaker.open
    assert breaker.state(NOW) is BreakerState.OPEN


def test_an_open_breaker_lets_one_probe_through_per_interval() -> None:
    breaker, later = opened(), NOW + BREAKER_INTERVAL
    assert breaker.wait(NOW) == BREAKER_INTERVAL / SECOND
    assert breaker.wait(later - SECOND) == 1
    assert breaker.wait(later) == 0
    assert breaker.state(later) is BreakerState.HALF_OPEN
    breaker.started()
    assert breaker.wait(later) > 0
    breaker.failed(later)
    assert breaker.wait(later) == BREAKER_INTERVAL / SECOND


def test_a_probe_that_succeeds_closes_the_breaker() -> None:
    breaker, later = opened(), NOW + BREAKER_INTERVAL
    breaker.started()
    breaker.succeeded()
    assert (breaker.open, breaker.wait(later)) == (False, 0)
    breaker.failed(later)
    assert not breaker.open


def test_a_probe_that_never_reached_the_channel_makes_way_for_the_next() -> None:
    breaker, later = opened(), NOW + BREAKER_INTERVAL
    breaker.started()
    breaker.abandoned()
    assert (breaker.open, breaker.wait(later)) == (True, 0)


def test_a_clock_set_back_keeps_a_breaker_open_for_its_interval_and_no_longer() -> None:
    breaker, back = opened(), NOW - HOUR
    assert breaker.wait(back) == BREAKER_INTERVAL / SECOND
    assert breaker.wait(back + BREAKER_INTERVAL) == 0


def test_a_clock_set_forward_lets_the_probe_through() -> None:
    assert opened().wait(NOW + HOUR) == 0


# --- the queue ---------------------------------------------------------------------------------------------


def test_flows_take_turns_and_each_keeps_its_order() -> None:
    queue = FairQueue()
    for number in range(3):
        queue.push(job(f"a{number}", tenant="acme"))
    queue.push(job("g0", tenant="globex"))
    queue.push(job("r0", rule="other"))
    assert [queue.pop().delivery.id for _ in range(5)] == ["a0", "g0", "r0", "a1", "a2"]
    assert len(queue) == 0


flows = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xy")), max_size=40)


@given(flows)
def test_nothing_is_lost_and_tenants_take_turns_as_do_the_rules_of_each(
    arrivals: list[tuple[str, str]],
) -> None:
    queue = FairQueue()
    for number, (tenant, rule) in enumerate(arrivals):
        queue.push(job(str(number), tenant, rule))
    assert sorted(ids(list(queue)), key=int) == [str(number) for number in range(len(arrivals))]
    left = [queue.pop() for _ in range(len(queue))]
    for flow in set(arrivals):
        own = [int(one.delivery.id) for one in left if one.flow == flow]
        assert own == sorted(own)
    tenants = {tenant for tenant, _ in arrivals}
    assert {one.delivery.tenant for one in left[: len(tenants)]} == tenants
    for tenant in tenants:
        rules = {rule for of, rule in arrivals if of == tenant}
        own_rules = [one.delivery.rule for one in left if one.delivery.tenant == tenant]
        assert set(own_rules[: len(rules)]) == rules


def test_what_belongs_to_somebody_else_by_now_is_dropped_and_the_rest_keeps_its_order() -> None:
    queue = FairQueue()
    for name in ("a", "b", "c", "d", "came-since"):
        queue.push(job(name))
    queue.renew({"a", "b", "c", "d"}, {"a", "c", "unknown"}, NOW)
    left = [queue.pop() for _ in range(len(queue))]
    assert ids(left) == ["a", "c", "came-since"]
    assert [one.leased_until for one in left] == [NOW, NOW, 0]


def test_a_lane_s_rate_is_divided_by_the_nodes_that_share_it() -> None:
    lane = Lane("team", "team")
    lane.limit(parse_rate("4/s"), NOW)
    gone = 0
    while lane.wait(NOW, 2) == 0:
        lane.queue.push(job(f"d{gone}"))
        lane.start(NOW)
        gone += 1
    assert gone == 2
    assert lane.wait(NOW, 2) == pytest.approx(0.5)


def test_a_running_job_is_held_until_its_lease_or_the_last_renewal_ends() -> None:
    lane = Lane("team", "team")
    lane.queue.push(job("a"))
    started = lane.start(NOW)
    assert not lane.holds(started, NOW + HOUR)
    lane.show({"a"}, NOW + HOUR)
    assert lane.holds(started, NOW + HOUR)
    assert not lane.holds(started, NOW + HOUR + 1)


def test_clearing_gives_everything_back() -> None:
    queue = FairQueue()
    queue.push(job("a"))
    queue.push(job("b", tenant="globex"))
    assert ids(queue.clear()) == ["a", "b"]
    assert (len(queue), queue.waiting("acme", "approvals")) == (0, 0)


# --- the lane ----------------------------------------------------------------------------------------------


def lane(*names: str) -> Lane:
    made = Lane("team", "team")
    made.waiting.add("acme", len(names))
    for name in names:
        made.queue.push(job(name))
    return made


def test_one_rule_of_one_tenant_cannot_fill_a_lane_alone_nor_can_one_tenant() -> None:
    made = lane(*(str(number) for number in range(FLOW_CAPACITY)))
    assert not made.takes(job("next"))
    assert made.takes(job("next", rule="other"))
    assert made.room() == CLAIMED - FLOW_CAPACITY
    for number in range(TENANT_CAPACITY - FLOW_CAPACITY):
        made.queue.push(job(f"other-{number}", rule="other"))
    assert not made.takes(job("next", rule="third"))
    assert made.takes(job("next", tenant="globex"))


def test_what_is_claimed_leaves_room_for_a_tenant_that_brings_something_new() -> None:
    made = lane(*(str(number) for number in range(CLAIMED)))
    assert made.room() == 0
    assert not made.takes(job("next"))
    assert made.takes(job("next", tenant="globex"))
    memory = Memory(lambda: 1000)
    made = Lane("team", "team", Share(memory))
    while made.room():
        made.queue.push(sized(f"{len(made.queue)}", 10))
    assert not made.takes(sized("next", 10))
    assert made.takes(evolve(sized("next", 10), delivery=job("next", tenant="globex").delivery))


def test_a_count_by_the_store_does_not_forget_what_has_come_since() -> None:
    made = lane("a", "b")
    made.start(NOW)
    made.recount({"acme": 1, "globex": 3})
    assert (made.waiting.of("acme"), made.waiting.of("globex"), made.backlog) == (2, 3, 5)
    made.recount({})
    assert made.backlog == 2


def sized(name: str, size: int, rule: str = "approvals") -> Job:
    return evolve(job(name, rule=rule), size=size)


def filled(made: Lane, size: int, rule: str = "approvals") -> int:
    """How many bytes a lane takes in jobs of a size."""
    before, number = made.share.held, 0
    while made.takes(one := sized(f"{made.name}-{rule}-{number}", size, rule)):
        made.queue.push(one)
        number += 1
    return made.share.held - before


def test_a_lane_that_stands_still_leaves_others_and_each_flow_leaves_its_lane_room_in_bytes() -> None:
    memory = Memory(lambda: 1200)
    first, second = (Lane(name, name, Share(memory)) for name in ("first", "second"))
    assert filled(first, 10) == 300
    assert filled(first, 10, rule="other") == 80
    assert filled(second, 10) == 210
    assert memory.used < 1200
    assert filled(first, 10) == 0


def test_a_lane_with_nothing_in_memory_takes_one_however_large_it_is() -> None:
    made = Lane("team", "team", Share(Memory(lambda: 10)))
    assert made.room() == CLAIMED
    assert made.takes(sized("large", 1000))
    made.queue.push(sized("large", 1000))
    assert not made.takes(sized("small", 1))
    assert made.room() == 0
    started = made.start(NOW)
    assert not made.takes(sized("small", 1))
    made.finish(started)
    made.finish(started)
    assert (made.share.held, made.share.memory.used) == (0, 0)


steps = st.lists(st.sampled_from(["push", "other", "pop", "drop", "start", "finish", "abandon", "renew"]))


@given(steps)
def test_what_a_lane_holds_in_bytes_is_what_its_jobs_hold(taken: list[str]) -> None:
    made = Lane("team", "team")
    for number, step in enumerate(taken):
        running = list(made.running.values())
        match step:
            case "push" | "other":
                made.queue.push(sized(str(number), number + 1, rule=step))
            case "pop" if made.queue:
                made.queue.pop()
            case "drop":
                made.queue.drop(number)
            case "start" if made.queue:
                made.start(NOW)
            case "finish" if running:
                made.finish(running[0])
            case "abandon" if running:
                made.abandon(running[-1])
            case "renew":
                asked = sorted(one.delivery.id for one in made.queue)
                made.queue.renew(asked, asked[::2], NOW)
        jobs = [*made.queue, *made.running.values()]
        assert made.share.held == made.share.memory.used == sum(one.size for one in jobs)
        for flow in {one.flow for one in made.queue}:
            assert made.queue.held(flow) == sum(one.size for one in made.queue if one.flow == flow)


def test_what_came_last_is_dropped_first_from_each_flow_in_turn() -> None:
    made = Lane("team", "team")
    for name in ("a1", "a2", "a3"):
        made.queue.push(sized(name, 10))
    made.queue.push(sized("b1", 10, rule="other"))
    made.queue.push(sized("b2", 10, rule="other"))
    assert ids(made.queue.drop(25)) == ["b2", "a3", "b1"]
    assert ids(list(made.queue)) == ["a1", "a2"]
    assert ids(made.queue.drop(10**6)) == ["a2", "a1"]
    assert made.queue.drop(1) == []


def test_a_lane_knows_what_it_holds_and_whether_the_store_has_more() -> None:
    made = lane("a", "b")
    made.start(NOW)
    assert made.held() == {"a", "b"}
    assert not made.beyond_memory
    made.waiting.add("globex")
    assert made.beyond_memory


def test_an_attempt_that_never_reached_its_channel_costs_neither_token_nor_probe() -> None:
    made = lane("a")
    made.limit(parse_rate("1/s"), NOW)
    started = made.start(NOW)
    assert made.wait(NOW) > 0
    made.abandon(started)
    assert made.wait(NOW) == 0
    assert not made.running


def test_an_unchanged_rate_keeps_its_tokens_and_a_changed_one_begins_anew() -> None:
    made = lane("a", "b")
    made.limit(parse_rate("1/s"), NOW)
    made.start(NOW)
    made.limit(parse_rate("1/s"), NOW)
    assert made.wait(NOW) > 0
    made.limit(parse_rate("2/s"), NOW)
    assert made.wait(NOW) == 0
    made.limit(None, NOW)
    assert made.bucket is None


def attempt_of(outcome: AttemptOutcome) -> Attempt:
    reason = None if outcome is AttemptOutcome.SENT else Reason.REJECTED
    return Attempt(NOW, 1.0, outcome, reason)


def test_the_breaker_learns_from_transient_failures_and_not_from_a_messages_own_fault() -> None:
    made = lane()
    for _ in range(BREAKER_THRESHOLD - 1):
        made.judge(attempt_of(AttemptOutcome.TRANSIENT), NOW)
    made.judge(attempt_of(AttemptOutcome.PERMANENT), NOW)
    made.judge(attempt_of(AttemptOutcome.TRANSIENT), NOW)
    assert not made.breaker.open
    assert made.snapshot(NOW).last_failure == attempt_of(AttemptOutcome.TRANSIENT)
    assert made.snapshot(NOW).last_success is None


def test_full_mailboxes_do_not_open_the_breaker_of_a_channel_that_works() -> None:
    made = lane()
    for _ in range(BREAKER_THRESHOLD):
        made.judge(Attempt(NOW, 1.0, AttemptOutcome.TRANSIENT, Reason.MAILBOX_FULL), NOW)
    assert not made.breaker.open


def test_a_lane_whose_breaker_is_open_lets_one_probe_through_at_a_time() -> None:
    made, later = lane("a", "b", "c"), NOW + BREAKER_INTERVAL
    for _ in range(BREAKER_THRESHOLD):
        made.judge(attempt_of(AttemptOutcome.TRANSIENT), NOW)
    assert made.wait(NOW) == BREAKER_INTERVAL / SECOND
    assert made.wait(later) == 0
    probe = made.start(later)
    assert made.wait(later) > 0
    made.abandon(probe)
    assert made.wait(later) == 0
    made.start(later)
    made.judge(attempt_of(AttemptOutcome.SENT), later)
    assert made.wait(later) == 0
    assert made.snapshot(later).last_success == attempt_of(AttemptOutcome.SENT)


def test_running_attempts_are_noted_as_shown_once() -> None:
    made = lane("a", "b")
    made.start(NOW)
    made.show({"a", "b", "gone"}, NOW + HOUR)
    shown = made.running["a"]
    assert (shown.started, shown.shown, shown.renewed) == (NOW, True, NOW + HOUR)
    assert "b" not in made.running
