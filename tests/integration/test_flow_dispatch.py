"""Dispatching over a real store: attempts, retries, order, breaker, channels that come and go, and the end."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from notifyd import correlation
from notifyd.errors import (
    NotFoundError,
    NotRetryableError,
    OverloadedError,
    PermanentError,
    Reason,
    TransientError,
)
from notifyd.flow import dispatch
from notifyd.flow.lane import BREAKER_INTERVAL, BREAKER_THRESHOLD, CAPACITY, Job
from notifyd.model import SECOND, AttemptOutcome, AuditName, Delivery, Receipt, State
from notifyd.plugin import ChannelContext, ChannelType
from notifyd.testkit.receivers import Reply, Sink
from tests import events
from tests.fakes import Channels, Gate, NoOptions, ScriptedChannel, TurnableClock
from tests.flows import RULES, TASKS, Flow, flow
from tests.waiting import until, until_async

DISPATCH = """
[dispatch]
max_attempts = 4
max_age = "1h"
backoff = "10s..10m"
"""
ROUNDS = RULES + DISPATCH


def busy(retry_after: float | None = None) -> TransientError:
    return TransientError("busy", reason=Reason.SERVER_ERROR, status=503, retry_after=retry_after)


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    async with Sink() as sink:
        yield sink


def posting(sink: Sink, more: str = "") -> str:
    return f"""
