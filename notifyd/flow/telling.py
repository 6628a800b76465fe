"""What the log says of lanes: one line when something begins, and one when it is over."""

from __future__ import annotations

import logging

from notifyd.errors import Reason
from notifyd.flow.lane import BREAKER_INTERVAL, BREAKER_THRESHOLD, Lane
from notifyd.model import SECOND, Attempt, AttemptOutcome
from notifyd.text import counted

log = logging.getLogger(__name__)


def tell_attempt(lane: Lane, delivery_id: str, made: Attempt) -> None:
    """Called once the lane has judged an attempt."""
    log.debug(
        "delivery %s to %s: %s in %.0f ms %s",
        delivery_id,
        lane.name,
        made.outcome,
        made.duration_ms,
        made.detail,
    )
    if made.outcome is AttemptOutcome.TRANSIENT and made.reason not in (None, Reason.MAILBOX_FULL):
        tell_failure(lane, made.reason, made.detail)
    closed = _tell_breaker(lane)
    if made.outcome is AttemptOutcome.SENT and lane.told.failures:
        if not closed:
            log.warning("%s takes messages again, %s", lane.name, _waiting(lane))
        lane.told.failures.clear()


def tell_failure(lane: Lane, reason: Reason, detail: str) -> None:
    """A kind of failure that is new since the lane last sent something, or has another cause by now."""
    told = lane.told
    if told.failures.get(reason) == detail or not told.seldom.passes(reason):
        return
    told.failures[reason] = detail
    log.warning("%s fails by %s: %s", lane.name, reason, detail)


def _tell_breaker(lane: Lane) -> bool:
    """Answers whether it was told that the breaker is closed again."""
    is_open, was_open = lane.breaker.open, lane.told.open
    if is_open and not was_open:
        log.warning(
            "%s: the breaker is open after %d failures in a row: one attempt every %d s, and %s",
            *(lane.name, BREAKER_THRESHOLD, BREAKER_INTERVAL // SECOND, _waiting(lane)),
        )
    elif was_open and not is_open:
        log.warning("%s: the breaker is closed again, %s", lane.name, _waiting(lane))
    lane.told.open = is_open
    return was_open and not is_open


def _waiting(lane: Lane) -> str:
    return counted(lane.backlog, "delivery waits", "deliveries wait")


def tell_hold(lane: Lane, why: str) -> None:
    """`why` nothing of what waits in a lane may be sent, "" where it may."""
    told = lane.told
    if lane.backlog and why != told.held:
        if why:
            wait = "waits" if lane.backlog == 1 else "wait"
            log.warning("%s to %s %s: %s", _deliveries(lane), lane.name, wait, why)
        else:
            log.warning("%s to %s may be sent again", _deliveries(lane), lane.name)
    told.held = why if lane.backlog else ""


def _deliveries(lane: Lane) -> str:
    return counted(lane.backlog, "delivery", "deliveries")
