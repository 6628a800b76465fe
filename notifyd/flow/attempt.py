"""One attempt at one delivery: call the channel, bounded in time, and judge whatever happens."""

from __future__ import annotations

import inspect
import logging
import random
import re
import time
import traceback
from typing import Any, Final

import orjson
from attrs import frozen

from notifyd import tracing
from notifyd.config.settings import Dispatch
from notifyd.errors import ATTEMPT_REASONS, PermanentError, Reason, TransientError
from notifyd.flow.calls import MAX_STRAYS, bounded
from notifyd.flow.lane import retry_delay
from notifyd.model import (
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
    carries_ends,
)
from notifyd.plugin import Editing
from notifyd.post import EXCERPT_LIMIT, RETRY_AFTER_CLAMP
from notifyd.registry.channels import OpenChannel, is_ours
from notifyd.security.redact import Redactor
from notifyd.security.secrets import HIDDEN
from notifyd.store import AttemptRecord
from notifyd.text import clean
from notifyd.tracing import NO_TRACER, Role, Span, Trace, Tracer, trace_in
from notifyd.wire.codec import derived_id

log = logging.getLogger(__name__)

DETAIL_LIMIT: Final = 300
_REF_LIMIT: Final = 500

_TRACE_LIMIT: Final = 20_000
"""Longer exceptions are not looked through for secrets, and logged without what they say."""


@frozen
class Result:
    """How an attempt ended. `retry_after` (seconds) is what the receiver asked for."""

    attempt: Attempt
    retry_after: float | None = None


async def attempt(
    channel: OpenChannel,
    message: Message,
    clock: Clock,
    redactor: Redactor,
    *,
    edits: str | None = None,
    tracer: Tracer = NO_TRACER,
) -> Result:
    """Send once, or put `message` in the place of what the vendor calls `edits`: a span of the event's trace.

    Never raises but for the cancellation of the caller, whatever the channel does.
    """
    trace = trace_in(message.event)
    if tracer is NO_TRACER:  # nobody hears of what would be gathered for each attempt
        return await _attempt(channel, message, clock, redactor, edits, trace)
    facts = {
        "notifyd.channel": channel.name,
        "notifyd.channel.type": channel.type,
        "notifyd.delivery.id": message.id,
    }
    with tracer.span(f"send {channel.name}", Role.CLIENT, trace, facts) as span:
        result = await _attempt(channel, message, clock, redactor, edits, span.trace)
        _note(span, result.attempt)
    return result


async def _attempt(
    channel: OpenChannel,
    message: Message,
    clock: Clock,
    redactor: Redactor,
    edits: str | None,
    trace: Trace,
) -> Result:
    at, started = clock(), time.perf_counter()
    carried = tracing.current.set(trace)
    try:
        verdict = await _verdict(channel, message, edits)
    finally:
        tracing.current.reset(carried)
    duration_ms = round((time.perf_counter() - started) * 1000, 3)
    return _result(verdict, at, duration_ms, Discretion(redactor, message), channel)


def _note(span: Span, made: Attempt) -> None:
    """How it ended, without what the receiver said."""
    span.note({"notifyd.outcome": made.outcome.value})
    if made.status is not None:
        span.note({"notifyd.status": made.status})
    if made.reason is not None:
        span.fail(made.reason.value)


_LINK: Final = re.compile("/approvals/(?:[a-z]{1,20}/)?([0-9A-Za-z_.~-]{16,})")
_TOKEN: Final = "resumeToken"  # noqa: S105 - the name of a member


def carried_in(message: Message) -> tuple[str, ...]:
    """What a message says in secret: the links of approvers, and a callback's resume token."""
    texts = (message.body, message.html or "", *(action.url for action in message.actions))
    links = (link for text in texts for link in _LINK.findall(text))
    token = _resume_token(message.body) if _TOKEN in message.body else None
    return tuple(dict.fromkeys((*links, token) if token else links))


def _resume_token(body: str) -> str | None:
    try:
        token = orjson.loads(body)["data"][_TOKEN]
    except (ValueError, TypeError, KeyError):
        return None
    return token if isinstance(token, str) else None


@frozen
class Discretion:
    """Keeps what a channel says without what it was told: a receiver may answer with anything that it was sent.

    `message` is what it was sent, None for nothing.
    """

    redactor: Redactor
    message: Message | None = None

    def text(self, given: object, limit: int) -> str:
        """What a channel said, bounded, and without secrets, controls and what no encoding carries."""
        if not given or not isinstance(given, str):
            return ""
        text = clean(given[: 2 * limit])
        carried = () if self.message is None else carried_in(self.message)
        for secret in carried:
            text = text.replace(secret, HIDDEN)
        text = self.redactor.text(text, cut=True)[:limit]
        return HIDDEN if self.redactor.echoed(text, carried) else text

    def log(self, channel: str, error: BaseException) -> None:
        """Where a channel broke, and what it said of that unless it repeats a secret."""
        said = "".join(traceback.format_exception(error))
        if len(said) <= _TRACE_LIMIT and self.text(said, len(said)) == said:
            log.error("channel %s raised %s", channel, type(error).__name__, exc_info=error)
        else:
            frames = "".join(traceback.format_tb(error.__traceback__))
            log.error("channel %s raised %s at\n%s", channel, type(error).__name__, frames)