[egress]
allow_private = ["127.0.0.0/8"]
[channels.team]
type = "post"
url = "{sink.url}"
{RULES[RULES.index("[[rules]]") :]}
[resume]
allowed_origins = ["https://runner.acme.example"]
{more}
"""


async def task_done(way: Flow, count: int = 1) -> None:
    for _ in range(count):
        await way.cloud(events.cloud_event(at=way.clock()))


async def looked(way: Flow) -> None:
    """The dispatcher has looked at every lane since it was woken, and what that began had its turn."""
    await until(lambda: not way.app._dispatcher._wake.is_set())
    for _ in range(50):
        await asyncio.sleep(0)


async def first(way: Flow) -> Delivery:
    """The first delivery, as soon as it is planned."""
    found: list[Delivery] = await until_async(way.deliveries)
    return found[0]


async def tried(way: Flow, times: int) -> Delivery:
    """The first delivery, once so many attempts of it are on record."""

    async def found() -> Delivery | None:
        rows = await way.deliveries()
        return rows[0] if rows and len(rows[0].attempts) >= times else None

    row = await until_async(found)
    assert row is not None
    return row


# --- attempts over real sockets ----------------------------------------------------------------------------


async def test_a_receiver_that_is_busy_at_first_gets_the_same_bytes_under_the_same_id_again(
    tmp_path: Path, sink: Sink
) -> None:
    sink.reply = Reply(503, "busy")
    async with flow(tmp_path, posting(sink, DISPATCH)) as way:
        await way.ask()
        row = await tried(way, 1)
        assert (row.state, row.tries) == (State.PENDING, 1)
        assert (row.attempts[0].reason, row.attempts[0].status) == (Reason.SERVER_ERROR, 503)
        assert way.clock() <= row.next_attempt_at <= way.clock() + 10 * SECOND
        sink.reply = Reply(200)
        way.turn(10)
        row = await way.becomes(row.id, State.SENT)
        assert [one.outcome for one in row.attempts] == [AttemptOutcome.TRANSIENT, AttemptOutcome.SENT]
        before, after = sink.received
        assert (before.body, before.headers["webhook-id"]) == (after.body, row.id)
        assert after.headers["webhook-id"] == row.id


@pytest.mark.parametrize(("asked", "seconds"), [("120", 120), ("1", 10), ("86400", 600)])
async def test_retry_after_is_honoured_between_the_schedules_step_and_its_ceiling(
    tmp_path: Path, sink: Sink, asked: str, seconds: int
) -> None:
    sink.reply = Reply(429, headers={"Retry-After": asked})
    async with flow(tmp_path, posting(sink, DISPATCH)) as way:
        await way.ask()
        row = await tried(way, 1)
        assert row.next_attempt_at == way.clock() + seconds * SECOND


async def test_retry_after_as_a_date_counts_from_now(tmp_path: Path, sink: Sink) -> None:
    sink.reply = Reply(503, headers={"Retry-After": "Wed, 04 Nov 2026 08:55:00 GMT"})
    async with flow(tmp_path, posting(sink, DISPATCH)) as way:
        await way.ask()
        row = await tried(way, 1)
        assert row.next_attempt_at == way.clock() + 300 * SECOND


@pytest.mark.parametrize(("status", "reason"), [(404, Reason.NOT_FOUND), (401, Reason.UNAUTHORIZED)])
async def test_a_receiver_that_will_never_take_it_ends_it_at_once(
    tmp_path: Path, sink: Sink, status: int, reason: Reason
) -> None:
    sink.reply = Reply(status, "no")
    async with flow(tmp_path, posting(sink)) as way:
        await way.ask()
        (row,) = await way.ended(1)
        assert (row.state, row.reason, len(row.attempts)) == (State.DEAD, reason, 1)
        assert row.attempts[0].excerpt == "no"
        assert [line.name for line in await way.audit()][-1] is AuditName.NOTIFICATION_DEAD
        assert way.metric("notifyd_dead_letters", channel="team") == 1


def forbidding(sink: Sink, more: str = "") -> str:
    """The same, where nothing private may be called."""
    return posting(sink, more).replace('allow_private = ["127.0.0.0/8"]', "allow_private = []")


async def waiting(way: Flow, reason: Reason) -> Delivery:
    """The first delivery, once it waits for that reason."""

    async def found() -> Delivery | None:
        rows = await way.deliveries()
        return rows[0] if rows and rows[0].reason is reason else None

    row = await until_async(found)
    assert row is not None
    return row


async def test_a_receiver_that_egress_forbids_is_waited_for_and_gets_it_once_it_is_allowed(
    tmp_path: Path, sink: Sink
) -> None:
    async with flow(tmp_path, posting(sink, "[dispatch]\nmax_attempts = 2\n")) as way:
        assert await way.reload(forbidding(sink, "[dispatch]\nmax_attempts = 2\n"))
        await way.ask()
        await waiting(way, Reason.EGRESS_REFUSED)
        for _ in range(5):  # more often than it may be tried
            way.turn(16)
            await looked(way)
        row = await waiting(way, Reason.EGRESS_REFUSED)
        assert (row.state, row.tries, sink.received) == (State.PENDING, 0, [])
        assert way.metric("notifyd_delivery_attempts_total", channel="team", outcome="egress_refused") >= 1
        assert await way.reload(posting(sink))
        way.turn(16)
        assert (await way.becomes(row.id, State.SENT)).tries == 1


async def test_what_egress_forbids_for_too_long_is_dead(tmp_path: Path, sink: Sink) -> None:
    async with flow(tmp_path, forbidding(sink, '[dispatch]\nmax_age = "1h"\n')) as way:
        await way.ask()
        row = await waiting(way, Reason.EGRESS_REFUSED)
        way.turn(3601)
        assert (await way.becomes(row.id, State.DEAD)).reason is Reason.MAX_AGE
        assert not sink.received


async def test_a_reload_between_two_steps_of_an_attempt_leaves_the_old_address_uncalled(
    tmp_path: Path, sink: Sink
) -> None:
    async with Sink() as before, flow(tmp_path, posting(before), start=False) as way:
        entered, gate = asyncio.Event(), asyncio.Event()
        own = way.app._dispatcher._still_ours

        async def held(lane: Any, job: Any, channel: Any) -> bool:
            entered.set()
            await gate.wait()
            return await own(lane, job, channel)

        way.app._dispatcher._still_ours = held  # type: ignore[method-assign]
        way.start()
        await way.ask()
        await asyncio.wait_for(entered.wait(), 10)
        assert await way.reload(posting(sink))
        gate.set()
        await until(lambda: sink.received)
        assert not before.received


# --- the schedule's ends -----------------------------------------------------------------------------------


async def test_after_the_last_allowed_attempt_it_is_dead_counted_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with flow(tmp_path, ROUNDS) as way:
        way.channel().script = [busy() for _ in range(9)]
        await way.ask()
        for times in range(1, 4):
            await tried(way, times)
            way.turn(600)
        (row,) = await way.ended(1)
        assert (row.state, row.reason, row.tries) == (State.DEAD, Reason.MAX_ATTEMPTS, 4)
        assert len(way.channel().received) == 4
        assert way.metric("notifyd_deliveries_total", channel="team", outcome="dead") == 1
        assert way.metric("notifyd_delivery_attempts_total", channel="team", outcome="server_error") == 4
        assert "is dead: max_attempts" in caplog.text


async def test_what_cannot_be_sent_in_its_time_is_dead(tmp_path: Path) -> None:
    async with flow(tmp_path, ROUNDS) as way:
        way.channel().script = [busy()]
        await way.ask()
        await tried(way, 1)
        way.turn(3601)
        (row,) = await way.ended(1)
        assert (row.state, row.reason, len(row.attempts)) == (State.DEAD, Reason.MAX_AGE, 1)


async def test_a_dead_delivery_is_tried_anew_by_hand_with_all_its_attempts_before_it(tmp_path: Path) -> None:
    async with flow(tmp_path, ROUNDS) as way:
        way.channel().script = [PermanentError("gone", reason=Reason.NOT_FOUND)]
        await way.ask()
        (row,) = await way.ended(1)
        with pytest.raises(NotFoundError):
            await way.app._services.replays.retry("globex", row.id)
        again = await way.app._services.replays.retry("acme", row.id)
        assert (again.state, again.tries, again.seq) == (State.PENDING, 0, 0)
        assert way.metric("notifyd_dead_letters", channel="team") == 0
        sent = await way.becomes(row.id, State.SENT)
        assert [one.outcome for one in sent.attempts] == [AttemptOutcome.PERMANENT, AttemptOutcome.SENT]
        with pytest.raises(NotRetryableError, match="is sent, not dead"):
            await way.app._services.replays.retry("acme", row.id)
        assert way.channel().ids == [row.id, row.id]


async def test_retries_need_no_turn_of_the_loop_to_be_told_of(tmp_path: Path) -> None:
    """The real clock: a schedule of milliseconds is kept without anybody waking the dispatcher."""
    text = RULES + '[dispatch]\nbackoff = "1ms..5ms"\n'

    class RealClock(TurnableClock):
        def __call__(self) -> int:
            return self.now + int(asyncio.get_running_loop().time() * SECOND)

    async with flow(tmp_path, text, clock=RealClock()) as way:
        way.channel().script = [busy() for _ in range(4)]
        await way.ask()
        (row,) = await way.ended(1)
        assert (row.state, row.tries) == (State.SENT, 5)


# --- order -------------------------------------------------------------------------------------------------


async def test_a_later_message_of_an_approval_waits_until_the_earlier_one_is_sent(tmp_path: Path) -> None:
    async with flow(tmp_path, ROUNDS) as way:
        gate = Gate()
        way.channel().script = [gate]
        await way.ask()
        await until(lambda: gate.waiting)
        way.clock.turn(1)
        await way.ask(planHash="sha256:" + "b" * 64)
        await until(lambda: way.store.calls.count("release") >= 1)
        assert len(way.channel().received) == 1
        gate.open()
        await way.ended(1)
        way.turn(15)
        rows = await way.ended(2)
        assert [row.state for row in rows] == [State.SENT, State.SENT]
        assert [m.event["round"] for m in way.channel().received] == [1, 2]
        assert [row.seq for row in rows] == [1, 2]
        assert sum(len(row.attempts) for row in rows) == 2


async def test_a_later_message_of_an_approval_goes_once_the_earlier_one_is_dead(tmp_path: Path) -> None:
    async with flow(tmp_path, ROUNDS) as way:
        way.channel().script = [busy(retry_after=10)]
        await way.ask()
        await tried(way, 1)
        way.clock.turn(1)
        await way.ask(planHash="sha256:" + "b" * 64)
        await until(lambda: way.store.calls.count("release") >= 1)
        assert len(way.channel().received) == 1
        way.channel().script = [PermanentError("gone")]
        way.turn(12)
        await way.ended(1)
        way.turn(15)
        rows = await way.ended(2)
        assert [row.state for row in rows] == [State.DEAD, State.SENT]


async def test_a_message_that_waits_for_another_steps_back_for_longer_the_longer_it_has_waited(
    tmp_path: Path,
) -> None:
    async with flow(tmp_path, ROUNDS) as way:
        gate = Gate()
        way.channel().script = [gate]
        await way.ask()
        await until(lambda: gate.waiting)
        way.clock.turn(1)
        await way.ask(planHash="sha256:" + "b" * 64)
        released = 0
        for expected in (0.5, 10):
            await until(lambda: way.store.calls.count("release") > released)  # noqa: B023 - waited for at once
            released = way.store.calls.count("release")
            second = (await way.deliveries())[1]
            assert second.next_attempt_at == way.clock() + expected * SECOND
            way.turn(40)
        gate.open()
        await way.ended(1)


async def test_messages_of_other_approvals_and_people_do_not_wait(tmp_path: Path) -> None:
    async with flow(tmp_path, ROUNDS) as way:
        gate = Gate()
        way.channel().script = [gate]
        await way.ask()
        await until(lambda: gate.waiting)
        way.clock.turn(1)
        await way.ask(runId="run-other")
        rows = await way.ended(1)
        assert [row.state for row in rows if row.run_id == "run-other"] == [State.SENT]
        gate.open()


# --- the breaker and the rate ------------------------------------------------------------------------------


async def test_a_failing_channel_is_left_alone_but_for_one_probe_and_waiting_spends_no_attempts(
    tmp_path: Path,
) -> None:
    async with flow(tmp_path, TASKS + DISPATCH) as way:
        under_way = 4  # when the breaker opens: one of them that was taken would close it
        channel = way.channel()
        channel.script = [busy() for _ in range(BREAKER_THRESHOLD + under_way)]
        await task_done(way, 20)
        await until(lambda: len(channel.received) >= BREAKER_THRESHOLD)
        await until(lambda: not channel.running)
        await until(lambda: way.metric("notifyd_breaker_open", channel="team") == 1)
        tried = len(channel.received)
        assert tried <= BREAKER_THRESHOLD + under_way
        gate = Gate()
        channel.script = [gate]
        way.turn(BREAKER_INTERVAL / SECOND)
        await until(lambda: gate.waiting)
        way.app._dispatcher.wake()
        await looked(way)
        assert len(channel.received) == tried + 1
        rows = await way.deliveries()
        assert sum(row.tries for row in rows) <= tried
        gate.open()
        way.turn(600)
        rows = await way.ended(20)
        assert {row.state for row in rows} == {State.SENT}
        await until(lambda: way.metric("notifyd_breaker_open", channel="team") == 0)


async def test_a_dead_channel_does_not_delay_another(tmp_path: Path) -> None:
    text = (
        TASKS.replace('channels = ["team"]', 'channels = ["team", "mail"]')
        + '[channels.mail]\ntype = "fake"\n'
    )
    async with flow(tmp_path, text) as way:
        gate = Gate()
        way.channel().script = [gate] * 50
        await task_done(way, 30)
        await until(lambda: len(way.channel("mail").received) == 30)
        assert way.channel().running == 4
        gate.open()


async def test_no_more_attempts_run_at_once_than_the_channel_allows(tmp_path: Path) -> None:
    async with flow(tmp_path, TASKS.replace('type = "fake"', 'type = "fake"\nconcurrency = 3')) as way:
        await task_done(way, 40)
        await way.ended(40)
        assert way.channel().most_running <= 3


async def test_a_rate_is_kept_over_a_backlog(tmp_path: Path) -> None:
    async with flow(tmp_path, TASKS.replace('type = "fake"', 'type = "fake"\nrate_limit = "5/s"')) as way:
        await task_done(way, 12)
        await way.ended(5)
        await until(lambda: way.app._dispatcher._lanes["team"].timer is not None)
        assert len(way.channel().received) == 5
        way.turn(1)
        await until(lambda: len(way.channel().received) == 10)
        way.turn(1)
        await way.ended(12)


@pytest.mark.parametrize("jump", [-3600, 3600])
async def test_a_clock_that_jumps_an_hour_stops_nothing_and_sends_nothing_twice(
    tmp_path: Path, jump: int
) -> None:
    text = (
        TASKS.replace('type = "fake"', 'type = "fake"\nrate_limit = "20/s"') + '[dispatch]\nmax_age = "24h"\n'
    )
    async with flow(tmp_path, text) as way:
        await task_done(way, 5)
        await way.ended(5)
        way.turn(jump)
        await task_done(way, 30)
        for _ in range(4):
            way.turn(1)
            await until(lambda: way.app._dispatcher._lanes["team"].wait(way.clock()) >= 0)
        rows = await way.ended(35)
        assert {row.state for row in rows} == {State.SENT}
        assert len(way.channel().ids) == len(set(way.channel().ids)) == 35


# --- channels that come and go -----------------------------------------------------------------------------


async def test_a_delivery_whose_channel_is_gone_waits_unspent_and_comes_back_with_it(tmp_path: Path) -> None:
    async with flow(tmp_path, ROUNDS) as way:
        way.channel().script = [busy()]
        await way.ask()
        await tried(way, 1)
        assert await way.reload(DISPATCH)
        way.turn(60)
        await until(lambda: way.app._dispatcher._lanes["team"].due is None)
        row = await first(way)
        assert (row.state, row.tries) == (State.PENDING, 1)
        assert await way.reload(ROUNDS)
        row = await way.becomes(row.id, State.SENT)
        assert row.tries == 2


async def test_a_delivery_whose_channel_stays_gone_dies_at_its_age(tmp_path: Path) -> None:
    async with flow(tmp_path, ROUNDS) as way:
        way.channel().script = [busy()]
        await way.ask()
        await tried(way, 1)
        assert await way.reload(DISPATCH)
        way.turn(3601)
        (row,) = await way.ended(1)
        assert (row.state, row.reason, len(row.attempts)) == (State.DEAD, Reason.MAX_AGE, 1)
        assert way.metric("notifyd_deliveries_total", channel="team", outcome="dead") == 1


async def test_what_waits_in_memory_for_a_channel_that_goes_is_given_back(tmp_path: Path) -> None:
    async with flow(tmp_path, TASKS + DISPATCH) as way:
        gate = Gate()
        way.channel().script = [gate] * 4
        await task_done(way, 10)
        await until(lambda: gate.waiting == 4 and way.app._dispatcher.backlog == 10)
        assert await way.reload(DISPATCH)
        await until(lambda: "release" in way.store.calls)
        gate.open()
        await way.ended(4)
        assert await way.reload(TASKS + DISPATCH)
        rows = await way.ended(10)
        assert {row.state for row in rows} == {State.SENT}
        assert len(way.channel().ids) == len(set(way.channel().ids)) == 10


async def test_a_channel_that_a_reload_removes_is_told_with_how_many_wait_and_so_is_its_return(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with flow(tmp_path, TASKS) as way:
        gate = Gate()
        way.channel().script = [gate] * 4
        await task_done(way, 7)
        await until(lambda: way.metric("notifyd_backlog", channel="team") == 7)
        await until(lambda: gate.waiting)
        text = TASKS.replace("team", "other")
        assert await way.reload(text)
        await until(lambda: "7 deliveries to team wait: there is no channel team any more" in caplog.messages)
        assert await way.reload(TASKS)
        await until(lambda: "7 deliveries to team may be sent again" in caplog.messages)
        gate.open()
        await way.ended(7)


async def test_a_line_about_a_delivery_has_the_correlation_id_of_its_event(tmp_path: Path) -> None:
    """However it comes to be sent: behind another, from the store, or because somebody asks for it again."""
    seen: list[tuple[str, str]] = []
    handler = logging.Handler()
    handler.emit = lambda record: seen.append((record.getMessage(), correlation.current.get()))  # type: ignore[method-assign]
    logger = logging.getLogger("notifyd.flow")
    logger.addHandler(handler)
    try:
        async with flow(tmp_path, ROUNDS) as way:
            way.channel().script = [PermanentError("no", reason=Reason.REJECTED)] * 3
            for number in range(3):
                with correlation.about("somebody-elses"):
                    asked = way.requested(runId=f"run-{number}")
                    await way.post(asked, correlation_id=f"corr-{number}")
            rows = await way.ended(3)
            of = {row.id: row.correlation_id for row in rows}
            with correlation.about("the-operators"):
                await way.app._services.replays.retry("acme", rows[0].id)
            await way.becomes(rows[0].id, State.SENT)
    finally:
        logger.removeHandler(handler)
    about = [(id_, cid) for line, cid in seen for id_ in of if id_ in line]
    assert {id_ for id_, _ in about} == set(of)
    assert [cid for _, cid in about] == [of[id_] for id_, _ in about]


async def test_a_channel_of_another_type_is_not_the_one_that_was_planned_for(tmp_path: Path) -> None:
    async with flow(tmp_path, ROUNDS) as way:
        way.channel().script = [busy()]
        await way.ask()
        await tried(way, 1)
        assert await way.reload(ROUNDS.replace('type = "fake"', 'type = "other"'))
        way.turn(600)

        async def waits() -> bool:
            row = await first(way)
            return row.reason is Reason.CHANNEL_MISSING and row.lease_owner is None

        await until_async(waits)
        row = await first(way)
        assert (row.state, row.tries) == (State.PENDING, 1)
        assert await way.reload(ROUNDS)
        way.turn(60)
        row = await way.becomes(row.id, State.SENT)
        assert row.reason is None


async def test_a_reload_leaves_a_channel_open_until_its_sends_have_ended(tmp_path: Path) -> None:
    channels = Channels()
    async with flow(tmp_path, TASKS, channels=channels) as way:
        gate = Gate()
        way.channel().script = [gate]
        await task_done(way)
        await until(lambda: gate.waiting)
        assert await way.reload(TASKS)
        (_, old), (_, new) = channels.opened
        await task_done(way)
        await way.ended(1)
        assert (old.closed, new.closed) == (False, False)
        gate.open()
        await way.ended(2)
        await until(lambda: old.closed)
        assert not new.closed


async def test_a_reload_waits_for_no_send_that_is_begun_after_it(tmp_path: Path) -> None:
    gates, made = (Gate(), Gate()), list[ScriptedChannel]()

    def opened(_config: NoOptions, _context: ChannelContext) -> ScriptedChannel:
        made.append(ScriptedChannel([gates[len(made)]]))
        return made[-1]

    channels = Channels()
    channels.more["own"] = ChannelType("own", NoOptions, opened)
    text = TASKS.replace('type = "fake"', 'type = "own"\nconcurrency = 1')
    async with flow(tmp_path, text, channels=channels) as way:
        await task_done(way, 3)
        await until(lambda: gates[0].waiting)
        assert await way.reload(text)
        gates[0].open()
        await until(lambda: made[0].closed and gates[1].waiting)
        assert not made[1].closed
        gates[1].open()
        await way.ended(3)
        assert [len(one.received) for one in made] == [1, 2]


async def test_a_reload_waits_for_no_send_that_is_begun_while_listening_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, made = Gate(), list[ScriptedChannel]()

    def opened(_config: NoOptions, _context: ChannelContext) -> ScriptedChannel:
        made.append(ScriptedChannel([gate]))
        return made[-1]

    async def stopping() -> None:
        await task_done(way)
        await until(lambda: gate.waiting)

    channels = Channels()
    channels.more["own"] = ChannelType("own", NoOptions, opened)
    text = TASKS.replace('type = "fake"', 'type = "own"')
    async with flow(tmp_path, text, channels=channels) as way:
        monkeypatch.setattr(way.app._listeners, "adjust", stopping)
        assert await way.reload(text)
        await until(lambda: made[0].closed)
        assert len(made[1].received) == 1
        gate.open()
        await way.ended(1)


async def test_a_reload_that_fails_leaves_the_very_same_objects_in_place(tmp_path: Path) -> None:
    channels = Channels()
    async with flow(tmp_path, TASKS, channels=channels) as way:
        before = way.current()
        assert not await way.reload(TASKS.replace('type = "fake"', 'type = "unheard-of"'))
        assert not await way.reload(TASKS.replace("event.kind ==", "event.kind = ="))
        channels.fault = SystemExit("a plugin's idea")
        assert not await way.reload(TASKS)
        channels.fault = None
        assert way.current() is before
        assert way.metric("notifyd_config_last_reload_successful") == 0
        await task_done(way)
        await way.ended(1)
        (_, standing), *tried = channels.opened
        assert not standing.closed
        assert all(one.closed for _, one in tried)
        way.clock.turn(60)
        assert await way.reload(TASKS)
        assert way.current() is not before
        assert way.metric("notifyd_config_last_reload_successful") == 1
        loaded = way.metric("notifyd_config_last_reload_success_timestamp_seconds")
        assert loaded == way.clock() / SECOND


# --- the store fails ---------------------------------------------------------------------------------------


async def test_what_was_sent_is_not_sent_again_because_its_record_fails(tmp_path: Path) -> None:
    async with flow(tmp_path, ROUNDS) as way:
        way.store.fail("record", times=2)
        await way.ask()
        (row,) = await way.ended(1)
        assert (row.state, len(row.attempts)) == (State.SENT, 1)
        assert len(way.channel().received) == 1


async def test_what_was_sent_is_on_record_once_where_the_answer_was_lost(tmp_path: Path) -> None:
    async with flow(tmp_path, ROUNDS) as way:
        way.store.fail("record", times=1, after=True)
        await way.ask()
        await until(lambda: way.store.calls.count("record") == 2)
        (row,) = await way.ended(1)
        await until(lambda: way.metric("notifyd_deliveries_total", channel="team", outcome="sent") == 1)
        assert len(row.attempts) == 1
        sent = [line for line in await way.audit() if line.name is AuditName.NOTIFICATION_SENT]
        assert len(sent) == 1


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("operation", ["claim_due", "renew_leases", "backlog", "has_earlier", "release"])
async def test_a_store_that_fails_for_a_while_delays_and_loses_nothing(
    tmp_path: Path, operation: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with flow(tmp_path, ROUNDS) as way:
        way.channel().script = [busy()]
        await way.ask()
        await tried(way, 1)
        way.clock.turn(1)
        way.store.fail(operation, times=1)
        way.app._dispatcher._counted -= 60
        await way.ask(planHash="sha256:" + "b" * 64)

        async def sent() -> bool:
            way.turn(20)
            return [row.state for row in await way.deliveries()] == [State.SENT, State.SENT]

        await until_async(sent)
        assert len(way.channel().received) == 3
        assert "Task exception" not in caplog.text


async def test_a_store_that_fails_does_not_make_the_dispatcher_spin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "_TICK", 0.2)
    async with flow(tmp_path, ROUNDS) as way:
        way.channel().script = [busy()]
        await way.ask()
        await tried(way, 1)
        way.store.fail("claim_due", times=10**6)
        way.turn(60)
        await until(lambda: "claim_due" in way.store.calls)
        before, began = way.store.asked.count("claim_due"), asyncio.get_running_loop().time()
        await until(lambda: way.store.asked.count("claim_due") >= before + 2)
        assert asyncio.get_running_loop().time() - began > 0.2
        way.store.failures.clear()
        await way.ended(1)


LARGE = {"data": {f"part{number}": "x" * 16_000 for number in range(10)}}
"""Of about 166 KB, as each of its deliveries is."""


async def large_tasks(way: Flow, count: int) -> None:
    for _ in range(count):
        await way.cloud(events.cloud_event(at=way.clock(), **LARGE))


def in_memory(way: Flow) -> int:
    """Bytes of all that the lanes and the planner hold."""
    lanes = way.app._dispatcher._lanes.values()
    texts = [
        sys.getsizeof(job.delivery.message) for lane in lanes for job in [*lane.queue, *lane.running.values()]
    ]
    planning = way.app._planner._planning_queue._tenants.values()
    return sum(texts) + sum(sys.getsizeof(event.body) for events in planning for event, _ in events)


async def test_deliveries_that_do_not_fit_into_memory_wait_in_the_store_and_all_are_sent(
    tmp_path: Path,
) -> None:
    async with flow(tmp_path, TASKS + '[dispatch]\nmemory = "12MiB"\n') as way:
        gate = Gate()
        way.channel().script = [gate] * 4
        most = 0
        for _ in range(10):
            await large_tasks(way, 5)
            most = max(most, in_memory(way))
        await until(lambda: gate.waiting == 4 and way.app._dispatcher.backlog == 50)
        most = max(most, in_memory(way))
        assert 2_000_000 < most <= 12 * 1024 * 1024
        gate.open()
        rows = await way.ended(50)
        assert {row.state for row in rows} == {State.SENT}
        assert len(way.channel().ids) == len(set(way.channel().ids)) == 50
        assert way.app._dispatcher._memory.used == 0


async def test_a_reload_changes_how_much_waits_in_memory(tmp_path: Path) -> None:
    async with flow(tmp_path, TASKS + '[dispatch]\nmemory = "64MiB"\n') as way:
        gate = Gate()
        way.channel().script = [gate] * 4
        await large_tasks(way, 30)
        await until(lambda: gate.waiting == 4 and way.app._dispatcher.backlog == 30)
        memory = way.app._dispatcher._memory
        assert in_memory(way) > 12_000_000
        assert await way.reload(TASKS + '[dispatch]\nmemory = "4MiB"\n')
        await until(lambda: memory.used <= 4 * 1024 * 1024 and in_memory(way) <= 4 * 1024 * 1024)
        assert await way.reload(TASKS + '[dispatch]\nmemory = "64MiB"\n')
        await until(lambda: in_memory(way) > 8_000_000)
        gate.open()
        rows = await way.ended(30)
        assert {row.state for row in rows} == {State.SENT}
        assert len(way.channel().ids) == len(set(way.channel().ids)) == 30


async def test_a_lane_full_of_large_messages_leaves_room_for_another(tmp_path: Path) -> None:
    other = TASKS.replace("team", "other").replace('"tasks"', '"others"').replace("task.done", "other.done")
    async with flow(tmp_path, TASKS + other + '[dispatch]\nmemory = "12MiB"\n') as way:
        gate = Gate()
        way.channel().script = [gate] * 4
        await large_tasks(way, 40)
        await until(lambda: gate.waiting == 4 and way.app._dispatcher.backlog == 40)
        for _ in range(10):
            await way.cloud(events.cloud_event(at=way.clock(), type="other.done", **LARGE))
        assert len(await way.messages(10, "other")) == 10
        gate.open()
        await way.ended(50)


async def test_a_full_lane_with_something_due_does_not_make_the_dispatcher_spin(tmp_path: Path) -> None:
    async with flow(tmp_path, TASKS, start=False) as way:
        (row,) = await _planned(way)
        lane = way.app._dispatcher._lanes["team"]
        await until(lambda: not lane.running)
        lane.due = way.clock() - SECOND
        lane.waiting.add("acme", CAPACITY + 10)
        lane.running = {str(number): Job(row) for number in range(CAPACITY)}
        assert way.app._dispatcher._pause() > 0.5
        lane.running.clear()
        assert way.app._dispatcher._pause() == 0


async def _planned(way: Flow) -> list[Delivery]:
    await task_done(way)
    await way.app._planner._plan(await way.unplanned())
    return await way.deliveries()


async def test_a_delivery_that_cannot_be_read_waits_and_holds_up_none_of_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its seal was made with a key that the configuration has dropped."""
    clock = TurnableClock()
    async with flow(tmp_path, ROUNDS, clock=clock) as way:
        way.channel().script = [busy()]
        await way.ask()
        row = await tried(way, 1)
    clock.turn(20)
    async with flow(tmp_path, ROUNDS, clock=clock, seal_key=b"another key, of 32 bytes as well") as way:
        await until(lambda: f"id {row.id}): message: sealed under a key" in caplog.text)
        await way.ask(runId="run-2")
        await way.ended(1)
        found = await way.delivery(row.id)
        assert (found.state, found.tries) == (State.PENDING, 1)


