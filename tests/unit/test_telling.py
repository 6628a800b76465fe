"""What the log says of a lane: one line when something begins, and one when it is over."""

from __future__ import annotations

import logging

import pytest

from notifyd.errors import Reason
from notifyd.flow.lane import BREAKER_THRESHOLD, Lane, Told
from notifyd.flow.telling import tell_attempt, tell_failure, tell_hold
from notifyd.levels import Complaint, Seldom
from notifyd.model import SECOND, Attempt, AttemptOutcome
from tests.fakes import NOW, TurnableClock

TIMEOUT = "no answer within 10 s"
DNS = "its host name does not resolve"


@pytest.fixture
def clock() -> TurnableClock:
    return TurnableClock()


@pytest.fixture
def lane(caplog: pytest.LogCaptureFixture, clock: TurnableClock) -> Lane:
    caplog.set_level(logging.INFO, "notifyd")
    lane = Lane("team", "team", told=Told(seldom=Seldom(lambda: clock() / SECOND)))
    lane.waiting.add("acme", 169)
    return lane


def attempted(lane: Lane, reason: Reason | None, detail: str = "") -> None:
    outcome = AttemptOutcome.SENT if reason is None else AttemptOutcome.TRANSIENT
    made = Attempt(NOW, 1.0, outcome, reason=reason, detail=detail)
    lane.judge(made, NOW)
    tell_attempt(lane, "d-1", made)


def test_a_channel_that_begins_to_time_out_is_one_line_until_it_takes_something_again(
    lane: Lane, clock: TurnableClock, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        attempted(lane, Reason.TIMEOUT, TIMEOUT)
    assert caplog.messages == ["team fails by timeout: no answer within 10 s"]
    attempted(lane, None)
    clock.turn(61)
    attempted(lane, Reason.TIMEOUT, TIMEOUT)
    assert caplog.messages == [
        "team fails by timeout: no answer within 10 s",
        "team takes messages again, 169 deliveries wait",
        "team fails by timeout: no answer within 10 s",
    ]


def test_a_name_that_does_not_resolve_is_told_after_a_connection_that_was_refused(
    lane: Lane, clock: TurnableClock, caplog: pytest.LogCaptureFixture
) -> None:
    attempted(lane, Reason.NETWORK, "connection refused")
    for seconds in (61, 139):
        clock.turn(seconds)
        attempted(lane, Reason.NETWORK, DNS)
    assert [line.partition(": ")[2] for line in caplog.messages] == ["connection refused", DNS]


def test_a_failure_that_comes_and_goes_is_two_lines_a_minute(
    lane: Lane, clock: TurnableClock, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(120):
        attempted(lane, Reason.TIMEOUT, TIMEOUT)
        attempted(lane, None)
        clock.turn(1)
    assert len(caplog.messages) == 4


def test_a_full_mailbox_is_no_fault_of_the_channel(lane: Lane, caplog: pytest.LogCaptureFixture) -> None:
    attempted(lane, Reason.MAILBOX_FULL, "over quota")
    assert caplog.messages == []


def test_a_breaker_is_told_when_it_opens_and_when_it_closes_with_how_many_wait(
    lane: Lane, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(BREAKER_THRESHOLD + 3):
        attempted(lane, Reason.SERVER_ERROR, "the receiver answered 503")
    attempted(lane, None)
    attempted(lane, None)
    assert caplog.messages == [
        "team fails by server_error: the receiver answered 503",
        "team: the breaker is open after 5 failures in a row: one attempt every 5 s, and 169 deliveries wait",
        "team: the breaker is closed again, 169 deliveries wait",
    ]


def test_what_holds_a_lane_is_told_once_and_once_that_it_is_over(
    lane: Lane, caplog: pytest.LogCaptureFixture
) -> None:
    for why in ("gone", "gone", "", ""):
        tell_hold(lane, why)
    assert caplog.messages == [
        "169 deliveries to team wait: gone",
        "169 deliveries to team may be sent again",
    ]


def test_one_that_waits_is_told_of_as_one(lane: Lane, caplog: pytest.LogCaptureFixture) -> None:
    lane.waiting.reset({"acme": 1})
    for why in ("gone", ""):
        tell_hold(lane, why)
    assert caplog.messages == ["1 delivery to team waits: gone", "1 delivery to team may be sent again"]


def test_a_lane_where_nothing_waits_is_not_told_of(lane: Lane, caplog: pytest.LogCaptureFixture) -> None:
    lane.waiting.reset({})
    for why in ("gone", ""):
        tell_hold(lane, why)
    assert caplog.messages == []


def test_each_attempt_is_a_debug_line(lane: Lane, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "notifyd")
    attempted(lane, None)
    tell_failure(lane, Reason.CHANNEL_MISSING, "it has another type")
    assert caplog.messages[0] == "delivery d-1 to team: sent in 1 ms "
    assert caplog.messages[1] == "team fails by channel_missing: it has another type"


def test_a_loops_complaint_is_a_warning_when_it_is_new(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "notifyd")
    complaint = Complaint(logging.getLogger("notifyd.test"))
    for text in ("full", "full", "locked"):
        complaint.repeat(text)
    complaint.over()
    complaint.repeat("locked")
    levels = [logging.WARNING, logging.DEBUG, logging.WARNING, logging.WARNING]
    assert [record.levelno for record in caplog.records] == levels
