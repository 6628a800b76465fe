"""One attempt: whatever a channel does, it ends in a record that can be kept."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
from typing import Any

import orjson
import pytest
from attrs import asdict, evolve

from notifyd.config.settings import Backoff, Dispatch, Duration
from notifyd.errors import ATTEMPT_REASONS, PermanentError, Reason, TransientError
from notifyd.flow.attempt import Result, attempt, conclude, too_old, unrendered
from notifyd.levels import Seldom
from notifyd.model import (
    RESUME_CHANNEL,
    SECOND,
    Attempt,
    AttemptOutcome,
    AuditName,
    Message,
    Receipt,
    ResumeStatus,
    State,
)
from notifyd.post import EXCERPT_LIMIT
from notifyd.security.redact import Redactor
from notifyd.security.secrets import Secret
from tests.fakes import NOW, ScriptedChannel, TurnableClock, open_channel
from tests.store.makers import delivery
from tests.waiting import until

PASSWORD = "correct-horse-battery"
REDACTOR = Redactor([Secret(PASSWORD)])
MESSAGE = Message(id="d1", title="Approve", body="")


async def tried(*script: Any, timeout: float = 5.0, seldom: Seldom | None = None) -> Result:
    channel = open_channel(ScriptedChannel(list(script)), timeout=timeout)
    channel = evolve(channel, seldom=seldom or channel.seldom)
    result = await attempt(channel, MESSAGE, TurnableClock(), REDACTOR)
    orjson.dumps(asdict(result.attempt))  # whatever happened, a store can keep it
    return result


# --- verdicts ----------------------------------------------------------------------------------------------


async def test_a_receipt_is_a_message_sent() -> None:
    made = (await tried(Receipt("queued as 4711", 250))).attempt
    assert (made.outcome, made.reason) == (AttemptOutcome.SENT, None)
    assert (made.status, made.detail, made.excerpt) == (250, "queued as 4711", "")
    assert made.at == NOW
    assert 0 <= made.duration_ms < 5000


async def test_a_transient_error_keeps_its_reason_status_and_wait() -> None:
    error = TransientError("busy", reason=Reason.THROTTLED, retry_after=7, status=429, excerpt="slow down")
    result = await tried(error)
    made = result.attempt
    assert (made.outcome, made.reason) == (AttemptOutcome.TRANSIENT, Reason.THROTTLED)
    assert (made.status, made.detail, made.excerpt) == (429, "busy", "slow down")
    assert result.retry_after == 7


@pytest.mark.parametrize("ref", ["x" * 501, "two\nlines", "half \ud800", PASSWORD, 7, None])
async def test_a_ref_that_cannot_be_kept_as_it_is_is_told_and_left_out(
    ref: Any, caplog: pytest.LogCaptureFixture
) -> None:
    made = (await tried(Receipt(ref=ref))).attempt
    assert (made.outcome, made.ref) == (AttemptOutcome.SENT, "")
    assert "gives a ref that cannot be kept" in caplog.text
    assert PASSWORD not in caplog.text
    assert (await tried(Receipt(ref="\u00fc" * 500))).attempt.ref == "\u00fc" * 500


async def test_a_permanent_error_keeps_its_reason_and_has_no_wait() -> None:
    result = await tried(PermanentError("no such channel", reason=Reason.NOT_FOUND, status=404))
    assert (result.attempt.outcome, result.attempt.reason) == (AttemptOutcome.PERMANENT, Reason.NOT_FOUND)
    assert result.retry_after is None


async def test_a_send_that_takes_too_long_is_cancelled_and_transient() -> None:
    cancelled = asyncio.Event()

    async def hang(_: Message) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    made = (await tried(hang, timeout=0.01)).attempt
    assert (made.outcome, made.reason) == (AttemptOutcome.TRANSIENT, Reason.TIMEOUT)
    assert made.detail == "no answer within 0.01 s"
    assert cancelled.is_set()


async def test_an_attempt_leaves_no_timer_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, timers = asyncio.get_running_loop(), list[asyncio.TimerHandle]()
    call_later: Any = loop.call_later

    def noted(*args: Any, **options: Any) -> asyncio.TimerHandle:
        timers.append(call_later(*args, **options))
        return timers[-1]

    monkeypatch.setattr(loop, "call_later", noted)
    await tried(Receipt(), timeout=3600)
    assert [timer.cancelled() for timer in timers] == [True]


async def test_a_channels_own_timeout_is_not_told_as_ours() -> None:
    made = (await tried(TimeoutError())).attempt
    assert (made.reason, made.detail) == (Reason.TIMEOUT, "the channel timed out")


class Unforeseen(BaseException):
    """What no author of a channel should derive from."""


@pytest.mark.parametrize(
    "error",
    [
        ValueError("bad"),
        KeyError(),
        SystemExit(1),
        KeyboardInterrupt(),
        asyncio.CancelledError(),
        Unforeseen(),
        ExceptionGroup("several", [ValueError("one"), TransientError("two")]),
        StopAsyncIteration(),
        MemoryError(),
        RecursionError(),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_anything_a_channel_raises_is_a_fault_of_that_channel_alone_and_logged(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    made = (await tried(error)).attempt
    assert (made.outcome, made.reason) == (AttemptOutcome.TRANSIENT, Reason.CHANNEL_FAULT)
    assert type(error).__name__ in made.detail
    assert f"channel team raised {type(error).__name__}" in caplog.text


@pytest.mark.parametrize("returned", [None, "ok", 200, {"ok": True}, object()])
async def test_a_channel_that_returns_nonsense_has_taken_the_message_and_is_told_of(
    returned: object, caplog: pytest.LogCaptureFixture
) -> None:
    made = (await tried(lambda _: returned)).attempt
    assert (made.outcome, made.status, made.detail) == (AttemptOutcome.SENT, None, "")
    assert f"channel team returned {type(returned).__name__} instead of a Receipt" in caplog.text


async def test_what_a_channel_gets_wrong_each_time_is_a_line_a_minute_for_each_kind(
    caplog: pytest.LogCaptureFixture,
) -> None:
    seldom = Seldom()
    for _ in range(3):
        await tried(lambda _: "ok", seldom=seldom)
        await tried(lambda _: 200, seldom=seldom)
        await tried(ValueError("broken"), seldom=seldom)
    assert [line.partition("team ")[2] for line in caplog.messages] == [
        "returned str instead of a Receipt",
        "returned int instead of a Receipt",
        "raised ValueError",
    ]


async def test_the_cancellation_of_the_caller_is_not_taken_for_the_channels() -> None:
    started = asyncio.Event()

    async def hang(_: Message) -> None:
        started.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(tried(hang))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_message_that_was_taken_in_the_last_moment_counts_as_sent() -> None:
    async def late(_: Message) -> Receipt:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return Receipt("taken after all")
        raise AssertionError

    made = (await tried(late, timeout=0.01)).attempt
    assert (made.outcome, made.detail) == (AttemptOutcome.SENT, "taken after all")


async def test_a_channel_that_is_deaf_to_its_cancellation_is_left_behind_and_then_called_no_more(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("notifyd.flow.calls.LAST_WORDS", 0.01)
    released = asyncio.Event()

    async def deaf(_: Message) -> Receipt:
        while not released.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await released.wait()
        return Receipt()

    script = ScriptedChannel([deaf] * 8)
    channel = open_channel(script, timeout=0.01)
    for _ in range(8):
        made = (await attempt(channel, MESSAGE, TurnableClock(), REDACTOR)).attempt
        assert (made.outcome, made.reason) == (AttemptOutcome.TRANSIENT, Reason.TIMEOUT)
    assert "does not end an attempt that was cancelled" in caplog.text
    refused = (await attempt(channel, MESSAGE, TurnableClock(), REDACTOR)).attempt
    assert (refused.outcome, refused.reason) == (AttemptOutcome.TRANSIENT, Reason.CHANNEL_FAULT)
    assert len(script.received) == 8
    released.set()
    await until(lambda: not channel.strays)
    again = (await attempt(channel, MESSAGE, TurnableClock(), REDACTOR)).attempt
    assert again.outcome is AttemptOutcome.SENT


# --- what is kept of what a channel says -------------------------------------------------------------------


@pytest.mark.parametrize("make", [TransientError, PermanentError])
async def test_what_a_receiver_echoes_is_kept_without_secrets(make: Any) -> None:
    made = (
        await tried(make(f"login {PASSWORD} failed", excerpt=f"token={PASSWORD} /approvals/{'x' * 40}"))
    ).attempt
    assert made.detail == "login *** failed"
    assert made.excerpt == "token=*** /approvals/…"


async def test_a_secret_that_the_bound_cuts_in_two_is_hidden_too() -> None:
    for cut in range(1, len(PASSWORD)):
        text = "x" * (EXCERPT_LIMIT - cut) + PASSWORD + " and more"
        made = (await tried(TransientError("", excerpt=text))).attempt
        assert len(made.excerpt) <= EXCERPT_LIMIT
        assert PASSWORD[:6] not in made.excerpt


async def test_an_endless_answer_is_kept_in_part() -> None:
    made = (await tried(TransientError("d" * 10_000_000, excerpt="e" * 10_000_000))).attempt
    assert len(made.detail) <= 300
    assert len(made.excerpt) <= EXCERPT_LIMIT


async def test_what_no_encoding_carries_is_left_out() -> None:
    made = (await tried(TransientError("lone \ud800 surrogate", excerpt="nul \x00 and \x1b[31m"))).attempt
    assert made.detail == "lone  surrogate"
    assert made.excerpt == "nul  and [31m"


def broken(**attributes: Any) -> TransientError:
    error = TransientError("busy")
    for name, value in attributes.items():
        setattr(error, name, value)
    return error


class ForgetfulError(TransientError):
    """A subclass that forgets its base's `__init__`."""

    def __init__(self) -> None:
        Exception.__init__(self, "busy")