async def _verdict(channel: OpenChannel, message: Message, edits: str | None) -> object:
    """What the channel makes of the message. Its time is bounded, even where it is deaf to a cancellation."""
    if len(channel.strays) >= MAX_STRAYS:
        detail = f"{MAX_STRAYS} earlier attempts have not ended, though they were cancelled"
        return TransientError(detail, reason=Reason.CHANNEL_FAULT)
    try:
        return await bounded(channel, _call(channel, message, edits), channel.strays, "an attempt")
    except TimeoutError:
        return TransientError(f"no answer within {channel.timeout:g} s", reason=Reason.TIMEOUT)


async def _call(channel: OpenChannel, message: Message, edits: str | None) -> object:
    """What `send` or `edit` gives or raises, as a verdict. Raises nothing but the cancellation by `bounded`."""
    try:
        if edits is not None and isinstance(channel.channel, Editing):
            given: Any = channel.channel.edit(edits, message)
        else:
            given = channel.channel.send(message)
        # One that is not async has sent by now: awaiting what it gave would raise, and the retry send it twice.
        return await given if inspect.isawaitable(given) else given
    except (TransientError, PermanentError) as error:
        return error
    except TimeoutError:
        return TransientError("the channel timed out", reason=Reason.TIMEOUT)
    except BaseException as error:
        if is_ours(error):
            raise
        # A plugin may raise anything, SystemExit too: its lane suffers, nothing else does.
        return error


def _result(
    verdict: object, at: Instant, duration_ms: float, discretion: Discretion, channel: OpenChannel
) -> Result:
    """A channel's verdict as it can be kept. Nothing in it is trusted to have the type it should have."""
    if isinstance(verdict, BaseException) and not isinstance(verdict, TransientError | PermanentError):
        detail = f"the channel raised {type(verdict).__name__}"
        if channel.seldom.passes(detail):
            discretion.log(channel.name, verdict)
        verdict = TransientError(detail, reason=Reason.CHANNEL_FAULT)
    if not isinstance(verdict, Receipt | TransientError | PermanentError):
        # It returned without raising: the message counts as taken, since a retry would send it twice.
        returned = type(verdict).__name__
        if channel.seldom.passes(returned):
            log.warning("channel %s returned %s instead of a Receipt", channel.name, returned)
        verdict = Receipt()
    outcome = _outcome(verdict)
    reason = getattr(verdict, "reason", None)
    # A reason of notifyd's own, such as that a message could not be rendered, would be believed later on.
    known = reason if isinstance(reason, Reason) and reason in ATTEMPT_REASONS else Reason.CHANNEL_FAULT
    status = getattr(verdict, "status", None)
    made = Attempt(
        at,
        duration_ms,
        outcome,
        reason=None if outcome is AttemptOutcome.SENT else known,
        status=status if type(status) is int and 0 <= status < 1000 else None,
        detail=discretion.text(getattr(verdict, "detail", ""), DETAIL_LIMIT),
        excerpt=discretion.text(getattr(verdict, "excerpt", ""), EXCERPT_LIMIT),
        ref=_ref(getattr(verdict, "ref", ""), discretion, channel),
    )
    return Result(made, _seconds(getattr(verdict, "retry_after", None)))


def _ref(given: object, discretion: Discretion, channel: OpenChannel) -> str:
    """What the vendor calls it, as it is: cut or redacted it would name something else."""
    kept = discretion.text(given, _REF_LIMIT)
    if kept == given and kept.isprintable():
        return kept
    if channel.seldom.passes("ref"):
        log.warning(
            "channel %s gives a ref that cannot be kept, so that what it sent is never changed: "
            "it is no text of at most %d printable characters, or shows a secret",
            channel.name,
            _REF_LIMIT,
        )
    return ""


def nothing_to_change(at: Instant) -> Result:
    """An edit of what was never sent, or by a channel that cannot change it any more: nothing is left to do."""
    return Result(Attempt(at, 0.0, AttemptOutcome.SENT, detail="there is nothing to change"))


def _outcome(verdict: Receipt | TransientError | PermanentError) -> AttemptOutcome:
    if isinstance(verdict, Receipt):
        return AttemptOutcome.SENT
    return AttemptOutcome.TRANSIENT if isinstance(verdict, TransientError) else AttemptOutcome.PERMANENT


def _seconds(given: object) -> float | None:
    """A wait as a number one can reckon with; what is no number at all counts as not given."""
    return max(0.0, min(given, RETRY_AFTER_CLAMP)) if isinstance(given, int | float) else None


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


def unrendered(delivery: Delivery, now: Instant) -> AuditRecord:
    """What the audit trail says of a delivery that is dead because it has no message."""
    return _audit(delivery, None, False, Reason.RENDER_FAILED, now)


def _end(
    delivery: Delivery, made: Attempt | None, state: State, reason: Reason | None, now: Instant
) -> AttemptRecord:
    sent, callback = state is State.SENT, delivery.answers_who_asked
    resume = (ResumeStatus.DELIVERED if sent else ResumeStatus.FAILED) if callback else None
    audit = (_audit(delivery, made, sent, reason, now),)
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
    delivery: Delivery, made: Attempt | None, sent: bool, reason: Reason | None, now: Instant
) -> AuditRecord:
    name = _NAMES[sent, carries_ends(delivery.channel)]
    data: dict[str, Any] = {"deliveryId": delivery.id, "channel": delivery.channel}
    if delivery.rule:
        data["rule"] = delivery.rule
    if delivery.recipient is not None:
        data["recipient"] = delivery.recipient
    if reason is not None:
        data["reason"] = reason.value
    # A delivery that died, was retried by hand and died again has two ends to tell of.
    ends = [delivery.id, name.value, delivery.fencing_token] if not sent else [delivery.id, name.value]
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