# --- slow attempts, restarts, the end ----------------------------------------------------------------------


async def test_a_slow_attempt_is_shown_as_being_sent_once(tmp_path: Path) -> None:
    async with flow(tmp_path, ROUNDS) as way:
        gate = Gate()
        way.channel().script = [gate]
        await way.ask()
        await until(lambda: gate.waiting)
        row = await first(way)
        assert row.state is State.PENDING
        way.turn(1)
        await way.becomes(row.id, State.SENDING)
        held = way.store.asked.count("renew_leases")
        for _ in range(3):
            way.turn(1)
            await looked(way)
        assert way.store.asked.count("renew_leases") == held
        gate.open()
        await way.becomes(row.id, State.SENT)


async def test_leases_are_renewed_well_before_they_end(tmp_path: Path) -> None:
    async with flow(tmp_path, TASKS) as way:
        gate = Gate()
        way.channel().script = [gate] * 9
        await task_done(way, 8)
        await until(lambda: gate.waiting == 4 and way.app._dispatcher.backlog == 8)
        ends = {row.lease_until for row in await way.deliveries()}
        way.turn(21)

        async def renewed() -> bool:
            return all(row.lease_until > max(ends) for row in await way.deliveries())

        await until_async(renewed)
        gate.open()
        await way.ended(8)
        assert len(way.channel().ids) == len(set(way.channel().ids)) == 8