@pytest.mark.parametrize(
    "error",
    [
        broken(reason="rate_limited"),
        broken(reason=None),
        broken(status="429"),
        broken(status=2**70),
        broken(status=-1),
        broken(detail=None),
        broken(detail=b"busy"),
        broken(excerpt=["busy"]),
        broken(retry_after="7"),
        ForgetfulError(),
    ],
)
async def test_a_verdict_of_the_wrong_types_is_kept_as_far_as_it_makes_sense(error: TransientError) -> None:
    result = await tried(error)
    made = result.attempt
    assert made.outcome is AttemptOutcome.TRANSIENT
    assert isinstance(made.reason, Reason)
    assert made.status is None
    assert result.retry_after is None
    assert made.detail in ("busy", "")


@pytest.mark.parametrize("reason", [one for one in Reason if one not in ATTEMPT_REASONS])
async def test_a_channel_cannot_give_a_reason_that_is_notifyds_own(reason: Reason) -> None:
    made = (await tried(PermanentError("no", reason=reason))).attempt
    assert (made.outcome, made.reason) == (AttemptOutcome.PERMANENT, Reason.CHANNEL_FAULT)


@pytest.mark.parametrize(
    ("asked", "kept"),
    [(0, 0.0), (1.5, 1.5), (-5, 0.0), (math.inf, 1e9), (-math.inf, 0.0), (10**400, 1e9), (math.nan, 0.0)],
)
async def test_any_wait_that_is_asked_for_is_a_number_one_can_reckon_with(asked: float, kept: float) -> None:
    assert (await tried(TransientError("busy", retry_after=asked))).retry_after == kept


