"""One attempt at one delivery: call the channel, bounded in time, and judge whatever happens."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from typing import Any, Final

from attrs import frozen

from notifyd.codec import derived_id
from notifyd.errors import PermanentError, Reason, TransientError
from notifyd.flow.lane import retry_delay
from notifyd.model import (
    RESUME_CHANNEL,
    Attempt,
    AttemptOutcome,
    AuditName,
    AuditRecord,
    Clock,
    Delivery,
    Instant,
    Message,
    Receipt,
    ResumeStatus,
    State,
)
from notifyd.redact import Redactor
from notifyd.registry import OpenChannel
from notifyd.settings import Dispatch
from notifyd.store import AttemptRecord

log = logging.getLogger(__name__)

_DETAIL_LIMIT: Final = 300


@frozen
class Result:
    """How an attempt ended. `retry_after` (seconds) is what the receiver asked for."""

    attempt: Attempt
    retry_after: float | None = None


async def attempt(channel: OpenChannel, message: Message, clock: Clock, redactor: Redactor) -> Result:
    """Send once. Never raises but for the cancellation of the caller."""
    at, started = clock(), time.perf_counter()
    try:
        async with asyncio.timeout(channel.timeout):
            verdict: Receipt | TransientError | PermanentError = await channel.channel.send(message)
    except (TransientError, PermanentError) as error:
        verdict = error
    except TimeoutError:
        verdict = TransientError(f"no answer within {channel.timeout:g} s", reason=Reason.TIMEOUT)
    except BaseException as error:
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
            raise
        # A plugin may raise anything, SystemExit too: its lane suffers, nothing else does.
        log.exception("channel %s raised %s", channel.name, type(error).__name__)
        verdict = TransientError(f"the channel raised {type(error).__name__}", reason=Reason.CHANNEL_FAULT)
    return _result(verdict, at, (time.perf_counter() - started) * 1000, redactor, channel.name)


def _result(
    verdict: Receipt | TransientError | PermanentError | Any,
    at: Instant,
    duration_ms: float,
    redactor: Redactor,
    channel: str,
) -> Result:
    if isinstance(verdict, TransientError | PermanentError):
        transient = isinstance(verdict, TransientError)
        return Result(
            Attempt(
                at=at,
                duration_ms=round(duration_ms, 3),
                outcome=AttemptOutcome.TRANSIENT if transient else AttemptOutcome.PERMANENT,
                reason=verdict.reason,
                status=verdict.status,
                detail=redactor.text(verdict.detail)[:_DETAIL_LIMIT],
                excerpt=redactor.text(verdict.excerpt, cut=True),
            ),
            retry_after=verdict.retry_after if isinstance(verdict, TransientError) else None,
        )
    if not isinstance(verdict, Receipt):
        # It returned without raising: the message counts as taken, since a retry would send it twice.
        log.warning("channel %s returned %s instead of a Receipt", channel, type(verdict).__name__)
        verdict = Receipt()
    detail = redactor.text(verdict.detail)[:_DETAIL_LIMIT]
    return Result(
        Attempt(at, round(duration_ms, 3), AttemptOutcome.SENT, status=verdict.status, detail=detail)
    )


# --- what follows from it: pure ----------------------------------------------------------------------------


def conclude(
    delivery: Delivery, result: Result, settings: Dispatch, now: Instant, randomness: random.Random
) -> AttemptRecord:
    """What an attempt makes of its delivery: sent, pending until the next try, or dead with a reason."""
    outcome, tries = result.attempt.outcome, delivery.tries + 1
    if outcome is AttemptOutcome.SENT:
        return _end(delivery, result.attempt, State.SENT, None, now)
    if outcome is AttemptOutcome.PERMANENT:
        return _end(delivery, result.attempt, State.DEAD, result.attempt.reason, now)
    if tries >= settings.max_attempts:
        return _end(delivery, result.attempt, State.DEAD, Reason.MAX_ATTEMPTS, now)
    due = now + retry_delay(tries, settings.backoff, result.retry_after, randomness)
    if due >= delivery.deadline:
        return _end(delivery, result.attempt, State.DEAD, Reason.MAX_AGE, now)
    return AttemptRecord(delivery, result.attempt, State.PENDING, due, ended_at=None, reason=None)


def too_old(delivery: Delivery, now: Instant) -> AttemptRecord:
    """A delivery whose time ran out while it waited."""
    return _end(delivery, None, State.DEAD, Reason.MAX_AGE, now)


def _end(
    delivery: Delivery, made: Attempt | None, state: State, reason: Reason | None, now: Instant
) -> AttemptRecord:
    sent, callback = state is State.SENT, delivery.channel == RESUME_CHANNEL
    resume = (ResumeStatus.DELIVERED if sent else ResumeStatus.FAILED) if callback else None
    audit = (_audit(delivery, made, sent, callback, reason, now),)
    return AttemptRecord(
        delivery, made, state, delivery.next_attempt_at, now, reason, audit=audit, resume=resume
    )


_NAMES: Final = {
    (True, False): AuditName.NOTIFICATION_SENT,
    (False, False): AuditName.NOTIFICATION_DEAD,
    (True, True): AuditName.RESUME_DELIVERED,
    (False, True): AuditName.RESUME_DEAD,
}


def _audit(
    delivery: Delivery, made: Attempt | None, sent: bool, callback: bool, reason: Reason | None, now: Instant
) -> AuditRecord:
    name = _NAMES[sent, callback]
    data: dict[str, Any] = {"deliveryId": delivery.id, "channel": delivery.channel}
    if delivery.rule:
        data["rule"] = delivery.rule
    if delivery.recipient is not None:
        data["recipient"] = delivery.recipient
    if reason is not None:
        data["reason"] = reason.value
    # A delivery that died, was retried by hand and died again has two ends to tell of.
    ends = [delivery.id, name.value, delivery.lease_number] if not sent else [delivery.id, name.value]
    return AuditRecord(
        id=derived_id("audit", delivery.tenant, *ends),
        tenant=delivery.tenant,
        name=name,
        at=made.at if made else now,
        actor="notifyd",
        correlation_id=delivery.correlation_id,
        run_id=delivery.run_id,
        approval_id=delivery.approval_id,
        data=data,
    )