async def test_what_somebody_else_has_leased_by_now_is_not_sent_from_memory(tmp_path: Path) -> None:
    async with flow(tmp_path, TASKS, start=False) as way:
        await _planned(way)
        lane = way.app._dispatcher._lanes["team"]
        await until(lambda: not lane.queue and not lane.running)
        gate = Gate()
        way.channel().script = [gate] * 4
        for _ in range(6):
            await _planned(way)
        await until(lambda: gate.waiting == 4)
        waiting = [job.delivery for job in lane.queue]
        assert len(waiting) == 2
        await way.store.release(waiting)  # as if another node had taken them over
        await way.app._dispatcher._leases.renew_queued([lane])
        assert list(lane.queue) == []
        gate.open()


@pytest.mark.parametrize("lost", [True, False])
async def test_what_was_leased_before_a_pause_goes_only_where_the_store_says_it_is_ours(
    tmp_path: Path, lost: bool
) -> None:
    async with flow(tmp_path, TASKS, start=False) as way:
        gate = Gate()
        way.channel().script = [gate] * 4
        for _ in range(6):
            await _planned(way)
        lane = way.app._dispatcher._lanes["team"]
        await until(lambda: gate.waiting == 4)
        way.turn(120)
        way.store.fail("renew_leases", 2)
        if lost:
            now = way.clock()
            await way.store.claim_due("team", "other", now, now + 60 * SECOND, 10, held=set(lane.running))
        gate.open()
        await until(lambda: not lane.queue and not lane.running)
        assert way.store.calls.count("renew_leases") == 4
        assert len(way.channel().ids) == len(set(way.channel().ids)) == (4 if lost else 6)