# --- what follows from it ----------------------------------------------------------------------------------

SETTINGS = Dispatch(max_attempts=3, backoff=Backoff(Duration(SECOND), Duration(60 * SECOND)))


def result(outcome: AttemptOutcome, reason: Reason | None = None, retry_after: float | None = None) -> Result:
    return Result(Attempt(NOW, 1.0, outcome, reason), retry_after)


SENT = result(AttemptOutcome.SENT)
BUSY = result(AttemptOutcome.TRANSIENT, Reason.SERVER_ERROR)
GONE = result(AttemptOutcome.PERMANENT, Reason.NOT_FOUND)


def concluded(given: Result, **changes: Any) -> Any:
    row = delivery(created_at=NOW, next_attempt_at=NOW, deadline=NOW + 3600 * SECOND, **changes)
    return conclude(row, given, SETTINGS, NOW, random.Random(1))  # noqa: S311 - jitter


def test_what_is_sent_is_over() -> None:
    record = concluded(SENT)
    assert (record.state, record.reason, record.ended_at) == (State.SENT, None, NOW)
    (line,) = record.audit
    assert (line.name, line.data["deliveryId"]) == (AuditName.NOTIFICATION_SENT, "d1")


def test_a_transient_failure_is_tried_again_within_its_step() -> None:
    record = concluded(BUSY)
    assert (record.state, record.ended_at, record.audit) == (State.PENDING, None, ())
    assert NOW <= record.next_attempt_at <= NOW + SECOND