async def test_a_life_that_is_killed_leaves_its_deliveries_to_the_next(tmp_path: Path) -> None:
    clock, channels = TurnableClock(), Channels()
    async with flow(tmp_path, TASKS, clock=clock, channels=channels) as way:
        gate = Gate()
        way.channel().script = [gate] * 4
        await task_done(way, 10)
        await until(lambda: gate.waiting == 4)
        way.app._dispatcher._draining = True
        for task in (*way.tasks, *way.app._dispatcher._tasks):
            task.cancel()  # no draining: it is dead
        await asyncio.gather(*way.tasks, *way.app._dispatcher._tasks, return_exceptions=True)
        for lane in way.app._dispatcher._lanes.values():
            lane.queue.clear()
    channels.of("team").script = []
    async with flow(tmp_path, TASKS, clock=clock, channels=channels) as way:
        await way.app._planner.sweep()
        rows = await way.ended(10)
        assert {row.state for row in rows} == {State.SENT}
        assert set(way.channel().ids) == {row.id for row in rows}


async def test_draining_lets_attempts_end_and_gives_the_rest_back(tmp_path: Path) -> None:
    async with flow(tmp_path, TASKS) as way:
        gate = Gate()
        way.channel().script = [gate] * 4
        await task_done(way, 10)
        await until(lambda: gate.waiting == 4)
        draining = asyncio.create_task(way.app.drain())
        await asyncio.sleep(0)
        gate.open()
        await draining
        rows = await way.deliveries()
        assert sum(row.state is State.SENT for row in rows) == 4
        assert [row.lease_owner for row in rows if row.state is State.PENDING] == [None] * 6
        assert len(way.channel().received) == 4


async def test_draining_ends_though_an_attempt_does_not_and_the_store_fails(tmp_path: Path) -> None:
    async def deaf(_: Any) -> Receipt:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if closing.is_set():
                    raise

    closing = asyncio.Event()
    async with flow(tmp_path, TASKS) as way:
        way.channel().script = [deaf]
        await task_done(way)
        await until(lambda: way.channel().running)
        way.store.fail("release", times=1)
        async with asyncio.timeout(5):
            await way.app._dispatcher.drain(0.01)
        closing.set()
        for task in asyncio.all_tasks():
            if "called" in repr(task) or "_work" in repr(task):
                task.cancel()
        await until(lambda: not way.channel().running)


async def test_after_draining_nothing_new_is_begun(tmp_path: Path) -> None:
    async with flow(tmp_path, TASKS) as way:
        await way.app.drain()
        await task_done(way)
        rows = await until_async(way.deliveries)
        assert rows[0].lease_owner is None
        assert way.channel().received == []


# --- numbers -----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("often")
async def test_the_numbers_of_a_lane_tell_how_it_stands(tmp_path: Path) -> None:
    async with flow(tmp_path, TASKS + '[channels.idle]\ntype = "fake"\n') as way:
        gate = Gate()
        way.channel().script = [gate] * 9
        await task_done(way, 9)
        way.app._dispatcher.wake()
        await until(lambda: way.metric("notifyd_backlog", channel="team") == 9)
        way.turn(20)
        await until(lambda: way.metric("notifyd_oldest_pending_seconds", channel="team") >= 20)
        exported = way.metrics.registry.get_sample_value("notifyd_backlog", {"channel": "idle"})
        assert exported == 0
        gate.open()
        await way.ended(9)
        way.app._dispatcher.wake()
        await until(lambda: way.metric("notifyd_backlog", channel="team") == 0)
        assert way.metric("notifyd_oldest_pending_seconds", channel="team") == 0
        assert way.metric("notifyd_deliveries_total", channel="team", outcome="sent") == 9
        assert way.metric("notifyd_delivery_attempts_total", channel="team", outcome="sent") == 9
        assert way.metric("notifyd_delivery_seconds_count", channel="team") == 9


async def test_dead_letters_are_counted_over_a_restart(tmp_path: Path) -> None:
    async with flow(tmp_path) as way:
        way.channel().script = [PermanentError("gone")]
        await way.ask()
        await way.ended(1)
    async with flow(tmp_path) as way:
        assert way.metric("notifyd_dead_letters", channel="team") == 1


async def test_a_backlog_of_an_earlier_life_is_counted_and_refuses_more(tmp_path: Path) -> None:
    clock, text = TurnableClock(), ROUNDS + "max_backlog = 1\n"
    async with flow(tmp_path, text, clock=clock) as way:
        way.channel().script = [busy()]
        await way.ask()
        await tried(way, 1)
    async with flow(tmp_path, text, clock=clock) as way:
        assert way.app._dispatcher.backlog == 1
        with pytest.raises(OverloadedError):
            await way.ask(runId="run-2")