def test_what_the_receiver_asks_for_is_waited_for() -> None:
    asked = result(AttemptOutcome.TRANSIENT, Reason.THROTTLED, retry_after=20)
    assert concluded(asked).next_attempt_at == NOW + 20 * SECOND


def test_the_last_allowed_failure_is_the_end() -> None:
    assert concluded(BUSY, tries=1).state is State.PENDING
    record = concluded(BUSY, tries=2)
    assert (record.state, record.reason) == (State.DEAD, Reason.MAX_ATTEMPTS)
    assert record.attempt is BUSY.attempt
    assert [line.name for line in record.audit] == [AuditName.NOTIFICATION_DEAD]


def test_a_permanent_failure_is_the_end_at_once_with_its_reason() -> None:
    record = concluded(GONE)
    assert (record.state, record.reason, record.ended_at) == (State.DEAD, Reason.NOT_FOUND, NOW)


def test_a_next_try_beyond_the_deadline_is_none() -> None:
    asked = result(AttemptOutcome.TRANSIENT, Reason.THROTTLED, retry_after=60)
    row = delivery(deadline=NOW + 60 * SECOND)
    record = conclude(row, asked, SETTINGS, NOW, random.Random(1))  # noqa: S311 - jitter
    assert (record.state, record.reason) == (State.DEAD, Reason.MAX_AGE)


def test_what_waited_too_long_dies_without_an_attempt() -> None:
    record = too_old(delivery(), NOW)
    assert (record.state, record.reason, record.attempt) == (State.DEAD, Reason.MAX_AGE, None)
    assert [line.name for line in record.audit] == [AuditName.NOTIFICATION_DEAD]


def test_what_cannot_be_rendered_is_dead_on_the_audit_trail_with_its_reason() -> None:
    line = unrendered(delivery(), NOW)
    assert (line.name, line.at, line.data["reason"]) == (AuditName.NOTIFICATION_DEAD, NOW, "render_failed")


@pytest.mark.parametrize("status", [0, 999])
async def test_any_status_of_three_digits_is_kept(status: int) -> None:
    assert (await tried(Receipt("", status))).attempt.status == status


@pytest.mark.parametrize(
    ("given", "name", "status"),
    [
        (SENT, AuditName.RESUME_DELIVERED, ResumeStatus.DELIVERED),
        (GONE, AuditName.RESUME_DEAD, ResumeStatus.FAILED),
    ],
)
def test_the_end_of_a_callback_is_told_to_its_approval(
    given: Result, name: AuditName, status: ResumeStatus
) -> None:
    record = concluded(given, channel=RESUME_CHANNEL)
    assert record.resume is status
    assert [line.name for line in record.audit] == [name]
    assert concluded(given).resume is None


def test_an_audit_line_of_an_end_is_one_however_often_it_is_made_and_two_for_two_lives() -> None:
    first, again = concluded(GONE, fencing_token=1), concluded(GONE, fencing_token=1)
    assert first.audit[0].id == again.audit[0].id
    assert concluded(GONE, fencing_token=2).audit[0].id != first.audit[0].id
    assert concluded(SENT, fencing_token=1).audit[0].id == concluded(SENT, fencing_token=2).audit[0].id


def test_an_audit_line_tells_the_recipient_and_reason_and_no_texts() -> None:
    row = evolve(delivery(), recipient="alice@acme.example", message='{"body":"hush"}')
    (line,) = conclude(row, GONE, SETTINGS, NOW, random.Random(1)).audit  # noqa: S311 - jitter
    assert line.data == {
        "deliveryId": "d1",
        "channel": "slack",
        "rule": "approvals",
        "recipient": "alice@acme.example",
        "reason": "not_found",
    }
